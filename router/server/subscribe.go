package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	"github.com/buddyring/buddyring/router/view"
)

const (
	// ackGap is the least time between two acknowledgements: many changes at once
	// are one.
	ackGap = 5 * time.Millisecond
	// startLimit is how long a coordinator may take until its first message.
	startLimit = 2 * time.Second
	// retryFirst and retryMax bound the pause after all coordinators failed.
	retryFirst = 200 * time.Millisecond
	retryMax   = 3 * time.Second
	// goodbyeTime is how long a coordinator may take to hear that the router ends.
	goodbyeTime = time.Second
)

// errSilent says that a coordinator has missed its bookmarks.
var errSilent = errors.New("coordinator is silent")

// subscriber keeps one subscription to one coordinator at a time.
type subscriber struct {
	id, version string
	addresses   []string
	dial        func(address string) (*grpc.ClientConn, error)
	pools       *pools
	// settlers are the doors that pass on what is applied.
	settlers []settler
	// changed is set when there is something to keep on disk.
	changed signal
	metrics *metrics
	log     *slog.Logger
}

// run subscribes until ctx ends: to the coordinators in turn, to the leader that
// a standby names, or to the same one again where the stream had a gap.
func (s *subscriber) run(ctx context.Context) {
	turn, failures := 0, 0
	address, named := s.addresses[0], ""
	for ctx.Err() == nil {
		confirmed, err := s.session(ctx, address)
		if ctx.Err() != nil {
			return
		}
		if confirmed {
			failures = 0
		}
		failures++
		s.metrics.subscriptions.WithLabelValues(reasonOf(err)).Inc()
		s.log.WarnContext(ctx, "subscription ended", "address", address, "error", err)
		var standby *member.NotLeaderError
		newLeader := false
		switch {
		case errors.Is(err, view.ErrGap):
		case errors.As(err, &standby) && standby.Leader != "" && standby.Leader != address:
			address = standby.Leader
			newLeader = address != named
			named = address
		default:
			turn++
			address = s.addresses[turn%len(s.addresses)]
		}
		wait := s.pause(failures, errors.Is(err, view.ErrGap))
		if newLeader {
			wait = 0
		}
		if (confirmed || newLeader) && wait == 0 {
			// All of a coordinator's routers lose it, and hear of the next one, at once.
			wait = time.Duration(rand.Int64N(int64(retryFirst))) //nolint:gosec // jitter
		}
		sleep(ctx, wait)
	}
}

// pause lets each coordinator be tried once without delay, but not the same one
// again.
func (s *subscriber) pause(failures int, same bool) time.Duration {
	rounds := max(0, failures-len(s.addresses))
	if failures < len(s.addresses) && !same {
		return 0
	}
	limit := min(float64(retryMax), float64(retryFirst)*math.Pow(1.6, float64(rounds)))
	return time.Duration(limit * (0.5 + rand.Float64()/2)) //nolint:gosec // jitter
}

// session is one subscription. It ends with an error, and says whether the
// router was up to date in between. When running ends, it says goodbye.
func (s *subscriber) session(running context.Context, address string) (confirmed bool, err error) {
	conn, err := s.dial(address)
	if err != nil {
		return false, fmt.Errorf("dial coordinator: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(running))
	defer cancel(nil)
	stay := context.AfterFunc(running, func() { cancel(nil) })
	silence := time.AfterFunc(startLimit, func() { cancel(errSilent) })
	defer silence.Stop()

	stream, err := pb.NewMembershipServiceClient(conn).Subscribe(ctx)
	if err != nil {
		return false, causeOf(ctx, fmt.Errorf("subscribe: %w", err))
	}
	if err := stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: s.hello()}}); err != nil && !errors.Is(err, io.EOF) {
		return false, causeOf(ctx, fmt.Errorf("subscribe: %w", err))
	}
	if stay() {
		// The stream outlives running by the goodbye.
		context.AfterFunc(running, func() { time.AfterFunc(goodbyeTime, func() { cancel(nil) }) })
	}
	at := session{silence: silence, applied: newSignal(), ending: running.Done(), address: address}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.acknowledge(ctx, stream, at) })
	g.Go(func() (err error) {
		defer s.metrics.connected.Set(0)
		confirmed, err = s.follow(ctx, stream, at)
		return err
	})
	err = causeOf(ctx, g.Wait())
	return confirmed, err
}

