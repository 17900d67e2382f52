package chaos

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// retryTime bounds the pause before another coordinator is tried.
	retryTime = 250 * time.Millisecond
	// digestTime is how often a scripted agent sends a digest.
	digestTime = 5 * time.Second
	// ackTime is how long its acknowledgement, and the Welcome, may take.
	ackTime = 2 * time.Second
	// stayTime is how long a server stays a member, at most.
	stayTime = 20 * time.Second
)

// agent is a scripted agent that sees everybody well. It stays a member for a
// while, leaves, and joins again as another run.
type agent struct {
	site   *site
	ledger *ledger
	// calm says that it is to stay from now on.
	calm *atomic.Bool

	hello *pb.Hello
	// floor is the highest epoch that it has seen.
	floor   uint64
	at      int
	leaving bool
}

func newAgent(s *site, l *ledger, calm *atomic.Bool, n int) *agent {
	id := fmt.Sprintf("web-%d", n)
	address := fmt.Sprintf("10.0.%d.%d", n/250, n%250+1)
	return &agent{site: s, ledger: l, calm: calm, at: n, hello: &pb.Hello{
		Pool: "default", ServerId: id, BootId: rand.Text(), InstanceId: rand.Text(), Version: "chaos",
		Spec: &pb.ServerSpec{
			ProbeAddresses: []string{address}, Endpoints: []*pb.Endpoint{{Address: address + ":80", Protocol: "http"}},
		},
	}}
}

// live holds one session after the other until ctx ends.
func (a *agent) live(ctx context.Context) {
	addresses, hint := a.site.addresses(), ""
	for ctx.Err() == nil {
		address := addresses[a.at%len(addresses)]
		if hint != "" {
			address, hint = hint, ""
		}
		err := a.session(ctx, address)
		var leader *member.NotLeaderError
		switch {
		case errors.Is(err, errLeft):
			sleep(ctx, mathrand.N(2*time.Second)) //nolint:gosec // when is no secret
			continue
		case errors.As(err, &leader) && leader.Leader != "":
			hint = leader.Leader
		case errors.Is(err, member.ErrStale):
			if ctx.Err() == nil {
				a.ledger.refused(a.hello.GetServerId(), err)
				a.begin()
			}
		default:
			a.at++
		}
		sleep(ctx, mathrand.N(retryTime)) //nolint:gosec // when is no secret
	}
}

// begin makes it another run, which is no member.
func (a *agent) begin() {
	a.leaving = false
	a.hello.Incarnation, a.hello.InstanceId, a.hello.BootId = 0, rand.Text(), rand.Text()
}

var (
	errLeft   = errors.New("the server has left")
	errSilent = errors.New("the coordinator is silent")
)

// session holds one session and returns how it ended.
func (a *agent) session(ctx context.Context, address string) error {
	conn, err := a.site.dial(address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	g, ctx := errgroup.WithContext(ctx)
	stream, err := pb.NewAgentServiceClient(conn).Session(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: a.hello}}); err != nil {
		_, err := stream.Recv()
		return err
	}
	inbox := make(chan *pb.SessionResponse)
	g.Go(func() error {
		for {
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			select {
			case inbox <- m:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	g.Go(func() error { return a.talk(ctx, stream, inbox) })
	return g.Wait()
}

// conversation is the talking side of a session.
type conversation struct {
	*agent

	stream   pb.AgentService_SessionClient
	welcomed bool
	// digests counts those sent; silence ends the session when the newest is not
	// acknowledged, as an agent does.
	digests uint64
	silence *time.Timer
	leave   *time.Timer
}

// talk answers until the session ends. That a message cannot be sent is the
// receiver's to find out.
func (a *agent) talk(ctx context.Context, stream pb.AgentService_SessionClient, inbox <-chan *pb.SessionResponse) error {
	digest := time.NewTicker(digestTime)
	defer digest.Stop()
	stay := mathrand.N(stayTime) //nolint:gosec // when is no secret
	c := &conversation{agent: a, stream: stream, silence: time.NewTimer(ackTime), leave: time.NewTimer(stay)}
	defer c.silence.Stop()
	defer c.leave.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.silence.C:
			return errSilent
		case <-digest.C:
			c.digest()
		case <-c.leave.C:
			c.askToLeave()
		case m := <-inbox:
			if err := c.take(m); err != nil {
				return err
			}
		}
	}
}

func (c *conversation) send(r *pb.SessionRequest) { _ = c.stream.Send(r) }

func (c *conversation) digest() {
	if !c.welcomed {
		return
	}
	c.digests++
	c.send(&pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{Seq: c.digests}}})
	c.silence.Reset(ackTime)
}

