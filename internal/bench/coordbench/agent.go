package coordbench

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/agent/daemon"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// ackTime is how long an acknowledgement may take, as with real agents.
	ackTime = 2 * time.Second
	// agentBytes is how much of a message an agent keeps.
	agentBytes = 64 << 10
	// sources is how many loopback addresses connections come from: one has 28,000
	// ports.
	sources = 32
)

// agent is a scripted agent: it says what a real one says whose server and
// subjects are well, and comes back as a real one does.
type agent struct {
	fleet  *fleet
	number int
	run    string

	mu          sync.Mutex
	incarnation uint64
	storeID     string
	epoch       uint64
	// The session's own: its stream, nil between two, whether it was welcomed, whom
	// the agent watches, and its digests.
	stream     *stream
	welcomed   bool
	welcomedAt time.Time
	spread     time.Duration
	subjects   []*pb.Subject
	digests    uint64
	nextAt     time.Time
	every      time.Duration
	// unacked is the digest that is waited for until ackBy, or 0.
	unacked uint64
	ackBy   time.Time
	timer   *time.Timer
}

func sourceOf(n int) net.IP { return net.IPv4(127, 0, 2, byte(n%sources+1)) }

// live holds one session after the other until ctx ends.
func (a *agent) live(ctx context.Context) {
	trip := daemon.NewItinerary()
	addresses := []string{a.fleet.address}
	for ctx.Err() == nil {
		err := a.session(ctx, trip.Next(addresses))
		if ctx.Err() != nil {
			return
		}
		ended := a.lost(err)
		if sleep(ctx, trip.After(ended, len(addresses), mathrand.Float64())) != nil { //nolint:gosec // jitter is no secret
			return
		}
	}
}

// session holds one session and returns how it ended.
func (a *agent) session(ctx context.Context, address string) error {
	s, err := a.fleet.connect(ctx, a.number, address)
	if err != nil {
		return err
	}
	defer s.close()
	defer context.AfterFunc(ctx, s.close)()
	if err := a.fleet.wait(ctx); err != nil {
		return err
	}
	a.begin(s)
	defer a.end()
	if err := s.call(pb.AgentService_Session_FullMethodName, a.hello()); err != nil {
		return fmt.Errorf("%w: %w", member.ErrUnavailable, err)
	}
	for {
		raw, _, err := s.receive()
		if err != nil {
			return a.reason(err)
		}
		var m pb.SessionResponse
		if err := proto.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("decode message: %w", err)
		}
		if answer := a.take(&m); len(answer) > 0 {
			// That it cannot be sent shows when receiving.
			_ = s.send(answer...)
		}
	}
}

func (a *agent) begin(s *stream) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stream, a.welcomed, a.digests, a.unacked = s, false, 0, 0
}

// end ends the sending. Whether the session was welcomed is known until the next.
func (a *agent) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stream = nil
	if a.timer != nil {
		a.timer.Stop()
	}
}

// reason is why the session has ended: the agent may have ended it.
func (a *agent) reason(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.unacked != 0 && !time.Now().Before(a.ackBy) {
		return daemon.ErrNoAck
	}
	return err
}

// lost takes the end of an attempt.
func (a *agent) lost(err error) daemon.Attempt {
	a.mu.Lock()
	defer a.mu.Unlock()
	ended := daemon.Attempt{Welcomed: a.welcomed, Spread: a.spread, Lasted: time.Since(a.welcomedAt), Err: err}
	removed, isOut := errors.AsType[*member.RemovedError](err)
	if isOut {
		a.incarnation = 0
	}
	a.fleet.lost(ended, removed)
	a.welcomed = false
	return ended
}

func (a *agent) hello() *pb.SessionRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.number
	address := addressOf(n)
	return &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: &pb.Hello{
		Pool: string(member.DefaultPool), ServerId: serverID(n), BootId: a.run, InstanceId: a.run, Version: "bench",
		Incarnation: a.incarnation, StoreId: a.storeID, Epoch: a.epoch, Features: []string{"removed"},
		Spec: &pb.ServerSpec{
			ProbeAddresses: []string{address}, Endpoints: []*pb.Endpoint{{Name: "http", Address: address + ":8080", Protocol: "http"}},
			Zone: zoneOf(n), Rack: rackOf(n), Labels: map[string]string{"version": "2026.11"},
		},
	}}}
}

func serverID(n int) string { return fmt.Sprintf("web-%05d.eu.example.org", n) }

func addressOf(n int) string { return fmt.Sprintf("10.%d.%d.%d", 1+n>>16, n>>8&255, n&255) }

