package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestCommitPutsAndRemoves(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := change(at)
	c.Put = []member.Server{server("a", 2), server("b", 2), server("c", 2)}
	at = commit(t, s, c)

	moved := server("a", 2)
	moved.First, moved.Second, moved.Phase, moved.HeldUntil = "", "", member.PhaseDraining, time.Time{}
	moved.Spec = member.Spec{ProbeAddresses: moved.Spec.ProbeAddresses[:1], Weight: 1}
	c = change(at)
	c.Put = []member.Server{moved, server("c", 3)}
	c.Remove = []member.Removal{{ID: "b", Incarnation: 2, Cause: member.CauseCrashed}}
	commit(t, s, c)
	diff(t, "servers", []member.Server{moved, server("c", 3)}, servers(t, s))
}

func TestCommitOverwritesAndForgets(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := change(at)
	c.Intents = []member.Intent{
		{ID: "a", Wish: member.WishDrain, SetAt: noon}, {ID: "b", Wish: member.WishDrain, SetAt: noon, ExpiresAt: noon},
	}
	c.Departed = []member.Departed{{ID: "a", Incarnation: 1, Cause: member.CauseCrashed, LeftAt: noon, FlapScore: 1}}
	at = commit(t, s, c)

	settings := member.DefaultSettings()
	settings.Mode = member.ModePaused
	c = change(at)
	c.Settings = &settings
	c.Intents = []member.Intent{{ID: "b", Wish: member.WishActive, Reason: "done", SetAt: noon}}
	c.Forget = []member.ID{"a", "never-was"}
	c.Departed = []member.Departed{{ID: "a", Incarnation: 2, Cause: member.CauseLossy, LeftAt: noon, FlapScore: 2}}
	commit(t, s, c)
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "settings", settings, pools[0].Settings)
	diff(t, "intents", c.Intents, pools[0].Intents)
	diff(t, "departed", c.Departed, pools[0].Departed)
}

// What a change does not name stays.
func TestCommitKeepsWhatItDoesNotName(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	settings, size := member.DefaultSettings(), 9
	settings.Mode, settings.RemovalGrace = member.ModePaused, 5*time.Second
	c := change(at)
	c.Settings, c.ReferenceSize = &settings, &size
	c.Intents = []member.Intent{{ID: "a", Wish: member.WishDrain, SetAt: noon}}
	at = commit(t, s, c)
	commit(t, s, joinOne(at))
	p := readPools(t, s)[0]
	diff(t, "settings", settings, p.Settings)
	diff(t, "intents", c.Intents, p.Intents)
	if p.ReferenceSize != size {
		t.Errorf("reference size %d, want %d", p.ReferenceSize, size)
	}
}

func TestRepeatedCommitIsASuccess(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := change(at)
	c.Put = []member.Server{server("a", 2)}
	c.Events = []member.Event{{Kind: member.EventJoined, At: noon}}
	c.Requests = []member.Request{{ID: "r", Hash: "h", Revision: 2, At: time.Now()}}
	for range 3 {
		commit(t, s, c)
	}
	shown, err := s.Servers(t.Context(), "web")
	if err != nil || shown.At.Revision != at.Revision+1 {
		t.Errorf("revision %d (%v), want %d", shown.At.Revision, err, at.Revision+1)
	}
	if n := len(events(t, s)); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

func TestCommitFromAnotherRevision(t *testing.T) {
	t.Parallel()
	s, first := newPool(t)
	at := commit(t, s, change(first))

	old := change(first)
	old.ID = "another"
	if err := s.Commit(t.Context(), old); !errors.Is(err, member.ErrStale) {
		t.Errorf("from the revision before: %v, want ErrStale", err)
	}
	early := change(member.Position{Epoch: at.Epoch, Revision: at.Revision + 1})
	if err := s.Commit(t.Context(), early); !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("from a revision the table has not seen: %v, want ErrUnavailable", err)
	}
	early = change(member.Position{Epoch: at.Epoch + 1, Revision: at.Revision})
	if err := s.Commit(t.Context(), early); !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("from an epoch the table has not seen: %v, want ErrUnavailable", err)
	}
	elsewhere := change(at)
	elsewhere.Pool = "nope"
	if err := s.Commit(t.Context(), elsewhere); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("in an unknown pool: %v, want ErrNotFound", err)
	}
	nameless := change(at)
	nameless.ID = ""
	if err := s.Commit(t.Context(), nameless); err == nil {
		t.Error("a change without an id was committed")
	}
}

func TestFailedCommitLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*member.Change){
		"row to remove is not there": func(c *member.Change) {
			c.Remove = []member.Removal{{ID: "absent", Incarnation: 2}}
		},
		"row to remove has another incarnation": func(c *member.Change) {
			c.Remove = []member.Removal{{ID: "kept", Incarnation: 1}}
		},
		"one of two rows is not there": func(c *member.Change) {
			c.Remove = []member.Removal{{ID: "kept", Incarnation: 2}, {ID: "absent", Incarnation: 2}}
		},
		"id ends in a space": func(c *member.Change) {
			c.Put = append(c.Put, bare("web-1 ", 3))
		},
		"request id is taken": func(c *member.Change) {
			c.Requests = []member.Request{{ID: "r", Hash: "other", Revision: 3, At: noon.Add(time.Minute)}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, at := newPool(t)
			c := change(at)
			c.Put = []member.Server{server("kept", 2)}
			c.Events = []member.Event{{Kind: member.EventJoined, At: noon}}
			c.Requests = []member.Request{{ID: "r", Hash: "h", Revision: 2, At: noon}}
			at = commit(t, s, c)

			size := 9
			bad := change(at)
			bad.ReferenceSize = &size
			bad.Put = []member.Server{bare("new", 3)}
			bad.Intents = []member.Intent{{ID: "new", Wish: member.WishDrain, SetAt: noon}}
			bad.Departed = []member.Departed{{ID: "new", LeftAt: noon}}
			bad.Events = []member.Event{{Kind: member.EventRemoved, At: noon}}
			spoil(&bad)
			if err := s.Commit(t.Context(), bad); err == nil {
				t.Fatal("the commit succeeded")
			} else if errors.Is(err, store.ErrOutcomeUnknown) {
				t.Errorf("the outcome is called unknown: %v", err)
			}
			pools, err := s.LoadPools(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "pools", []member.PoolState{
				{
					Name: "web", Position: at, LastChange: c.ID, Settings: member.DefaultSettings(),
					Servers: []member.Server{server("kept", 2)},
				},
			}, pools)
			if n := len(events(t, s)); n != 1 {
				t.Errorf("%d events, want 1", n)
			}
			// The same base still works.
			good := change(at)
			good.ID = "good"
			commit(t, s, good)
		})
	}
}

func TestErrorsOfFailedCommits(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := change(at)
	c.Remove = []member.Removal{{ID: "absent", Incarnation: 2}}
	if err := s.Commit(t.Context(), c); !errors.Is(err, member.ErrStale) {
		t.Errorf("remove an absent row: %v, want ErrStale", err)
	}
	c = change(at)
	c.Requests = []member.Request{{ID: "r", At: noon}}
	at = commit(t, s, c)
	c = change(at)
	c.Requests = []member.Request{{ID: "r", At: noon.Add(59 * time.Minute)}}
	if err := s.Commit(t.Context(), c); !errors.Is(err, member.ErrAlreadyExists) {
		t.Errorf("request id again within the hour: %v, want ErrAlreadyExists", err)
	}
	c.Requests[0].At = noon.Add(61 * time.Minute)
	commit(t, s, c)
}

