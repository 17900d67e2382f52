package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
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

// outset is where a chapter about one server begins.
type outset struct {
	host   string
	who    membership
	before *coordinatorv1.GetRingResponse
	// from is the number of events before, origin when it began.
	from   int
	origin time.Time
}

// begin begins a chapter, and a phase of the tally.
func (s *story) begin(ctx context.Context, host, phase string) (outset, error) {
	ring, err := s.ring(ctx)
	if err != nil {
		return outset{}, err
	}
	row, err := s.admin.GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: pool, ServerId: host})
	if err != nil {
		return outset{}, fmt.Errorf("look at %s: %w", host, err)
	}
	o := outset{host: host, who: membership{host, row.GetServer().GetIncarnation()}, before: ring, from: len(s.seen.events)}
	o.origin = s.mark(phase)
	return o, nil
}

// departure is how a server left, as the coordinator tells it.
type departure struct {
	*Departure
	explanation *coordinatorv1.Explanation
	after       *coordinatorv1.GetRingResponse
}

// departed waits until a server has left the table for a cause, the router has
// confirmed it and the ring is closed, and checks that nobody else has left.
func (s *story) departed(ctx context.Context, o outset, cause coordinatorv1.Cause) (departure, error) {
	var event heard
	err := s.await(ctx, removePatience, o.host+" is removed", func() (ok bool) {
		event, ok = s.seen.event("removed", o.host, o.from)
		return ok
	})
	if err != nil {
		return departure{}, err
	}
	if event.GetCause() != cause {
		return departure{}, fmt.Errorf("%s was removed as %s, not as %s", o.host, output.Name(event.GetCause()), output.Name(cause))
	}
	bounded, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the router did not confirm the removal of %s within %v", o.host, patience))
	defer cancel()
	d := departure{}
	var acked time.Time
	err = until(bounded, func(ctx context.Context) (err error) {
		d.explanation, acked, err = s.confirmed(ctx, event.Event)
		return err
	})
	if err != nil {
		return departure{}, err
	}
	s.removals = append(s.removals, removal{o.who, acked})
	err = s.await(ctx, patience, "the router drops "+o.host, func() bool { _, ok := s.seen.dropped(o.who); return ok })
	if err != nil {
		return departure{}, err
	}
	if others := s.seen.removed(o.from); len(others) != 1 {
		return departure{}, fmt.Errorf("%s were removed, not only %s", list(others), o.host)
	}
	if d.after, err = s.consistent(ctx); err != nil {
		return departure{}, err
	}
	d.Departure = s.facing(o, event, d)
	d.AckedMS = ms(acked.Sub(o.origin))
	// The router hears of a commit before it confirms it; this program may hear
	// of it after both.
	d.RemovedMS = min(d.RemovedMS, d.AckedMS)
	return d, neighboursMet(d.Departure)
}

// confirmed returns the explanation of a removal, where there was something to
// decide, and when the router had confirmed it.
func (s *story) confirmed(ctx context.Context, event *coordinatorv1.Event) (*coordinatorv1.Explanation, time.Time, error) {
	if event.GetCause() != coordinatorv1.Cause_CAUSE_CRASHED {
		at, err := s.applied(ctx, event.GetRevision())
		return event.GetExplanation(), at, err
	}
	answer, err := s.admin.ExplainServer(ctx, &coordinatorv1.ExplainServerRequest{Pool: pool, ServerId: event.GetServerId()})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("explain %s: %w", event.GetServerId(), err)
	}
	for _, d := range answer.GetDecisions() {
		if d.GetExplanation().GetRevision() != event.GetRevision() {
			continue
		}
		for _, r := range d.GetRouters() {
			if r.GetRouterId() == routerID && r.GetAppliedAt() != nil {
				return d.GetExplanation(), r.GetAppliedAt().AsTime(), nil
			}
		}
		return nil, time.Time{}, unconfirmed(event.GetRevision())
	}
	return nil, time.Time{}, fmt.Errorf("no decision of revision %d is on record", event.GetRevision())
}

// applied returns now if the router has confirmed a revision.
func (s *story) applied(ctx context.Context, revision uint64) (time.Time, error) {
	routers, err := s.admin.ListRouters(ctx, &coordinatorv1.ListRoutersRequest{})
	if err != nil {
		return time.Time{}, fmt.Errorf("list routers: %w", err)
	}
	for _, r := range routers.GetRouters() {
		for _, p := range r.GetApplied() {
			if r.GetRouterId() == routerID && p.GetPool() == pool && p.GetRevision() >= revision {
				return time.Now(), nil
			}
		}
	}
	return time.Time{}, unconfirmed(revision)
}

func unconfirmed(revision uint64) error {
	return fmt.Errorf("router %s has not confirmed revision %d", routerID, revision)
}

// facing puts a departure into facts.
func (s *story) facing(o outset, event heard, d departure) *Departure {
	e := d.explanation
	facts := &Departure{
		Server: o.host, Incarnation: o.who.incarnation, Revision: event.GetRevision(), Rule: e.GetRule(),
		Cause:     output.Name(event.GetCause()),
		RemovedMS: ms(event.at.Sub(o.origin)),
		Observers: observers(e, o.origin),
		Rows:      diff(o.before, d.after),
	}
	if at, ok := firstOf(e, "doubt", o.origin); ok {
		facts.FirstDoubtMS = new(ms(at))
	}
	if at, ok := s.seen.suspected(o.who); ok {
		facts.SuspectMS = new(ms(at.Sub(o.origin)))
	}
	if last := lastPick(s.client.log(), o.who, o.origin); !last.IsZero() {
		facts.LastPickMS = new(ms(last.Sub(o.origin)))
	}
	return facts
}
