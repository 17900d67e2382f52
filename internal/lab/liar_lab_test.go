//go:build lab && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/rpc"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// liar is an agent that speaks the protocol well and calls everybody down: its
// buddies all the time, and whomever it is asked about.
type liar struct {
	stream  coordinatorv1.AgentService_SessionClient
	sending chan *coordinatorv1.SessionRequest
	// subjects arrive with every assignment.
	subjects chan []*coordinatorv1.Subject
	digests  uint64
}

// lie keeps a session until ctx ends.
func lie(ctx context.Context, w *world, server string) error {
	host := w.Host(server)
	quiet := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(rpc.Security{Insecure: true}, quiet)
	if err != nil {
		return err
	}
	conn, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{w.AgentsAddress()}, Credentials: credentials, ServerRole: rpc.RoleCoordinator, Logger: quiet,
		Dialer: func(ctx context.Context, address string) (net.Conn, error) { return host.Dial(ctx, "tcp", address) },
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := coordinatorv1.NewAgentServiceClient(conn).Session(ctx)
	if err != nil {
		return err
	}
	l := &liar{stream: stream, sending: make(chan *coordinatorv1.SessionRequest), subjects: make(chan []*coordinatorv1.Subject)}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return l.send(ctx) })
	group.Go(func() error { return l.receive(ctx) })
	group.Go(func() error { return l.accuse(ctx) })
	l.sending <- &coordinatorv1.SessionRequest{Message: &coordinatorv1.SessionRequest_Hello{Hello: &coordinatorv1.Hello{
		Pool: lab.Pool, ServerId: server, BootId: "a-boot", InstanceId: "an-instance",
		Spec: &coordinatorv1.ServerSpec{
			ProbeAddresses: []string{host.Addr().String()},
			Endpoints:      []*coordinatorv1.Endpoint{{Address: net.JoinHostPort(host.Addr().String(), "8080")}},
		},
	}}}
	return group.Wait()
}

func (l *liar) say(ctx context.Context, m *coordinatorv1.SessionRequest) error {
	select {
	case l.sending <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *liar) send(ctx context.Context) error {
	for {
		select {
		case m := <-l.sending:
			if err := l.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *liar) receive(ctx context.Context) error {
	for {
		m, err := l.stream.Recv()
		if err != nil {
			return err
		}
		switch m := m.GetMessage().(type) {
		case *coordinatorv1.SessionResponse_Welcome:
			err = l.assigned(ctx, m.Welcome.GetAssignment())
		case *coordinatorv1.SessionResponse_Assignment:
			err = l.assigned(ctx, m.Assignment)
		case *coordinatorv1.SessionResponse_Question:
			err = l.say(ctx, &coordinatorv1.SessionRequest{Message: &coordinatorv1.SessionRequest_Answer{Answer: &coordinatorv1.Answer{
				Round: m.Question.GetRound(), ServerId: m.Question.GetSubject().GetServerId(),
				Incarnation: m.Question.GetSubject().GetIncarnation(), Evidence: down(m.Question.GetProbes()), Final: new(true),
			}}})
		case *coordinatorv1.SessionResponse_Challenge:
			err = l.say(ctx, &coordinatorv1.SessionRequest{Message: &coordinatorv1.SessionRequest_Echo{
				Echo: &coordinatorv1.Echo{Nonce: m.Challenge.GetNonce()},
			}})
		}
		if err != nil {
			return err
		}
	}
}

func (l *liar) assigned(ctx context.Context, a *coordinatorv1.Assignment) error {
	err := l.say(ctx, &coordinatorv1.SessionRequest{Message: &coordinatorv1.SessionRequest_AssignmentAck{
		AssignmentAck: &coordinatorv1.AssignmentAck{Seq: a.GetSeq()},
	}})
	if err != nil {
		return err
	}
	select {
	case l.subjects <- a.GetSubjects():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// accuse reports both buddies as down five times a second, and now and then as
// up, so that the next accusation is news again.
func (l *liar) accuse(ctx context.Context) error {
	var subjects []*coordinatorv1.Subject
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case subjects = <-l.subjects:
			continue
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		evidence := down(4)
		if n%7 == 0 {
			evidence = &coordinatorv1.Evidence{Sight: coordinatorv1.Sight_SIGHT_UP, Sent: 1, Rtt: durationpb.New(time.Millisecond)}
		}
		digest := &coordinatorv1.Digest{}
		for _, s := range subjects {
			report := &coordinatorv1.Report{ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Evidence: evidence}
			if err := l.say(ctx, &coordinatorv1.SessionRequest{Message: &coordinatorv1.SessionRequest_Report{Report: report}}); err != nil {
				return err
			}
			digest.Subjects = append(digest.Subjects, &coordinatorv1.SubjectDigest{
				ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Evidence: evidence,
			})
		}
		l.digests++
		digest.Seq = l.digests
		if err := l.say(ctx, &coordinatorv1.SessionRequest{Message: &coordinatorv1.SessionRequest_Digest{Digest: digest}}); err != nil {
			return err
		}
	}
}

func down(sent uint32) *coordinatorv1.Evidence {
	return &coordinatorv1.Evidence{
		Sight: coordinatorv1.Sight_SIGHT_DOWN, Sent: sent, Lost: sent, FirstLostAge: durationpb.New(time.Second),
	}
}

func TestLiarRemovesNobody(t *testing.T) {
	t.Parallel()
	for _, honest := range []int{2, 3, 5} {
		t.Run(fmt.Sprintf("beside %d", honest), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, honest, "liar")
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- lie(ctx, w, "liar") }()
			w.await("the liar's join", func(ctx context.Context) error {
				answer, err := w.Admin().GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: "liar"})
				if err == nil && answer.GetServer().GetPhase() != coordinatorv1.Phase_PHASE_ACTIVE {
					err = fmt.Errorf("it is %v", answer.GetServer().GetPhase())
				}
				return err
			})
			before := w.ring()
			w.watch(watched(10*time.Second, time.Minute))
			sameRing(t, before, w.ring())
			w.nobodyRemoved()
			w.heardDown("liar")
			cancel()
			if err := <-ended; err != nil && ctx.Err() == nil {
				t.Errorf("the liar was not heard to the end: %v", err)
			}
		})
	}
}

// heardDown checks that an observer's accusations were heard and weighed:
// otherwise a test about them has shown nothing.
func (w *world) heardDown(observer string) {
	w.t.Helper()
	for _, server := range w.servers {
		answer, err := w.Admin().ExplainServer(w.t.Context(), &coordinatorv1.ExplainServerRequest{Pool: lab.Pool, ServerId: server})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, d := range answer.GetDecisions() {
			for _, m := range d.GetExplanation().GetTimeline() {
				if m.GetWho() == observer && m.GetResult() == "down" {
					return
				}
			}
		}
	}
	w.t.Errorf("no decision about anybody weighs that %s misses it", observer)
}