func (c *conversation) askToLeave() {
	if !c.welcomed || c.calm.Load() && !c.leaving {
		c.leave.Reset(time.Second)
		return
	}
	c.leaving = true
	c.ledger.leaving(c.hello.GetServerId())
	c.send(&pb.SessionRequest{Message: &pb.SessionRequest_Leave{Leave: &pb.Leave{
		Incarnation: c.hello.GetIncarnation(), Reason: "chaos",
	}}})
}

// take takes one message; an error ends the session.
func (c *conversation) take(m *pb.SessionResponse) error {
	if m.GetWelcome() == nil && m.GetEpoch() < c.floor {
		c.ledger.stale(c.hello.GetServerId(), m.GetEpoch(), c.floor)
		return nil
	}
	switch r := m.GetMessage().(type) {
	case *pb.SessionResponse_Welcome:
		if err := c.accept(m.GetEpoch(), r.Welcome); err != nil {
			return err
		}
		c.welcomed = true
		c.silence.Stop()
		if c.leaving {
			c.leave.Reset(0)
		}
	case *pb.SessionResponse_DigestAck:
		c.silence.Stop()
	case *pb.SessionResponse_LeaveResult:
		if !r.LeaveResult.GetLeft() {
			c.leave.Reset(time.Second)
			return nil
		}
		c.ledger.left(c.hello.GetServerId())
		c.begin()
		return errLeft
	}
	for _, r := range answer(m) {
		c.send(r)
	}
	return nil
}

// accept takes a Welcome, unless it comes from a leader of the past.
func (a *agent) accept(epoch uint64, w *pb.Welcome) error {
	if epoch < a.floor {
		return fmt.Errorf("welcome of epoch %d after %d: %w", epoch, a.floor, &member.NotLeaderError{})
	}
	a.floor = epoch
	a.hello.Incarnation, a.hello.StoreId, a.hello.Epoch = w.GetIncarnation(), w.GetStoreId(), epoch
	a.ledger.welcomed(a.hello.GetServerId(), w.GetIncarnation(), epoch, w.GetResumed())
	if a.leaving {
		a.ledger.leaving(a.hello.GetServerId())
	}
	return nil
}

// answer is what an agent says to a message: everybody is well.
func answer(m *pb.SessionResponse) []*pb.SessionRequest {
	switch m := m.GetMessage().(type) {
	case *pb.SessionResponse_Welcome:
		return obey(m.Welcome.GetAssignment())
	case *pb.SessionResponse_Assignment:
		return obey(m.Assignment)
	case *pb.SessionResponse_Challenge:
		return []*pb.SessionRequest{{Message: &pb.SessionRequest_Echo{Echo: &pb.Echo{Nonce: m.Challenge.GetNonce()}}}}
	case *pb.SessionResponse_Question:
		return []*pb.SessionRequest{{Message: &pb.SessionRequest_Answer{Answer: &pb.Answer{
			Round: m.Question.GetRound(), ServerId: m.Question.GetSubject().GetServerId(),
			Incarnation: m.Question.GetSubject().GetIncarnation(), Evidence: well(), Final: new(true),
		}}}}
	}
	return nil
}

// obey acknowledges an assignment and sees all its subjects well.
func obey(as *pb.Assignment) []*pb.SessionRequest {
	all := []*pb.SessionRequest{{Message: &pb.SessionRequest_AssignmentAck{AssignmentAck: &pb.AssignmentAck{Seq: as.GetSeq()}}}}
	for _, s := range as.GetSubjects() {
		all = append(all, &pb.SessionRequest{Message: &pb.SessionRequest_Report{Report: &pb.Report{
			ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Evidence: well(),
		}}})
	}
	return all
}

func well() *pb.Evidence {
	return &pb.Evidence{
		Sight: pb.Sight_SIGHT_UP, Sent: 1, Rtt: durationpb.New(300 * time.Microsecond), LastReplyAge: durationpb.New(0),
	}
}