// session is what goes with a stream.
type session struct {
	silence *time.Timer
	applied signal
	// ending is closed when the router is to end.
	ending  <-chan struct{}
	address string
}

// follow applies what the coordinator sends, until that ends.
func (s *subscriber) follow(ctx context.Context, stream pb.MembershipService_SubscribeClient, at session) (confirmed bool, err error) {
	var start *pb.StreamStart
	limit := startLimit
	for {
		msg, err := stream.Recv()
		if err != nil {
			return confirmed, fmt.Errorf("receive: %w", err)
		}
		out, err := s.pools.apply(ctx, start, msg)
		if err != nil {
			return confirmed, err
		}
		if out.started > 0 {
			start, limit = msg.GetStart(), missedBookmarks*out.started
		}
		at.silence.Reset(limit)
		if out.confirmed && !confirmed {
			confirmed = true
			s.metrics.connected.Set(1)
			s.log.InfoContext(ctx, "subscription is up to date", "address", at.address, "epoch", start.GetEpoch(), "store_id", start.GetStoreId())
		}
		if out.ack {
			at.applied.set()
		}
		if out.save {
			s.changed.set()
		}
	}
}

// acknowledge tells the coordinator what the router has applied, once all
// settlers have passed it on. What is applied meanwhile is in the next one. At the router's end it says
// goodbye, and the coordinator ends the stream.
func (s *subscriber) acknowledge(ctx context.Context, stream pb.MembershipService_SubscribeClient, session session) error {
	for {
		select {
		case <-session.applied:
		case <-session.ending:
			if err := stream.CloseSend(); err != nil {
				return fmt.Errorf("say goodbye: %w", err)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		at := s.pools.standing()
		switch done, err := s.settled(ctx, session, at.pools); {
		case err != nil:
			return err
		case !done:
			continue
		}
		err := stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: toAck(at)}})
		if errors.Is(err, io.EOF) {
			return nil // follow gets the reason
		}
		if err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
		sleep(ctx, ackGap)
	}
}

// settled waits for all settlers. It is false when the session ends meanwhile.
func (s *subscriber) settled(ctx context.Context, session session, editions []*edition) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- settle(ctx, s.settlers, editions) }()
	select {
	case err := <-done:
		return err == nil, err
	case <-session.ending:
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			return false, err
		}
		return false, nil
	}
}

func (s *subscriber) hello() *pb.SubscribeHello {
	at := s.pools.standing()
	return &pb.SubscribeHello{RouterId: s.id, StoreId: at.storeID, Resume: at.positions(), Version: s.version, Run: s.pools.run}
}

// positions are those of the pools that come from the present store.
func (s standing) positions() []*pb.Position {
	var out []*pb.Position
	for _, e := range s.pools {
		if p := e.view.Position(); e.view.StoreID() == s.storeID {
			out = append(out, &pb.Position{
				Pool: string(e.pool), Epoch: uint64(p.Epoch), Revision: uint64(p.Revision), ChangeId: e.view.ChangeID(),
			})
		}
	}
	return out
}

func toAck(s standing) *pb.Ack {
	ack := &pb.Ack{Applied: s.positions(), SoftSeq: s.soft.seq, SoftEpoch: uint64(s.soft.epoch)}
	for _, e := range s.pools {
		for _, h := range e.view.Held() {
			ack.Held = append(ack.Held, &pb.HeldServer{
				Pool: string(e.pool), ServerId: string(h.ID), Incarnation: uint64(h.Incarnation),
			})
		}
	}
	return ack
}

// causeOf returns why ctx was cancelled, where that is the reason for err.
func causeOf(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errSilent):
		return "silent"
	case errors.Is(err, view.ErrGap):
		return "gap"
	case errors.Is(err, member.ErrFenced):
		return "fenced"
	case errors.Is(err, member.ErrNotLeader):
		return "not_leader"
	case errors.Is(err, member.ErrUnavailable):
		return "unavailable"
	default:
		return "error"
	}
}
