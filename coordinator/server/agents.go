package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// helloTime is how long a stream may be open without its first message.
	helloTime = 10 * time.Second
	// welcomeTime is how long an agent waits for its join to be durable.
	welcomeTime = 15 * time.Second
	// An agent sends a few messages a second, and a burst when its buddies die.
	agentMessagesPerSecond = 200
	agentMessagesBurst     = 400
)

// agentService serves the agents' sessions.
type agentService struct {
	pb.UnimplementedAgentServiceServer

	lead       leadership
	pools      *pools
	closing    *ending
	metrics    *metrics
	allowLocal bool

	lastID atomic.Uint64
	live   atomic.Int64
	// streams are the handlers, with their readers and writers, which end with
	// their stream.
	streams crowd
}

var errFlood = fmt.Errorf("%w: more than %d messages a second", member.ErrExhausted, agentMessagesPerSecond)

// Session runs one agent's stream. A reader hands messages to the pool's host,
// which puts what it has to say into the session, and this goroutine waits for
// whatever ends the session first.
func (a *agentService) Session(stream pb.AgentService_SessionServer) error {
	if !a.streams.enter() {
		return a.closing.reason()
	}
	defer a.streams.leave()
	s := newSession(pool.SessionID(a.lastID.Add(1)), a.lead.epoch, a.streams.run, stream.SendMsg)
	a.live.Add(1)
	defer a.live.Add(-1)

	s.expect(helloTime, errNoHello)
	a.streams.run(func() { a.read(stream, s) })
	a.await(s)
	s.linger(stream.Context())
	s.expect(0, nil)
	return a.outcome(s.over.reason())
}

// await returns when the session is over, and ends it when the coordinator stops.
// It waits as long as the stream lasts, near the end of a stack of 4 KiB, most of
// which gRPC has taken: with a little more to do here it would have to keep 8.
func (a *agentService) await(s *session) {
	select {
	case <-s.over.done():
	case <-a.closing.done():
		s.over.end(a.closing.reason())
	}
}

// errNoHello ends the session of an agent that does not greet.
var errNoHello = member.Invalid("hello", "was not sent within %s", helloTime)

// errNotDurable ends the session of a join whose outcome is not known in time.
var errNotDurable = rpc.WithRetry(
	fmt.Errorf("%w: the database did not confirm the join within %s", member.ErrUnavailable, welcomeTime), 2*time.Second)

// outcome counts the ends that are the agent's fault. A stream that the agent
// ended has no error.
func (a *agentService) outcome(err error) error {
	switch {
	case errors.Is(err, errOverflow):
		a.metrics.ended.WithLabelValues("agent", "slow").Inc()
	case errors.Is(err, errFlood):
		a.metrics.ended.WithLabelValues("agent", "flood").Inc()
	}
	return err
}

// read greets the agent, and then listens in a goroutine of its own: this one has
// needed much of its stack, which that one keeps as long as the stream lasts.
func (a *agentService) read(stream pb.AgentService_SessionServer, s *session) {
	h, err := a.greet(stream, s)
	if err != nil {
		s.over.end(clean(err))
		return
	}
	a.streams.run(func() { a.listen(stream, s, h) })
}

// listen hands the agent's messages to its pool's host until the stream ends, and
// then tells the host so.
func (a *agentService) listen(stream pb.AgentService_SessionServer, s *session, h *host) {
	err := relay(stream, s, h)
	byPeer := !s.over.ended() && endedByPeer(stream.Context(), err)
	s.over.end(clean(err))
	h.listen(s, pool.Closed{Session: s.id, ByPeer: byPeer})
}

// clean turns the end of the client's messages into no error.
func clean(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// endedByPeer reports whether the agent's process or kernel ended the stream,
// which proves that the host was alive: its half-close, its cancellation while
// the connection stayed open, or its FIN or RST.
func endedByPeer(ctx context.Context, err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	conn := rpc.PeerConn(ctx)
	return cancelled(ctx) || conn != nil && conn.ClosedByPeer()
}

// cancelled reports whether the client cancelled its stream while the connection
// stayed open.
func cancelled(ctx context.Context) bool {
	conn := rpc.PeerConn(ctx)
	return conn != nil && ctx.Err() != nil && conn.Open()
}

// greet receives the Hello and hands it to the host of its pool.
func (a *agentService) greet(stream pb.AgentService_SessionServer, s *session) (*host, error) {
	ctx := stream.Context()
	first, err := receiveHello(stream)
	if err != nil {
		return nil, err
	}
	if first.GetHello() == nil {
		return nil, member.Invalid("hello", "must be the first message of the stream")
	}
	g, err := parseHello(first.GetHello(), peerOf(ctx), a.allowLocal)
	if err != nil {
		return nil, err
	}
	if g.storeID != a.lead.storeID {
		g.hello.Incarnation = 0
	} else if g.epoch > a.lead.epoch {
		return nil, fmt.Errorf("accept %s: it has seen epoch %d, this leader is of epoch %d: %w",
			g.hello.ID, g.epoch, a.lead.epoch, &member.NotLeaderError{})
	}
	// What it waits for from here on is not its own fault.
	s.expect(welcomeTime, errNotDurable)
	h, err := a.pools.forJoin(ctx, g.pool)
	if err != nil {
		return nil, err
	}
	g.hello.Session = s.id
	h.listen(s, g.hello)
	return h, nil
}

// agentMessageBytes bounds what an agent says at once, before it is decoded: a few
// bytes on the wire can be many in memory.
const agentMessageBytes = 64 << 10

// receiveRaw takes the next message of an agent. Without an error it is to be freed.
func receiveRaw(stream pb.AgentService_SessionServer, raw *rpc.Raw) error {
	if err := stream.RecvMsg(raw); err != nil {
		return err
	}
	if n := len(raw.Bytes()); n > agentMessageBytes {
		raw.Free()
		return fmt.Errorf("%w: a message of %d bytes; at most %d are allowed", member.ErrExhausted, n, agentMessageBytes)
	}
	return nil
}

// receiveHello takes the first message of an agent.
func receiveHello(stream pb.AgentService_SessionServer) (*pb.SessionRequest, error) {
	var raw rpc.Raw
	if err := receiveRaw(stream, &raw); err != nil {
		return nil, err
	}
	defer raw.Free()
	first := &pb.SessionRequest{}
	if err := proto.Unmarshal(raw.Bytes(), first); err != nil {
		return nil, member.Invalid("hello", "is garbled: %v", err)
	}
	return first, nil
}

// relay hands on everything after the Hello.
func relay(stream pb.AgentService_SessionServer, s *session, h *host) error {
	limit := rate.NewLimiter(agentMessagesPerSecond, agentMessagesBurst)
	var (
		raw   rpc.Raw
		known names
	)
	for {
		if err := receiveRaw(stream, &raw); err != nil {
			return err
		}
		if !limit.Allow() {
			return errFlood
		}
		said, err := decode(s.id, raw.Bytes(), &known)
		raw.Free()
		if err != nil {
			return err
		}
		if said.input != nil {
			h.listen(s, said.input)
		}
		if said.isDigest {
			s.acknowledge(said.digest)
		}
	}
}
