package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/internal/history"
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
	// probeTime is how long the reply to the last probe of a question may take.
	probeTime = 20 * time.Millisecond
	// stayTime is how long a server stays a member, at most.
	stayTime = 20 * time.Second
)

// role is what an agent does with its server.
type role struct {
	// id and address are the server's.
	id, address string
	// stay is how long the server stays a member each time; it may change its mind.
	stay func() time.Duration
	// stays reports whether it is not to leave now.
	stays func() bool
	// far says that it goes through the coordinators' fronts.
	far bool
	// once says that the agent ends when its server has left.
	once bool
}

// agent is a scripted agent that sees everybody well whose host is not dead. It
// stays a member for a while, leaves, and joins again as another run.
type agent struct {
	site      *site
	ledger    *ledger
	history   *history.Recorder
	mortality *mortality
	rng       *rand.Rand
	role      role

	hello *pb.Hello
	// said is what hello was when it was welcomed last; nil if it never was.
	said atomic.Pointer[pb.Hello]
	// floor is the highest epoch that it has seen.
	floor uint64
	at    int
	// leaving says that it has asked to leave, lost that its run is over.
	leaving, lost bool
	// greeting and farewell are asked for and not answered yet. The first is
	// repeated on one stream after the other.
	greeting, farewell *history.Call
}

func (r *run) newAgent(n int, does role) *agent {
	a := &agent{
		site: r.site, ledger: r.ledger, history: r.history, mortality: r.mortality, rng: r.random(fmt.Sprintf("%s %d", does.id, n)), role: does, at: n,
		hello: &pb.Hello{
			Pool: chaosPool, ServerId: does.id, Version: "chaos",
			Spec: &pb.ServerSpec{
				ProbeAddresses: []string{does.address}, Endpoints: []*pb.Endpoint{{Address: does.address + ":80", Protocol: "http"}},
			},
		},
	}
	a.begin()
	return a
}

// live holds one session after the other until ctx ends.
func (a *agent) live(ctx context.Context) {
	addresses, hint := a.site.addresses(), ""
	for ctx.Err() == nil {
		address := addresses[a.at%len(addresses)]
		if hint != "" {
			address, hint = hint, ""
		}
		a.dies(ctx, nil)
		err := a.session(ctx, address)
		var leader *member.NotLeaderError
		switch {
		case errors.Is(err, errDied):
			continue
		case errors.Is(err, errLeft):
			if a.role.once {
				return
			}
			sleep(ctx, a.draw(2*time.Second))
			continue
		case errors.As(err, &leader) && leader.Leader != "":
			hint = leader.Leader
		case errors.Is(err, member.ErrStale):
			if ctx.Err() == nil {
				a.refused(err)
			}
		default:
			a.at++
			a.giveUp()
		}
		sleep(ctx, a.draw(retryTime))
	}
}

func (a *agent) draw(limit time.Duration) time.Duration {
	return time.Duration(a.rng.Int64N(int64(limit)))
}

// begin makes it another run, which is no member.
func (a *agent) begin() {
	a.leaving, a.lost, a.greeting, a.farewell = false, false, nil, nil
	a.hello.Incarnation = 0
	a.hello.InstanceId, a.hello.BootId = fmt.Sprintf("run-%016x", a.rng.Uint64()), fmt.Sprintf("boot-%016x", a.rng.Uint64())
}

// refused takes a coordinator's word that the server is no member.
func (a *agent) refused(err error) {
	if removed, told := errors.AsType[*member.RemovedError](err); told {
		now := time.Now()
		a.history.Call(history.Operation{
			Kind: history.Over, Pool: chaosPool, Server: a.role.id, Client: a.role.id, Incarnation: uint64(removed.Incarnation),
		}, now).Return(history.Result{}, now)
	}
	a.ledger.refused(a.role.id, err)
	a.begin()
}

// giveUp makes it another run now and then while nobody knows whether this one
// has joined: a host that is set up anew.
func (a *agent) giveUp() {
	if a.greeting == nil || a.hello.GetIncarnation() != 0 || a.rng.IntN(30) != 0 {
		return
	}
	a.lose(time.Now())
	a.begin()
}

var (
	errLeft   = errors.New("the server has left")
	errSilent = errors.New("the coordinator is silent")
)

