package demo

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// pool is the pool of the demo.
const pool = "default"

// retryEvery is how often something that is not ready yet is asked again.
const retryEvery = 5 * time.Millisecond

// news is what the coordinator or the router has said, and when: one of event
// and view is set.
type news struct {
	at    time.Time
	event *coordinatorv1.Event
	view  *routerv1.WatchResponse
}

// listen sends the pool's events and the router's changes of view until ctx
// ends or a stream breaks.
func listen(ctx context.Context, admin coordinatorv1.AdminServiceClient, router routerv1.RouterServiceClient, out chan<- news) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		stream, err := admin.WatchEvents(ctx, &coordinatorv1.WatchEventsRequest{Pool: pool, FromRevision: 1})
		if err != nil {
			return fmt.Errorf("watch events: %w", err)
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("watch events: %w", err)
			}
			if err := tell(ctx, out, news{at: time.Now(), event: m.GetEvent()}); err != nil {
				return err
			}
		}
	})
	group.Go(func() error {
		stream, err := router.Watch(ctx, &routerv1.WatchRequest{Pool: pool})
		if err != nil {
			return fmt.Errorf("watch router: %w", err)
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return fmt.Errorf("watch router: %w", err)
			}
			if err := tell(ctx, out, news{at: time.Now(), view: m}); err != nil {
				return err
			}
		}
	})
	return group.Wait()
}

func tell(ctx context.Context, out chan<- news, n news) error {
	select {
	case out <- n:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// until asks again and again until ask succeeds, and returns its last error
// when ctx ends before.
func until(ctx context.Context, ask func(context.Context) error) error {
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last answer: %w)", context.Cause(ctx), err)
		case <-time.After(retryEvery):
		}
	}
}

// change is one thing that the router's view has shown.
type change struct {
	at    time.Time
	who   membership
	state routerv1.State
	// gone says that the membership gets no more work.
	gone bool
}

// heard is an event and when it was heard: after its change was committed.
type heard struct {
	*coordinatorv1.Event

	at time.Time
}

// sight keeps what was heard, in order. It is for one goroutine.
type sight struct {
	events  []heard
	routed  map[string]*routerv1.Server
	changes []change
}

func (s *sight) note(n news) {
	switch {
	case n.event != nil:
		s.events = append(s.events, heard{n.event, n.at})
	case n.view.GetSnapshot() != nil:
		before := s.routed
		s.routed = make(map[string]*routerv1.Server)
		for _, server := range n.view.GetSnapshot().GetServers() {
			s.put(n.at, before[server.GetServerId()], server)
			delete(before, server.GetServerId())
		}
		for _, server := range before {
			s.drop(n.at, server)
		}
	case n.view.GetDelta() != nil:
		for _, server := range n.view.GetDelta().GetPut() {
			s.put(n.at, s.routed[server.GetServerId()], server)
		}
		for _, id := range n.view.GetDelta().GetRemoved() {
			s.drop(n.at, s.routed[id])
			delete(s.routed, id)
		}
	}
}

func (s *sight) put(at time.Time, before, now *routerv1.Server) {
	if before != nil && before.GetIncarnation() != now.GetIncarnation() {
		s.drop(at, before)
	}
	if s.routed == nil {
		s.routed = make(map[string]*routerv1.Server)
	}
	s.routed[now.GetServerId()] = now
	s.changes = append(s.changes, change{at: at, who: membership{now.GetServerId(), now.GetIncarnation()}, state: now.GetState()})
}

func (s *sight) drop(at time.Time, server *routerv1.Server) {
	if server == nil {
		return
	}
	s.changes = append(s.changes, change{at: at, who: membership{server.GetServerId(), server.GetIncarnation()}, gone: true})
}

// event returns the first event of a kind about a server from the from'th event
// on.
func (s *sight) event(kind, server string, from int) (heard, bool) {
	for _, e := range s.events[from:] {
		if e.GetKind() == kind && e.GetServerId() == server {
			return e, true
		}
	}
	return heard{}, false
}

// removed lists the ids removed from the from'th event on.
func (s *sight) removed(from int) []string {
	ids := []string{}
	for _, e := range s.events[from:] {
		if e.GetKind() == "removed" {
			ids = append(ids, e.GetServerId())
		}
	}
	return ids
}

// suspected returns when the router first preferred others to a membership
// that it still kept.
func (s *sight) suspected(who membership) (time.Time, bool) {
	return s.first(who, func(c change) bool { return c.state == routerv1.State_STATE_SUSPECT })
}

// dropped returns when the router dropped a membership.
func (s *sight) dropped(who membership) (time.Time, bool) {
	return s.first(who, func(c change) bool { return c.gone })
}

func (s *sight) first(who membership, is func(change) bool) (time.Time, bool) {
	for _, c := range s.changes {
		if c.who == who && is(c) {
			return c.at, true
		}
	}
	return time.Time{}, false
}

// routing reports whether the router sends clients to a membership as to any
// other, and since when.
func (s *sight) routing(who membership) (time.Time, bool) {
	if r := s.routed[who.server]; r.GetIncarnation() != who.incarnation || r.GetState() != routerv1.State_STATE_ACTIVE {
		return time.Time{}, false
	}
	return s.first(who, func(c change) bool { return c.state == routerv1.State_STATE_ACTIVE })
}