func zoneOf(n int) string { return fmt.Sprintf("eu-%d", n%3) }

func rackOf(n int) string { return fmt.Sprintf("rack-%d", n/3%100) }

// take takes a message and returns what there is to say to it.
func (a *agent) take(m *pb.SessionResponse) []proto.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch r := m.GetMessage().(type) {
	case *pb.SessionResponse_Welcome:
		w := r.Welcome
		a.fleet.welcome(a.incarnation, w)
		a.incarnation, a.storeID, a.epoch = w.GetIncarnation(), w.GetStoreId(), m.GetEpoch()
		a.welcomedAt = time.Now()
		a.welcomed, a.spread, a.every = true, w.GetReconnectSpread().AsDuration(), w.GetDigestInterval().AsDuration()
		return append(a.obey(w.GetAssignment()), a.digest(time.Now()))
	case *pb.SessionResponse_Assignment:
		return a.obey(r.Assignment)
	case *pb.SessionResponse_DigestAck:
		if r.DigestAck.GetSeq() >= a.unacked {
			a.unacked = 0
		}
	case *pb.SessionResponse_Challenge:
		return []proto.Message{&pb.SessionRequest{Message: &pb.SessionRequest_Echo{Echo: &pb.Echo{Nonce: r.Challenge.GetNonce()}}}}
	case *pb.SessionResponse_Question:
		q := r.Question
		a.fleet.questions.Add(1)
		return []proto.Message{&pb.SessionRequest{Message: &pb.SessionRequest_Answer{Answer: &pb.Answer{
			Round: q.GetRound(), ServerId: q.GetSubject().GetServerId(), Incarnation: q.GetSubject().GetIncarnation(),
			Evidence: well(), Final: new(true),
		}}}}
	}
	return nil
}

// obey acknowledges an assignment and reports whom it did not see before.
func (a *agent) obey(as *pb.Assignment) []proto.Message {
	all := []proto.Message{&pb.SessionRequest{Message: &pb.SessionRequest_AssignmentAck{AssignmentAck: &pb.AssignmentAck{Seq: as.GetSeq()}}}}
	known := map[string]uint64{}
	for _, s := range a.subjects {
		known[s.GetServerId()] = s.GetIncarnation()
	}
	for _, s := range as.GetSubjects() {
		if known[s.GetServerId()] == s.GetIncarnation() {
			continue
		}
		all = append(all, &pb.SessionRequest{Message: &pb.SessionRequest_Report{Report: &pb.Report{
			ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Evidence: well(),
		}}})
	}
	a.subjects = as.GetSubjects()
	return all
}

// digest makes the next digest and arranges for what follows it.
func (a *agent) digest(now time.Time) *pb.SessionRequest {
	a.digests++
	d := &pb.Digest{Seq: a.digests}
	for _, s := range a.subjects {
		d.Subjects = append(d.Subjects, &pb.SubjectDigest{
			ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Evidence: well(), Jitter: durationpb.New(40 * time.Microsecond),
		})
	}
	a.nextAt = now.Add(a.every)
	if a.unacked == 0 {
		a.unacked, a.ackBy = a.digests, now.Add(ackTime)
	}
	a.arm(now)
	return &pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: d}}
}

// arm sets the timer for the next digest, or its acknowledgement.
func (a *agent) arm(now time.Time) {
	at := a.nextAt
	if a.unacked != 0 && a.ackBy.Before(at) {
		at = a.ackBy
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(at.Sub(now), a.tick)
	} else {
		a.timer.Reset(at.Sub(now))
	}
}

func (a *agent) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	switch {
	case a.stream == nil || !a.welcomed:
	case a.unacked != 0 && !now.Before(a.ackBy) && a.stream.unread():
		// This process is late, not the coordinator. A real agent has one of its own.
		a.ackBy = now.Add(ackTime)
		a.arm(now)
	case a.unacked != 0 && !now.Before(a.ackBy):
		a.fleet.unacked.Add(1)
		a.stream.close()
	case !now.Before(a.nextAt):
		_ = a.stream.send(a.digest(now)) // shows when receiving
	default:
		a.arm(now)
	}
}

func well() *pb.Evidence {
	return &pb.Evidence{
		Sight: pb.Sight_SIGHT_UP, Sent: 10, Rtt: durationpb.New(300 * time.Microsecond), LastReplyAge: durationpb.New(120 * time.Millisecond),
	}
}

// sleep waits; the error is that ctx has ended before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
