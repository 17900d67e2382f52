package store_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestEveryLeadRaisesTheEpoch(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	first := lead(t, openStore(t, url))
	second := lead(t, openStore(t, url))
	if first.Epoch != 1 || second.Epoch != 2 {
		t.Errorf("epochs %d and %d, want 1 and 2", first.Epoch, second.Epoch)
	}
	if first.StoreID == "" || first.StoreID != second.StoreID {
		t.Errorf("store ids %q and %q, want the same", first.StoreID, second.StoreID)
	}
	if other := lead(t, openStore(t, freshURL(t))); other.StoreID == first.StoreID {
		t.Errorf("two databases share the store id %q", other.StoreID)
	}
}

// TestEmptiedStoreIDIsGivenAnew: so an operator says, after the restore of a
// backup, that the database has another history.
func TestEmptiedStoreIDIsGivenAnew(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	first := lead(t, s)
	if err := s.Exec(t.Context(), "UPDATE leader SET store_id = ''"); err != nil {
		t.Fatal(err)
	}
	if second := lead(t, s); second.StoreID == "" || second.StoreID == first.StoreID {
		t.Errorf("store id %q after %q, want another", second.StoreID, first.StoreID)
	}
}

func TestLeadMovesPoolsToItsEpoch(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	at = commit(t, s, change(at))
	l := lead(t, s)
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := (member.Position{Epoch: l.Epoch, Revision: at.Revision}); pools[0].Position != want {
		t.Errorf("position %v, want %v", pools[0].Position, want)
	}
}

func TestLeadPassesPoolsAheadOfTheLeaderRow(t *testing.T) {
	t.Parallel()
	s, _ := newPool(t)
	alter(t, s, "UPDATE pool SET epoch = 40")
	if l := lead(t, s); l.Epoch != 41 {
		t.Errorf("epoch %d, want 41", l.Epoch)
	}
}

func TestConcurrentLeadsGetDifferentEpochs(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	const leaders = 4
	var wg sync.WaitGroup
	epochs := make(chan member.Epoch, leaders)
	for range leaders {
		s := openStore(t, url)
		wg.Go(func() {
			if l, err := s.Lead(t.Context(), "c", ""); err != nil {
				t.Error(err)
			} else {
				epochs <- l.Epoch
			}
		})
	}
	wg.Wait()
	close(epochs)
	seen := map[member.Epoch]bool{}
	for e := range epochs {
		if seen[e] {
			t.Errorf("epoch %d has two leaders", e)
		}
		seen[e] = true
	}
}

func TestStaleLeaderIsFenced(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	lead(t, s)
	c := change(at)
	c.Put = []member.Server{bare("a", 2)}
	if err := s.Commit(t.Context(), c); !errors.Is(err, member.ErrFenced) {
		t.Errorf("commit: %v, want ErrFenced", err)
	}
	if _, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "late", Settings: member.DefaultSettings()}); !errors.Is(err, member.ErrFenced) {
		t.Errorf("create pool: %v, want ErrFenced", err)
	}
	if err := s.Renew(t.Context(), at.Epoch); !errors.Is(err, member.ErrFenced) {
		t.Errorf("renew: %v, want ErrFenced", err)
	}
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(pools) != 1 || len(pools[0].Servers) != 0 {
		t.Errorf("the stale leader's writes took effect: %v", pools)
	}
}

func TestRenewOfThePresentLeader(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	l := lead(t, s)
	for range 3 {
		if err := s.Renew(t.Context(), l.Epoch); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Renew(t.Context(), l.Epoch+1); !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("renew in an epoch the table has not seen: %v, want ErrUnavailable", err)
	}
}

func TestPingAndKind(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if s.Kind() != backend {
		t.Errorf("kind %q, want %q", s.Kind(), backend)
	}
	closed, err := store.Open(t.Context(), store.Config{URL: freshURL(t), Migrate: store.MigrateAuto})
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := closed.Ping(t.Context()); err == nil {
		t.Error("a closed store answers")
	}
}
