package store_test

import (
	"errors"
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
	c.Requests = []member.Request{{ID: "r", Hash: "h", At: noon}}
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

// All that belongs to a pool goes with it, nothing of another one; what is
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
		Deletion: *c.Delete, Request: member.Request{ID: "r", Hash: "h", Revision: c.Revision(), At: noon},
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
		Name: "web", Settings: member.DefaultSettings(), Requests: []member.Request{{ID: "new", At: noon}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if again.Position.Revision != c.Revision()+1 || again.Requests[0].Revision != again.Position.Revision {
		t.Errorf("the new one is at %v, its request at %d", again.Position, again.Requests[0].Revision)
	}
	state, _ := stateOf(t, s, "web")
	if len(state.Servers)+len(state.Intents)+len(state.Departed) > 0 || len(events(t, s)) > 0 || state.Position != again.Position {
		t.Errorf("the new one has %+v", state)
	}
	if o, _ := stateOf(t, s, "other"); o.Position != other.Position {
		t.Errorf("the other one is at %v, was at %v", o.Position, other.Position)
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
