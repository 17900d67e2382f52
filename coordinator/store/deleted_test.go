package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// end is the change that deletes "web" at a base.
func end(base member.Position) member.Change {
	c := change(base)
	c.ID = "end"
	c.Delete = &member.Deletion{At: noon, Actor: "ann", Reason: "old"}
	c.Requests = []member.Request{{ID: fmt.Sprint("end-", base.Revision), Hash: "h", Revision: c.Revision(), At: noon}}
	return c
}

// stateOf returns a pool as a leader would read it, if it is there.
func stateOf(t testing.TB, s *store.Store, pool member.Pool) (state member.PoolState, there bool) {
	t.Helper()
	for _, p := range readPools(t, s) {
		if p.Name == pool {
			return p, true
		}
	}
	return member.PoolState{}, false
}

func readPools(t testing.TB, s *store.Store) []member.PoolState {
	t.Helper()
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pools
}

// All that belongs to a pool goes with it but requests, nothing of another one; what is
// remembered keeps the revisions of the next pool of that name above.
func TestDeletePool(t *testing.T) {
	t.Parallel()
	s, at := fullStore(t, freshURL(t))
	other, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "other", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	c := end(at)
	for range 2 { // a repeat is answered alike
		if err := s.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, there := stateOf(t, s, "web"); there {
		t.Error("the pool is there")
	}
	want := []member.DeletedPool{{
		Name: "web", Position: member.Position{Epoch: at.Epoch, Revision: c.Revision()},
		Deletion: *c.Delete, Request: c.Requests[0],
	}}
	deleted, err := s.DeletedPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	diff(t, "deleted pools", want, deleted)
	if _, err := s.Backup(t.Context(), discard{}); err != nil {
		t.Error(err)
	}
	late := change(member.Position{Epoch: at.Epoch, Revision: c.Revision()})
	if err := s.Commit(t.Context(), late); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("a change of the deleted pool: %v", err)
	}
	again, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{
		Name: "web", Settings: member.DefaultSettings(), Requests: []member.Request{{ID: "new", At: time.Now()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := requestsOf(t, s, "new"); again.Position.Revision != c.Revision()+1 || len(r) != 1 || r[0].Revision != again.Position.Revision {
		t.Errorf("the new one is at %v, its request %v", again.Position, r)
	}
	state, _ := stateOf(t, s, "web")
	if len(state.Servers)+len(state.Intents)+len(state.Departed) > 0 || state.Position != again.Position {
		t.Errorf("the new one has %+v", state)
	}
	if o, _ := stateOf(t, s, "other"); o.Position != other.Position {
		t.Errorf("the other one is at %v, was at %v", o.Position, other.Position)
	}
}

// Requests outlive their pool: they are known while there is none, and in the next
// one of its name, for an hour.
func TestRequestsOfADeletedPool(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	now := time.Now().UTC().Truncate(time.Microsecond)
	ask := func(c member.Change, id string, at time.Time) member.Change {
		c.ID, c.Requests = id, []member.Request{{ID: id, Hash: "h", Revision: c.Revision(), At: at}}
		return c
	}
	old := ask(change(at), "old", now.Add(-store.RequestLife-time.Second))
	at = commit(t, s, old)
	wish := ask(change(at), "wish", now.Add(-time.Minute))
	at = commit(t, s, wish)
	deletion := ask(end(at), "end", now)
	if err := s.Commit(t.Context(), deletion); err != nil {
		t.Fatal(err)
	}
	all := []string{"end", "old", "wish"}
	diff(t, "known of the deleted pool", []string{"end", "wish"}, known(t, s, all...))
	_, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{
		Name: "web", Settings: member.DefaultSettings(), Requests: []member.Request{{ID: "wish", Hash: "other", At: now}},
	})
	if _, there := stateOf(t, s, "web"); !errors.Is(err, member.ErrAlreadyExists) || there {
		t.Errorf("with an id that is taken: %v, there is a pool: %t", err, there)
	}
	again, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{
		Name: "web", Settings: member.DefaultSettings(), Requests: []member.Request{{ID: "old", Hash: "new", At: now}},
	})
	if err != nil {
		t.Fatal(err)
	}
	own := member.Request{ID: "old", Hash: "new", Revision: again.Position.Revision, At: now}
	diff(t, "the new pool's request", []store.PoolRequest{{Pool: "web", Request: own}}, requestsOf(t, s, "old"))
	diff(t, "known of the new pool", all, known(t, s, all...))
	to := openStore(t, freshURL(t))
	restore(t, to, backup(t, s), false)
	diff(t, "known in a restored table", all, known(t, to, all...))
	if n, err := s.Prune(t.Context(), "web", store.Retention{RequestsSince: now, Limit: 100}); err != nil || n == 0 {
		t.Errorf("%d rows were pruned, %v", n, err)
	}
	diff(t, "known after pruning", []string{"end", "old"}, known(t, s, all...))
}

// newest returns the pool's history, newest first.
func newest(t *testing.T, s *store.Store) []member.Event {
	t.Helper()
	list, err := s.Events(t.Context(), store.EventQuery{Pool: "web", Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The events of a deleted pool may be too many for one transaction. They go by and
// by; nobody sees them meanwhile, not in the next pool of that name and not in a
// backup.
func TestEventsOfADeletedPool(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	at = writeHistory(t, s, at, 9) // three each
	if err := s.Commit(t.Context(), end(at)); err != nil {
		t.Fatal(err)
	}
	last := at.Revision + 1
	if got := newest(t, s); len(got) != 0 {
		t.Errorf("a pool that is not there has %d events", len(got))
	}
	prune := func(limit int) int64 {
		t.Helper()
		n, err := s.Prune(t.Context(), "web", store.Retention{Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := prune(6); n != 6 {
		t.Errorf("%d events went at first, want 6", n)
	}
	again, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{
		Name: "web", Settings: member.DefaultSettings(), Events: []member.Event{{Kind: member.EventPoolCreated, At: noon}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []member.Revision{1, last} {
		if _, err := s.EventsFrom(t.Context(), "web", from, 10); !errors.Is(err, member.ErrCompacted) {
			t.Errorf("from %d: %v, want ErrCompacted", from, err)
		}
	}
	only := []store.EventCursor{{Revision: again.Position.Revision}}
	diff(t, "the new pool's events", only, cursors(newest(t, s)))
	saved := backup(t, s)
	for _, want := range []int64{6, 6, 6, 3, 0} {
		if n := prune(6); n != want {
			t.Errorf("%d events went, want %d", n, want)
		}
	}
	diff(t, "the new pool's events", only, cursors(newest(t, s)))

	to := openStore(t, freshURL(t))
	restore(t, to, saved, false)
	if got := newest(t, to); len(got) != 2 || got[1].Revision != again.Position.Revision {
		t.Errorf("a restored pool has %v", got)
	}
}

// What a backup would have of a deleted pool could not be restored: it is of no pool.
func TestEventsOfADeletedPoolAreNotBackedUp(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	at = writeHistory(t, s, at, 2)
	if err := s.Commit(t.Context(), end(at)); err != nil {
		t.Fatal(err)
	}
	restore(t, openStore(t, freshURL(t)), backup(t, s), false)
}

// As long as it has events, a deleted pool is remembered, whatever its age: the
// next one of its name must begin above them.
func TestDeletedPoolWithEventsIsRemembered(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	at = writeHistory(t, s, at, 1)
	if err := s.Commit(t.Context(), end(at)); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{2, 1} {
		p, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "later", Settings: member.DefaultSettings()})
		if err != nil {
			t.Fatal(err)
		}
		c := end(p.Position)
		c.Pool, c.Delete.At = "later", noon.Add(time.Duration(i+1)*31*24*time.Hour)
		if err := s.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		deleted, err := s.DeletedPools(t.Context())
		if err != nil || len(deleted) != want {
			t.Errorf("remembered: %v, %v, want %d", deleted, err, want)
		}
		if _, err := s.Prune(t.Context(), "web", store.Retention{Limit: 100}); i == 0 && err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Prune(t.Context(), "web", store.Retention{Limit: 100}); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("a pool that nobody remembers: %v", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// A deletion is fenced as any change is.
func TestDeletePoolIsFenced(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	stale := end(at)
	at = commit(t, s, change(at))
	if err := s.Commit(t.Context(), stale); !errors.Is(err, member.ErrStale) {
		t.Errorf("at an earlier revision: %v", err)
	}
	lead(t, s)
	if err := s.Commit(t.Context(), end(at)); !errors.Is(err, member.ErrFenced) {
		t.Errorf("in an earlier epoch: %v", err)
	}
	if _, there := stateOf(t, s, "web"); !there {
		t.Fatal("the pool is gone")
	}
	// Another deletion of a pool that is gone already is not ours.
	p, _ := stateOf(t, s, "web")
	if err := s.Commit(t.Context(), end(p.Position)); err != nil {
		t.Fatal(err)
	}
	other := end(p.Position)
	other.ID = "other"
	if err := s.Commit(t.Context(), other); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}

// Deleted pools are remembered for thirty days.
func TestDeletedPoolsAreForgotten(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	if err := s.Commit(t.Context(), end(at)); err != nil {
		t.Fatal(err)
	}
	for i, after := range []time.Duration{30 * 24 * time.Hour, 30*24*time.Hour + time.Second} {
		p, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "later", Settings: member.DefaultSettings()})
		if err != nil {
			t.Fatal(err)
		}
		c := end(p.Position)
		c.Pool, c.Delete.At = "later", noon.Add(after)
		if err := s.Commit(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		deleted, err := s.DeletedPools(t.Context())
		if err != nil || len(deleted) != 2-i {
			t.Errorf("after %v: %v, %v", after, deleted, err)
		}
	}
}

// A backup remembers deleted pools, too; the restored ones are above all that
// anybody has seen.
func TestDeletedPoolsAreBackedUp(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	if err := s.Commit(t.Context(), end(at)); err != nil {
		t.Fatal(err)
	}
	to := openStore(t, freshURL(t))
	restored := restore(t, to, backup(t, s), false)
	p, err := to.CreatePool(t.Context(), lead(t, to).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	if p.Position.Revision != 1_000_000_003 || p.Position.Epoch <= restored.Epoch {
		t.Errorf("the new pool is at %v after epoch %d", p.Position, restored.Epoch)
	}
}
