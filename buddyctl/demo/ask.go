package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// await hears news until something is true, and fails after a while with what
// it waited for.
func (s *story) await(ctx context.Context, within time.Duration, what string, done func() bool) error {
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	look := time.NewTicker(retryEvery)
	defer look.Stop()
	for !done() {
		select {
		case n := <-s.news:
			s.seen.note(n)
		case <-look.C:
		case <-timeout.C:
			return fmt.Errorf("waited %v in vain for this: %s", within.Round(time.Second), what)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// pause hears news for a while.
func (s *story) pause(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	return s.await(ctx, d+patience, "the end of a pause", func() bool { return !time.Now().Before(end) })
}

// ring asks for the ring.
func (s *story) ring(ctx context.Context) (*coordinatorv1.GetRingResponse, error) {
	ring, err := s.admin.GetRing(ctx, &coordinatorv1.GetRingRequest{Pool: pool})
	if err != nil {
		return nil, fmt.Errorf("get ring: %w", err)
	}
	return ring, nil
}

// consistent waits until table, memory, agents and ring agree, and returns the
// ring.
func (s *story) consistent(ctx context.Context) (*coordinatorv1.GetRingResponse, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the ring was not consistent within %v", patience))
	defer cancel()
	err := until(bounded, func(ctx context.Context) error {
		check, err := s.admin.CheckRing(ctx, &coordinatorv1.CheckRingRequest{Pool: pool})
		switch {
		case err != nil:
			return fmt.Errorf("check ring: %w", err)
		case check.GetConsistent():
			return nil
		case len(check.GetProblems()) > 0:
			return errors.New(check.GetProblems()[0].GetText())
		}
		return errors.New("not consistent")
	})
	if err != nil {
		return nil, err
	}
	return s.ring(ctx)
}

// look asks for the ring and a member's present membership.
func (s *story) look(ctx context.Context, host string) (*coordinatorv1.GetRingResponse, membership, error) {
	ring, err := s.ring(ctx)
	if err != nil {
		return nil, membership{}, err
	}
	row, err := s.admin.GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: pool, ServerId: host})
	if err != nil {
		return nil, membership{}, fmt.Errorf("look at %s: %w", host, err)
	}
	return ring, membership{host, row.GetServer().GetIncarnation()}, nil
}

// departure waits until a membership has left the table and the router has
// confirmed it, and returns the event, and the decision behind it where there
// is one.
func (s *story) departure(ctx context.Context, who membership, from int) (event *coordinatorv1.Event, gone departed, err error) {
	err = s.await(ctx, removePatience, who.server+" is removed", func() bool {
		event = s.seen.event("removed", who.server, from)
		return event != nil
	})
	if err != nil {
		return nil, departed{}, err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the router did not confirm the removal of %s within %v", who.server, patience))
	defer cancel()
	err = until(bounded, func(ctx context.Context) (err error) {
		gone, err = s.confirmed(ctx, event)
		return err
	})
	if err != nil {
		return nil, departed{}, err
	}
	s.removals = append(s.removals, removal{who, gone.acked})
	err = s.await(ctx, patience, "the router drops "+who.server, func() bool { _, ok := s.seen.dropped(who); return ok })
	return event, gone, err
}

// departed is how the coordinator explains a removal, and when the router had
// confirmed it.
type departed struct {
	explanation *coordinatorv1.Explanation
	acked       time.Time
}

func (s *story) confirmed(ctx context.Context, event *coordinatorv1.Event) (departed, error) {
	answer, err := s.admin.ExplainServer(ctx, &coordinatorv1.ExplainServerRequest{Pool: pool, ServerId: event.GetServerId()})
	if err != nil {
		return departed{}, fmt.Errorf("explain %s: %w", event.GetServerId(), err)
	}
	for _, d := range answer.GetDecisions() {
		if d.GetExplanation().GetRevision() != event.GetRevision() {
			continue
		}
		for _, r := range d.GetRouters() {
			if r.GetRouterId() == routerID && r.GetAppliedAt() != nil {
				return departed{d.GetExplanation(), r.GetAppliedAt().AsTime()}, nil
			}
		}
		return departed{}, fmt.Errorf("router %s has not confirmed revision %d", routerID, event.GetRevision())
	}
	return departed{}, fmt.Errorf("no decision of revision %d is on record", event.GetRevision())
}

// closed checks that the ring was closed around a server that left, and puts
// its departure into facts.
func (s *story) closed(ctx context.Context, before *coordinatorv1.GetRingResponse, event *coordinatorv1.Event, gone departed, origin time.Time) (*Departure, *coordinatorv1.GetRingResponse, error) {
	after, err := s.consistent(ctx)
	if err != nil {
		return nil, nil, err
	}
	who := membership{event.GetServerId(), event.GetIncarnation()}
	e := gone.explanation
	d := &Departure{
		Server: who.server, Incarnation: who.incarnation, Revision: event.GetRevision(), Rule: e.GetRule(),
		Cause:     causeName(event.GetCause()),
		RemovedMS: ms(event.GetAt().AsTime().Sub(origin)),
		AckedMS:   ms(gone.acked.Sub(origin)),
		Observers: observers(e, origin),
		Rows:      diff(before, after),
	}
	if at, ok := firstOf(e, "committed", origin); ok {
		d.RemovedMS = ms(at)
	}
	if at, ok := firstOf(e, "doubt", origin); ok {
		d.FirstDoubtMS = new(ms(at))
	}
	if at, ok := s.seen.suspected(who); ok {
		d.SuspectMS = new(ms(at.Sub(origin)))
	}
	if last := lastPick(s.client.log(), who, origin); !last.IsZero() {
		d.LastPickMS = new(ms(last.Sub(origin)))
	}
	return d, after, neighboursMet(d)
}
