package store_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// TestOneOfManyClaimsWins: all have seen the same lease.
func TestOneOfManyClaimsWins(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	const claimants = 4
	var wg sync.WaitGroup
	var won atomic.Int32
	stores, claims := make([]*store.Store, claimants), make([]store.Claim, claimants)
	for i := range claimants {
		stores[i] = openStore(t, url)
		claims[i] = claim(t, stores[i], member.ID(fmt.Sprintf("c%d", i)))
	}
	for i, c := range claims {
		wg.Go(func() {
			switch _, err := stores[i].Lead(t.Context(), c); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, member.ErrStale):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d of %d claims won", n, claimants)
	}
}

// TestNoEpochIsWonTwice: a renewal that its sender has given up arrives after it has
// seen the lease of its own past term. It is no earlier claim that went through.
func TestNoEpochIsWonTwice(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	c := claim(t, s, "c1")
	first, err := s.Lead(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Lead(t.Context(), c); err != nil || again != first {
		t.Errorf("the same claim again: %v, %v; want %v", again, err, first)
	}
	c.Seen = leaseOf(t, s)
	if err := s.Renew(t.Context(), first.Epoch); err != nil {
		t.Fatal(err)
	}
	if l, err := s.Lead(t.Context(), c); !errors.Is(err, member.ErrStale) {
		t.Errorf("led as %v, %v; want ErrStale", l, err)
	}
}

// TestClaimOfARenewedLease: a leader that has renewed since it was seen is not
// overruled, nor one that has made a pool.
func TestClaimOfARenewedLease(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	epoch := lead(t, s).Epoch
	for name, sign := range map[string]func() error{
		"renewal": func() error { return s.Renew(t.Context(), epoch) },
		"new pool": func() error {
			_, err := s.CreatePool(t.Context(), epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
			return err
		},
	} {
		c := claim(t, s, "c2")
		if err := sign(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Lead(t.Context(), c); !errors.Is(err, member.ErrStale) {
			t.Errorf("claim after a %s: %v, want ErrStale", name, err)
		}
	}
	if err := s.Renew(t.Context(), epoch); err != nil {
		t.Errorf("the leader of before: %v", err)
	}
}

// TestClaimRepeatedAfterALostAnswer is won once.
func TestClaimRepeatedAfterALostAnswer(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	c := claim(t, s, "c1")
	first, err := s.Lead(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Lead(t.Context(), c); err != nil || again != first {
		t.Errorf("repeated: %v, %v, want %v", again, err, first)
	}
	twin := c
	twin.Instance = "another run"
	if _, err := s.Lead(t.Context(), twin); !errors.Is(err, member.ErrStale) {
		t.Errorf("another run of the same id: %v, want ErrStale", err)
	}
}

func TestClaimAboveAnEpoch(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	c := claim(t, s, "c1")
	c.Above = 12
	if l, err := s.Lead(t.Context(), c); err != nil || l.Epoch != 13 {
		t.Errorf("epoch %d, %v, want 13", l.Epoch, err)
	}
}

func TestLeaseSaysWhoLeads(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	diff(t, "before the first leader", member.Lease{}, leaseOf(t, s))
	c := claim(t, s, "c1")
	l, err := s.Lead(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	held := member.Lease{
		StoreID: l.StoreID, Holder: "c1", Instance: c.Instance, Advertise: "c1.example:7400", Epoch: 1, Renewal: 1,
	}
	diff(t, "held", held, leaseOf(t, s))

	for range 2 { // as after a lost answer
		if err := s.Release(t.Context(), l.Epoch); err != nil {
			t.Fatal(err)
		}
	}
	free := leaseOf(t, s)
	if !free.Free() || free.Epoch != l.Epoch || free.StoreID != l.StoreID || !free.Moved(held) {
		t.Errorf("released: %+v", free)
	}
	second := lead(t, s)
	if second.Epoch != l.Epoch+1 {
		t.Errorf("epoch %d after %d", second.Epoch, l.Epoch)
	}
	if err := s.Release(t.Context(), l.Epoch); !errors.Is(err, member.ErrFenced) {
		t.Errorf("release by the leader before: %v, want ErrFenced", err)
	}
	if leaseOf(t, s).Free() {
		t.Error("a leader of the past has given back the lease of the present one")
	}
}

func TestCoordinatorsOnADatabase(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	a := member.Coordinator{ID: "a", Advertise: "a:7400", LastSeen: noon}
	b := member.Coordinator{ID: "b", LastSeen: noon.Add(time.Hour)}
	for _, c := range []member.Coordinator{b, {ID: "a", LastSeen: noon.Add(-time.Hour)}, a} {
		if err := s.PutCoordinator(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for since, want := range map[time.Time][]member.Coordinator{
		noon: {a, b}, noon.Add(time.Minute): {b}, noon.Add(2 * time.Hour): nil,
	} {
		got, err := s.Coordinators(t.Context(), since)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, since.String(), want, got)
	}
	c := claim(t, s, "a")
	if _, err := s.Lead(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.PutCoordinator(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := leaseOf(t, s).Instance; got != c.Instance {
		t.Errorf("a sign of life has changed the leader's instance from %q to %q", c.Instance, got)
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
	for what, err := range map[string]error{
		"renew":       s.Renew(t.Context(), at.Epoch),
		"release":     s.Release(t.Context(), at.Epoch),
		"put router":  s.PutRouter(t.Context(), at.Epoch, store.RouterRow{ID: "r", LastSeen: noon}),
		"drop router": s.DropRouter(t.Context(), at.Epoch, "r"),
		"forget routers": func() error {
			_, err := s.ForgetRouters(t.Context(), at.Epoch, noon)
			return err
		}(),
	} {
		if !errors.Is(err, member.ErrFenced) {
			t.Errorf("%s: %v, want ErrFenced", what, err)
		}
	}
	if routers, err := s.Routers(t.Context()); err != nil || len(routers) > 0 {
		t.Errorf("the stale leader's routers: %v, %v", routers, err)
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
