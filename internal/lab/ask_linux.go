package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// retryEvery is how often Await asks.
const retryEvery = 20 * time.Millisecond

// Await asks again and again until ask succeeds, and returns its last error
// when ctx ends before.
func Await(ctx context.Context, ask func(context.Context) error) error {
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(retryEvery):
		}
	}
}

// AwaitSettled waits until the pool consists of exactly these servers, all of
// them active and not suspect, and table, memory, agents and ring agree.
func (s *Site) AwaitSettled(ctx context.Context, servers []string) error {
	return Await(ctx, func(ctx context.Context) error {
		if err := s.active(ctx, servers); err != nil {
			return err
		}
		check, err := s.Admin().CheckRing(ctx, &coordinatorv1.CheckRingRequest{Pool: Pool})
		switch {
		case err != nil:
			return fmt.Errorf("check ring: %w", err)
		case !check.GetConsistent():
			return fmt.Errorf("ring is not consistent: %v", check.GetProblems())
		case int(check.GetAcknowledged()) != len(servers):
			return fmt.Errorf("%d of %d agents have acknowledged their assignment", check.GetAcknowledged(), len(servers))
		}
		return nil
	})
}

func (s *Site) active(ctx context.Context, servers []string) error {
	rows, err := s.Servers(ctx)
	if err != nil {
		return err
	}
	var ids []string
	for _, row := range rows {
		if row.GetPhase() != coordinatorv1.Phase_PHASE_ACTIVE || row.GetSuspect() {
			return fmt.Errorf("%s is %v, suspect %t, waiting for %q", row.GetServerId(), row.GetPhase(), row.GetSuspect(), row.GetWaitingFor())
		}
		ids = append(ids, row.GetServerId())
	}
	want := slices.Sorted(slices.Values(servers))
	if slices.Sort(ids); !slices.Equal(ids, want) {
		return fmt.Errorf("members are %q, not %q", ids, want)
	}
	return nil
}

// Servers returns the server table.
func (s *Site) Servers(ctx context.Context) ([]*coordinatorv1.Server, error) {
	var all []*coordinatorv1.Server
	for token := ""; ; {
		page, err := s.Admin().ListServers(ctx, &coordinatorv1.ListServersRequest{Pool: Pool, PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("list servers: %w", err)
		}
		all = append(all, page.GetServers()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// Removals returns the pool's removals, newest first.
func (s *Site) Removals(ctx context.Context) ([]*coordinatorv1.Event, error) {
	page, err := s.Admin().ListEvents(ctx, &coordinatorv1.ListEventsRequest{Pool: Pool, Kinds: []string{"removed"}, PageSize: 1000})
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return page.GetEvents(), nil
}

// Removed waits until a membership has been removed and every router has
// confirmed it, and returns the explanation and when the last router had.
func (s *Site) Removed(ctx context.Context, server string, incarnation uint64) (e *coordinatorv1.Explanation, acked time.Time, err error) {
	err = Await(ctx, func(ctx context.Context) error {
		e, acked, err = s.removed(ctx, server, incarnation)
		return err
	})
	return e, acked, err
}

func (s *Site) removed(ctx context.Context, server string, incarnation uint64) (*coordinatorv1.Explanation, time.Time, error) {
	answer, err := s.Admin().ExplainServer(ctx, &coordinatorv1.ExplainServerRequest{Pool: Pool, ServerId: server})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("explain %s: %w", server, err)
	}
	for _, d := range answer.GetDecisions() {
		e := d.GetExplanation()
		if e.GetIncarnation() != incarnation || e.GetRevision() == 0 {
			continue
		}
		var last time.Time
		confirmed := 0
		for _, r := range d.GetRouters() {
			if r.GetAppliedAt() == nil {
				continue
			}
			confirmed++
			if at := r.GetAppliedAt().AsTime(); at.After(last) {
				last = at
			}
		}
		if confirmed < s.cfg.Routers {
			return nil, time.Time{}, fmt.Errorf("%d of %d routers have confirmed that %s is gone", confirmed, s.cfg.Routers, server)
		}
		return e, last, nil
	}
	return nil, time.Time{}, errors.New(server + " has not been removed")
}
