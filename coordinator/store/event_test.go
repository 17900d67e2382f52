package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// write commits n changes with three events each: about a, about b, and about
// the pool.
func writeHistory(t *testing.T, s *store.Store, at member.Position, n int) member.Position {
	t.Helper()
	for range n {
		c := change(at)
		when := noon.Add(time.Duration(c.Revision()) * time.Minute)
		c.Events = []member.Event{
			{Kind: member.EventJoined, At: when, ID: "a"},
			{Kind: member.EventRemoved, At: when, ID: "b", Cause: member.CauseLossy},
			{Kind: member.EventPoolUpdated, At: when},
		}
		at = commit(t, s, c)
	}
	return at
}

func cursors(list []member.Event) []store.EventCursor {
	out := make([]store.EventCursor, len(list))
	for i, e := range list {
		out[i] = store.EventCursor{Revision: e.Revision, Seq: e.Seq}
	}
	return out
}

func TestEventKeepsEverything(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	want := member.Event{
		At: noon, Kind: member.EventRemoved, ID: "web-1", Incarnation: 2, Cause: member.CauseCrashed,
		Actor: "coordinator", Text: `web-1 "crashed" – both buddies say so 🦫`,
		Explanation: &member.Explanation{
			ID: "web-1", Incarnation: 2, Verdict: "crashed", Rule: "all_negative", Text: "4 of 4", Started: noon,
			Timeline: []member.Moment{
				{At: 20 * time.Millisecond, Kind: "answer", Round: 3, Who: "web-2", Role: "buddy", Result: "down", Sent: 3, Lost: 3, Age: time.Millisecond},
			},
			Rows: []member.RowChange{{ID: "web-1", Before: &member.Buddies{First: "a", Second: "b"}}},
		},
	}
	c := change(at)
	// What the event says of its place is overruled by its place.
	misplaced := want
	misplaced.Revision, misplaced.Seq, misplaced.Epoch = 77, 7, 9
	c.Events = []member.Event{{Kind: member.EventNotRemoved, At: noon}, misplaced}
	at = commit(t, s, c)
	want.Revision, want.Seq, want.Epoch = at.Revision, 1, at.Epoch
	diff(t, "event", want, events(t, s)[1])
}

func TestEventsNewestFirst(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	writeHistory(t, s, at, 3) // revisions 2 to 4
	type cs = []store.EventCursor
	for name, test := range map[string]struct {
		query store.EventQuery
		want  cs
	}{
		"all":          {store.EventQuery{Limit: 99}, cs{{4, 2}, {4, 1}, {4, 0}, {3, 2}, {3, 1}, {3, 0}, {2, 2}, {2, 1}, {2, 0}}},
		"first page":   {store.EventQuery{Limit: 4}, cs{{4, 2}, {4, 1}, {4, 0}, {3, 2}}},
		"next page":    {store.EventQuery{Limit: 4, Before: &store.EventCursor{Revision: 3, Seq: 2}}, cs{{3, 1}, {3, 0}, {2, 2}, {2, 1}}},
		"last page":    {store.EventQuery{Limit: 4, Before: &store.EventCursor{Revision: 2, Seq: 1}}, cs{{2, 0}}},
		"after all":    {store.EventQuery{Limit: 4, Before: &store.EventCursor{Revision: 2, Seq: 0}}, nil},
		"one server":   {store.EventQuery{Limit: 99, ID: "b"}, cs{{4, 1}, {3, 1}, {2, 1}}},
		"since":        {store.EventQuery{Limit: 99, ID: "b", Since: 3}, cs{{4, 1}, {3, 1}}},
		"kinds":        {store.EventQuery{Limit: 3, Kinds: []member.EventKind{member.EventPoolUpdated, member.EventJoined}}, cs{{4, 2}, {4, 0}, {3, 2}}},
		"another pool": {store.EventQuery{Limit: 99, Pool: "db"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.query.Pool == "" {
				test.query.Pool = "web"
			}
			got, err := s.Events(t.Context(), test.query)
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "events", test.want, cursors(got))
		})
	}
}

func TestEventsFromGivesWholeRevisions(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	writeHistory(t, s, at, 3)
	type cs = []store.EventCursor
	for name, test := range map[string]struct {
		from  member.Revision
		limit int
		want  cs
	}{
		"all":                     {1, 99, cs{{2, 0}, {2, 1}, {2, 2}, {3, 0}, {3, 1}, {3, 2}, {4, 0}, {4, 1}, {4, 2}}},
		"a page inside":           {2, 1, cs{{2, 0}, {2, 1}, {2, 2}}},
		"a page over the edge":    {2, 4, cs{{2, 0}, {2, 1}, {2, 2}, {3, 0}, {3, 1}, {3, 2}}},
		"a page that fits":        {3, 3, cs{{3, 0}, {3, 1}, {3, 2}}},
		"to the end":              {4, 3, cs{{4, 0}, {4, 1}, {4, 2}}},
		"what has not happen yet": {5, 3, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := s.EventsFrom(t.Context(), "web", test.from, test.limit)
			if err != nil {
				t.Fatal(err)
			}
			diff(t, "events", test.want, cursors(got))
		})
	}
	if _, err := s.EventsFrom(t.Context(), "nope", 1, 1); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("unknown pool: %v, want ErrNotFound", err)
	}
}