// session holds one session and returns how it ended.
func (a *agent) session(ctx context.Context, address string) error {
	conn, err := a.site.reach(address, a.role.far)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	g, ctx := errgroup.WithContext(ctx)
	stream, err := pb.NewAgentServiceClient(conn).Session(ctx)
	if err != nil {
		return err
	}
	a.greet()
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

// greet writes down that it says hello.
func (a *agent) greet() {
	a.farewell = nil
	a.ledger.asking(a.role.id)
	if a.greeting != nil {
		a.greeting.Retry()
		return
	}
	a.greeting = a.history.Call(history.Operation{
		Kind: history.Hello, Pool: chaosPool, Server: a.role.id, Client: a.role.id,
		Run: a.hello.GetInstanceId(), Incarnation: a.hello.GetIncarnation(),
	}, time.Now())
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
	// probed are the questions whose probes have all been sent.
	probed chan *pb.Question
	// subjects are whom it watches, and whether it has reported that it misses
	// them.
	subjects map[string]*subject
}

type subject struct {
	incarnation uint64
	missed      bool
}

// talk answers until the session ends. That a message cannot be sent is the
// receiver's to find out.
func (a *agent) talk(ctx context.Context, stream pb.AgentService_SessionClient, inbox <-chan *pb.SessionResponse) error {
	digest := time.NewTicker(digestTime)
	defer digest.Stop()
	c := &conversation{
		agent: a, stream: stream, silence: time.NewTimer(ackTime), leave: time.NewTimer(a.role.stay()), probed: make(chan *pb.Question),
	}
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	defer c.silence.Stop()
	defer c.leave.Stop()
	for {
		var act func() error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			act = func() error { c.look(); return nil }
		case q := <-c.probed:
			act = func() error { c.verdict(q, true); return nil }
		case <-c.silence.C:
			act = func() error { return errSilent }
		case <-digest.C:
			act = func() error { c.digest(); return nil }
		case <-c.leave.C:
			act = func() error { c.askToLeave(); return nil }
		case m := <-inbox:
			act = func() error { return c.take(m) }
		}
		if c.dies(ctx, inbox) {
			return errDied
		}
		if err := act(); err != nil {
			return err
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
	if !c.welcomed || c.role.stays() && !c.leaving {
		c.leave.Reset(time.Second / 4)
		return
	}
	c.leaving = true
	c.ledger.leaving(c.role.id)
	if c.farewell == nil {
		c.farewell = c.history.Call(history.Operation{
			Kind: history.Leave, Pool: chaosPool, Server: c.role.id, Client: c.role.id, Incarnation: c.hello.GetIncarnation(),
		}, time.Now())
	}
	c.send(&pb.SessionRequest{Message: &pb.SessionRequest_Leave{Leave: &pb.Leave{
		Incarnation: c.hello.GetIncarnation(), Reason: "chaos",
	}}})
}

// take takes one message; an error ends the session.
func (c *conversation) take(m *pb.SessionResponse) error {
	if m.GetEpoch() < c.floor {
		// The Hello has named the epoch, so that this goes for the Welcome too.
		c.ledger.stale(c.role.id, m.GetEpoch(), c.floor)
		if m.GetWelcome() == nil {
			return nil
		}
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
		c.farewell.Return(history.Result{}, time.Now())
		c.ledger.left(c.role.id)
		c.begin()
		return errLeft
	}
	c.answer(m)
	return nil
}

// accept takes a Welcome, unless it comes from a leader of the past.
func (a *agent) accept(epoch uint64, w *pb.Welcome) error {
	if epoch < a.floor {
		return fmt.Errorf("welcome of epoch %d after %d: %w", epoch, a.floor, &member.NotLeaderError{})
	}
	a.floor = epoch
	a.hello.Incarnation, a.hello.StoreId, a.hello.Epoch = w.GetIncarnation(), w.GetStoreId(), epoch
	a.said.Store(proto.CloneOf(a.hello))
	result := history.Result{Incarnation: w.GetIncarnation(), Resumed: w.GetResumed(), Epoch: epoch}
	if !w.GetResumed() {
		result.Revision = w.GetIncarnation() // an incarnation is the revision of its join
	}
	a.greeting.Return(result, time.Now())
	a.greeting = nil
	a.ledger.welcomed(a.role.id, w.GetIncarnation(), epoch, w.GetResumed())
	if a.leaving {
		a.ledger.leaving(a.role.id)
	}
	return nil
}
