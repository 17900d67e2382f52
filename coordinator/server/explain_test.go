package server

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestSummary(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	web3 := member.Server{
		ID: "web-3", Phase: member.PhaseActive, First: "web-4", Second: "web-2", Since: now.Add(-3 * time.Hour),
	}
	phase := func(p member.Phase) member.Server { s := web3; s.Phase = p; return s }
	alone, pair := web3, web3
	alone.First, alone.Second = "", ""
	pair.First, pair.Second = "web-1", "web-1"
	crash := member.Explanation{Text: "web-3 was removed as crashed: 4 of 4 miss it", Started: now.Add(-12 * time.Second)}
	kept := member.Explanation{Text: "web-3 was not removed: 1 of 4 misses it.", Started: now.Add(-90 * time.Minute)}

	for name, c := range map[string]struct {
		k    knowledge
		want string
	}{
		"active": {
			knowledge{member: true, status: pool.ServerStatus{Server: web3, Connected: true, Wish: member.WishActive}},
			"web-3 is a member of pool p, active since 2026-05-04 09:00:00 UTC (3 h ago); its buddies are web-4 and web-2.",
		},
		"alone": {
			knowledge{member: true, status: pool.ServerStatus{Server: alone, Connected: true}},
			"web-3 is a member of pool p, active since 2026-05-04 09:00:00 UTC (3 h ago); it is alone in the pool.",
		},
		"pair, suspect, no agent, maintenance": {
			knowledge{member: true, status: pool.ServerStatus{Server: pair, Suspect: true, Wish: member.WishMaintenance}},
			"web-3 is a member of pool p, active since 2026-05-04 09:00:00 UTC (3 h ago); its only buddy is web-1. " +
				"It is suspect now: routers prefer others. Its agent has no live session; that alone removes nobody. " +
				"An operator wants it under maintenance: routed, but not judged.",
		},
		"joining": {
			knowledge{member: true, status: pool.ServerStatus{
				Server: phase(member.PhaseJoining), Connected: true, WaitingFor: "a first good probe",
				Temporary: []member.ID{"web-7", "web-8"},
			}},
			"web-3 is a member of pool p, joining since 2026-05-04 09:00:00 UTC (3 h ago); its buddies are web-4 and web-2. " +
				"It waits for: a first good probe. It is watched for the time being by web-7, web-8.",
		},
		"held, with a decision": {
			knowledge{
				member: true, status: pool.ServerStatus{Server: phase(member.PhaseHeld), Connected: true, Wish: member.WishBanned},
				decisions: []pool.Decision{{Explanation: kept}},
			},
			"web-3 is a member of pool p, held back since 2026-05-04 09:00:00 UTC (3 h ago); its buddies are web-4 and web-2. " +
				"An operator wants it banned. The newest decision, 90 min ago: web-3 was not removed: 1 of 4 misses it.",
		},
		"draining": {
			knowledge{member: true, status: pool.ServerStatus{Server: phase(member.PhaseDraining), Connected: true, Wish: member.WishDrain}},
			"web-3 is a member of pool p, draining since 2026-05-04 09:00:00 UTC (3 h ago); its buddies are web-4 and web-2. " +
				"An operator wants it drained.",
		},
		"service down": {
			knowledge{member: true, status: pool.ServerStatus{Server: phase(member.PhaseServiceDown), Connected: true}},
			"web-3 is a member of pool p, with its service down since 2026-05-04 09:00:00 UTC (3 h ago); its buddies are web-4 and web-2.",
		},
		"removed": {
			knowledge{
				events: []member.Event{
					{Kind: member.EventIntent, At: now},
					{Kind: member.EventRemoved, Revision: 41, At: now.Add(-12 * time.Second), Cause: member.CauseCrashed, Text: crash.Text},
				},
				decisions: []pool.Decision{{Explanation: crash, Revision: 41}},
			},
			"web-3 is not a member: removed at revision 41, 12 s ago, cause crashed: web-3 was removed as crashed: 4 of 4 miss it.",
		},
		"removed, history lost": {
			knowledge{
				left: true, departed: member.Departed{Cause: member.CauseCrashed, LeftAt: now.Add(-49 * time.Hour)},
				historyErr: errors.New("down"),
			},
			"web-3 is not a member: removed 2 days ago, cause crashed. " +
				"The history in the table cannot be read now, so older decisions may be missing.",
		},
		"removed, known from the decision": {
			knowledge{decisions: []pool.Decision{{Explanation: crash, Revision: 41}}},
			"web-3 is not a member: removed at revision 41: web-3 was removed as crashed: 4 of 4 miss it.",
		},
		"never a member": {
			knowledge{events: []member.Event{{Kind: member.EventIntent, At: now}}},
			"web-3 is not a member.",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := c.k
			k.pool, k.id, k.now = "p", "web-3", now
			if got := k.summary(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// past is a table of events that were written before this leader.
type past []member.Event

func (p past) Events(_ context.Context, q store.EventQuery) ([]member.Event, error) {
	var found []member.Event
	for _, e := range p {
		if len(q.Kinds) == 0 || slices.Contains(q.Kinds, e.Kind) {
			found = append(found, e)
		}
	}
	return found, nil
}

func (past) EventsFrom(context.Context, member.Pool, member.Revision, int) ([]member.Event, error) {
	return nil, nil
}

// After a change of the leader every kind of decision comes from the table, with the
// revision of those that have one.
func TestHistoryHasEveryDecision(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	var events past
	kinds := []member.EventKind{member.EventRemoved, member.EventHeld, member.EventNotRemoved}
	for i, kind := range kinds {
		x := member.Explanation{ID: "web-3", Verdict: string(kind), Started: now.Add(-time.Duration(i) * time.Minute)}
		events = append(events, member.Event{Kind: kind, ID: "web-3", Revision: 7, Explanation: &x})
	}
	k := knowledge{pool: "p", id: "web-3"}
	(&adminService{events: events}).addHistory(t.Context(), &k, 10)
	if k.historyErr != nil || len(k.decisions) != len(kinds) {
		t.Fatalf("%v: %+v", k.historyErr, k.decisions)
	}
	for i, want := range []member.Revision{7, 7, 0} {
		if d := k.decisions[i]; d.Revision != want || d.Explanation.Verdict != string(kinds[i]) {
			t.Errorf("%+v", d)
		}
	}
}