func TestPruneEvents(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	at = writeHistory(t, s, at, 9) // revisions 2 to 10, one a minute
	minute := func(r member.Revision) time.Time { return noon.Add(time.Duration(r) * time.Minute) }
	prune := func(r store.Retention) int64 {
		t.Helper()
		n, err := s.Prune(t.Context(), "web", r)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, r := range map[string]store.Retention{
		"nothing asked":     {Limit: 100},
		"all revisions":     {Revisions: 100, EventsSince: minute(99), Limit: 100},
		"all of that time":  {Revisions: 1, EventsSince: minute(2), Limit: 100},
		"departed only":     {DepartedSince: minute(99), Limit: 100},
		"revisions, no age": {Revisions: 1, Limit: 100},
	} {
		if n := prune(r); n != 0 {
			t.Errorf("%s: %d events went", name, n)
		}
	}
	// Whichever is more: 4 revisions keep 7 to 10, the time 5 to 10.
	if n := prune(store.Retention{Revisions: 4, EventsSince: minute(5), Limit: 100}); n != 9 {
		t.Errorf("%d events went, want 9", n)
	}
	got := events4(t, s, 5)
	if got[0].Revision != 5 || len(got) != 18 {
		t.Errorf("%d events from %d, want 18 from 5", len(got), got[0].Revision)
	}
	for from := range member.Revision(5) {
		if _, err := s.EventsFrom(t.Context(), "web", from, 10); !errors.Is(err, member.ErrCompacted) {
			t.Errorf("from %d: %v, want ErrCompacted", from, err)
		}
	}
	// A short transaction at a time, and whole revisions.
	var pages []int64
	for {
		n := prune(store.Retention{Revisions: 2, EventsSince: minute(99), Limit: 4})
		if n == 0 {
			break
		}
		pages = append(pages, n)
	}
	diff(t, "pages", []int64{6, 6}, pages)
	if got := events4(t, s, 9); len(got) != 6 {
		t.Errorf("%d events left, want 6", len(got))
	}
	commit(t, s, change(at))
	if _, err := s.Prune(t.Context(), "nope", store.Retention{EventsSince: noon, Limit: 1}); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("unknown pool: %v, want ErrNotFound", err)
	}
}

// A part of a revision is too new to go: then all of it stays.
func TestPruneKeepsARevisionWhole(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	for range 4 { // revisions 2 to 5
		c := change(at)
		for _, age := range []time.Duration{time.Hour, 0} {
			when := noon.Add(time.Duration(c.Revision())*time.Minute - age)
			c.Events = append(c.Events, member.Event{Kind: member.EventJoined, At: when})
		}
		at = commit(t, s, c)
	}
	n, err := s.Prune(t.Context(), "web", store.Retention{Revisions: 1, EventsSince: noon.Add(3 * time.Minute), Limit: 100})
	if err != nil || n != 2 {
		t.Errorf("%d events went, %v; want the 2 of revision 2", n, err)
	}
	diff(t, "events", []store.EventCursor{
		{Revision: 3}, {Revision: 3, Seq: 1}, {Revision: 4}, {Revision: 4, Seq: 1}, {Revision: 5}, {Revision: 5, Seq: 1},
	}, cursors(events4(t, s, 3)))
}

func events4(t *testing.T, s *store.Store, from member.Revision) []member.Event {
	t.Helper()
	list, err := s.EventsFrom(t.Context(), "web", from, 100)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPruneRequestsAndDeparted(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	now := time.Now()
	c := change(at)
	for i, name := range []string{"a", "b", "c", "d"} {
		age := now.Add(-time.Duration(i) * 10 * time.Minute)
		c.Requests = append(c.Requests, member.Request{ID: name, Hash: "h", Revision: 2, At: age})
		c.Departed = append(c.Departed, member.Departed{ID: member.ID(name), LeftAt: age})
	}
	commit(t, s, c)
	r := store.Retention{RequestsSince: now.Add(-15 * time.Minute), DepartedSince: now.Add(-25 * time.Minute), Limit: 1}
	var counts []int64
	for {
		n, err := s.Prune(t.Context(), "web", r)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		counts = append(counts, n)
	}
	diff(t, "rows per call", []int64{2, 1}, counts)
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p := pools[0]; len(p.Departed) != 3 {
		t.Errorf("%d departed are left, want 3", len(p.Departed))
	}
	diff(t, "requests that are left", []string{"a", "b"}, known(t, s, "a", "b", "c", "d"))
}
