package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// heardBy empties all boxes and says what was in them.
func heardBy(m *mail, enough int, greeted func(*session)) (said []string) {
	for _, in := range m.collect(nil, enough, greeted) {
		said = append(said, fmt.Sprintf("%T", in)[len("pool."):])
	}
	return said
}

func nobody(*session) {}

// The machine hears what each agent has said in order, and first whom it has kept
// waiting longest.
func TestMailKeepsTheOrder(t *testing.T) {
	t.Parallel()
	m, a, b := newMail(), &session{id: 1}, &session{id: 2}
	m.put(a, pool.Hello{})
	m.put(b, pool.Hello{})
	m.put(a, pool.Report{})
	m.put(a, pool.Digest{})
	m.put(b, pool.Closed{})
	var greeted []pool.SessionID
	note := func(s *session) { greeted = append(greeted, s.id) }
	if said, want := heardBy(m, 2, note), []string{"Hello", "Report", "Digest"}; !slices.Equal(said, want) {
		t.Errorf("the machine hears %v first, not %v", said, want)
	}
	select {
	case <-m.arrived:
	default:
		t.Error("nobody knows that there is more")
	}
	m.put(a, pool.Closed{})
	if said, want := heardBy(m, 9, note), []string{"Hello", "Closed", "Closed"}; !slices.Equal(said, want) {
		t.Errorf("the machine hears %v then, not %v", said, want)
	}
	if want := []pool.SessionID{1, 2}; !slices.Equal(greeted, want) {
		t.Errorf("the sessions of %v are known, not of %v", greeted, want)
	}
}

// Digests wait for company, and whatever else an agent says takes them along.
func TestDigestsAreHeardTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, a, b, began := newMail(), &session{id: 1}, &session{id: 2}, time.Now()
		m.put(a, pool.Digest{})
		time.Sleep(digestDelay / 2)
		m.put(b, pool.Digest{})
		<-m.arrived
		if waited := time.Since(began); waited != digestDelay {
			t.Errorf("the first digest was heard of after %s", waited)
		}
		if said := heardBy(m, batchSize, nobody); len(said) != 2 {
			t.Errorf("%v are heard", said)
		}
		m.put(a, pool.Digest{})
		m.put(b, pool.Report{})
		select {
		case <-m.arrived:
		default:
			t.Error("a report waits")
		}
	})
}

// An agent of which the machine has not heard much waits, until it is heard or the
// host is over.
func TestMailHasBounds(t *testing.T) {
	t.Parallel()
	for name, full := range map[string][]pool.Input{
		"much":    slices.Repeat([]pool.Input{pool.Report{}}, boxSize+1),
		"digests": {pool.Digest{}, pool.Report{}, pool.Digest{}},
	} {
		for _, over := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, over %t", name, over), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					m, s, end, posted := newMail(), &session{}, newEnding(), 0
					go func() {
						for _, in := range full {
							m.post(s, in, end)
							posted++
						}
					}()
					synctest.Wait()
					if posted != len(full)-1 {
						t.Fatalf("%d of %d are posted while nothing is heard", posted, len(full))
					}
					if over {
						end.end(nil)
					} else {
						m.collect(nil, 1, nobody)
					}
					synctest.Wait()
					if left := len(m.collect(nil, 1, nobody)); posted != len(full) || !over && left != 1 {
						t.Errorf("%d are posted, and %d are left", posted, left)
					}
				})
			})
		}
	}
}

// talker is the stream of an agent that says one thing after the other.
type talker struct {
	pb.AgentService_SessionServer

	says [][]byte
}

func (t *talker) Context() context.Context { return context.Background() }

func (t *talker) RecvMsg(m any) error {
	if len(t.says) == 0 {
		return io.EOF
	}
	*m.(*rpc.Raw), t.says = rpc.NewRaw(t.says[0]), t.says[1:]
	return nil
}

// A digest is acknowledged however long the machine is busy, so that agents stay
// where they are; but not the next one: the agents of a coordinator whose machine
// stands still have to go elsewhere.
func TestBusyMachineKeepsItsAgents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said talker
		for _, m := range []*pb.SessionRequest{
			{Message: &pb.SessionRequest_AssignmentAck{AssignmentAck: &pb.AssignmentAck{Seq: 1}}},
			{Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{Seq: 1}}},
			{Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{Seq: 2}}},
		} {
			text, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			said.says = append(said.says, text)
		}
		acks := 0
		s := newSession(1, 1, func(write func()) { write() }, func(any) error { acks++; return nil })
		s.welcomed.Store(true)
		h := &host{mail: newMail(), over: newEnding()}
		done := make(chan error, 1)
		go func() { done <- relay(&said, s, h) }()
		synctest.Wait()
		if acks != 1 {
			t.Errorf("%d digests are acknowledged while the machine is busy", acks)
		}
		h.mail.collect(nil, batchSize, nobody)
		if err := <-done; !errors.Is(err, io.EOF) || acks != 2 {
			t.Errorf("ended with %v; %d digests are acknowledged", err, acks)
		}
	})
}