func TestIDsAreComparedByteByByte(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := change(at)
	c.Put = []member.Server{bare("web-1", 2), bare("Web-1", 2), bare("wéb-1", 2), bare("web-1.", 2)}
	at = commit(t, s, c)
	rows, err := s.Servers(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "good ids", []member.ID{"web-1"}, ids(rows.Servers))
	diff(t, "ids that make no sense", []member.ID{"Web-1", "web-1.", "wéb-1"}, slices.Sorted(maps.Keys(rows.Unreadable)))
	c = change(at)
	c.Remove = []member.Removal{{ID: "WEB-1", Incarnation: 2}}
	if err := s.Commit(t.Context(), c); !errors.Is(err, member.ErrStale) {
		t.Errorf("remove WEB-1: %v, want ErrStale", err)
	}
	// The same holds for pools.
	if _, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "Web", Settings: member.DefaultSettings()}); err != nil {
		t.Errorf("create a pool that differs by case: %v", err)
	}
	if _, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "web ", Settings: member.DefaultSettings()}); err == nil {
		t.Error("a pool name that ends in a space was taken")
	}
}

func TestThousandJoinsAreOneTransaction(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := joins(at, 1050)
	at = commit(t, s, c)
	diff(t, "the rows", c.Put, servers(t, s))
	if got := events(t, s); len(got) != 1050 || got[1049].Text != c.Events[1049].Text {
		t.Errorf("%d events came back", len(got))
	}

	leave := change(at)
	for _, r := range c.Put {
		leave.Remove = append(leave.Remove, member.Removal{ID: r.ID, Incarnation: r.Incarnation})
	}
	commit(t, s, leave)
	if left := servers(t, s); len(left) != 0 {
		t.Errorf("%d rows are left", len(left))
	}
}

func TestLongExplanationsOfManyServers(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	c := change(at)
	for i := range 100 {
		c.Events = append(c.Events, member.Event{
			At: noon, Kind: member.EventRemoved, ID: member.ID(fmt.Sprint("web-", i)),
			Explanation: &member.Explanation{Text: strings.Repeat("'", 90<<10)},
		})
	}
	commit(t, s, c)
	if got := events(t, s); len(got) != 100 || got[99].Explanation.Text != c.Events[99].Explanation.Text {
		t.Errorf("%d events came back", len(got))
	}
}

// joins returns a change by which n servers join, as a ring.
func joins(at member.Position, n int) member.Change {
	c := change(at)
	id := func(i int) member.ID { return member.ID(fmt.Sprintf("web-%05d", (i+n)%n)) }
	for i := range n {
		row := server(id(i), member.Incarnation(c.Revision()))
		row.First, row.Second = id(i+1), id(i-1)
		c.Put = append(c.Put, row)
		c.Events = append(c.Events, member.Event{
			At: noon, Kind: member.EventJoined, ID: row.ID, Incarnation: row.Incarnation,
			Actor: "agent/" + string(row.ID), Text: string(row.ID) + " joined beside " + string(row.First),
		})
	}
	return c
}

func TestConcurrentCommitsFromOneBase(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	s := openStore(t, url)
	p, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	at := p.Position
	stores := []*store.Store{s, s, openStore(t, url), openStore(t, url)}
	for round := range 5 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i, s := range stores {
			wg.Go(func() {
				c := change(at)
				c.ID = fmt.Sprintf("round-%d-%d", round, i)
				c.Put = []member.Server{bare(member.ID(c.ID), member.Incarnation(c.Revision()))}
				err := s.Commit(t.Context(), c)
				if err != nil && !errors.Is(err, member.ErrStale) {
					t.Errorf("%v, want nil or ErrStale", err)
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				}
			})
		}
		wg.Wait()
		if n := len(servers(t, s)); won != 1 || n != round+1 {
			t.Fatalf("round %d: %d won, %d rows", round, won, n)
		}
		at.Revision++
	}
}

func TestCommitHonoursItsContext(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Commit(ctx, change(at))
	if !errors.Is(err, member.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want ErrUnavailable and Canceled", err)
	}
	commit(t, s, change(at))
}
