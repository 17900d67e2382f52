package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// spoilt is a table with a pool that cannot be read.
type spoilt struct {
	server.Store

	pool atomic.Pointer[member.Pool]
	// silent says that commits go through without an answer; late, that they hang, and
	// the last one goes through before the first that does not.
	silent, late atomic.Bool
	under        atomic.Pointer[member.Change]
}

func (s *spoilt) Commit(ctx context.Context, c member.Change) error {
	if s.late.Load() {
		s.under.Store(&c)
		return fmt.Errorf("%w: %w", member.ErrUnavailable, store.ErrOutcomeUnknown)
	}
	if before := s.under.Swap(nil); before != nil {
		if err := s.Store.Commit(ctx, *before); err != nil {
			return err
		}
	}
	err := s.Store.Commit(ctx, c)
	if s.silent.Load() {
		return fmt.Errorf("%w: %w", member.ErrUnavailable, store.ErrOutcomeUnknown)
	}
	return err
}

func (s *spoilt) LoadPools(ctx context.Context) ([]member.PoolState, error) {
	states, err := s.Store.LoadPools(ctx)
	for i, state := range states {
		if p := s.pool.Load(); p != nil && state.Name == *p {
			states[i] = member.PoolState{
				Name: *p, Position: state.Position, Unreadable: errors.New(`read server web-9: "odd" is no probe`),
			}
		}
	}
	return states, err
}

func (s *spoilt) spoil(name member.Pool) { s.pool.Store(&name) }

// A pool that cannot be read is set aside: the others are led, on every
// coordinator, and whoever asks for it is told why.
func TestUnreadablePoolIsSetAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &spoilt{Store: newTable()}
		before := start(t, table)
		before.join("web-1", "web-2", "web-3")
		if _, err := before.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"}); err != nil {
			t.Fatal(err)
		}
		before.shutDown()
		table.spoil("games")

		c := startCluster(t, table, 2)
		for _, w := range c.all {
			if got := len(w.phases()); got != 3 {
				t.Errorf("%d members of the other pool", got)
			}
			notServed(t, w)
		}
		w := c.all[0]
		if got := w.alarms(); !slices.Contains(got, "POOL_UNREADABLE") {
			t.Errorf("alarms: %v", got)
		}
		res, err := w.admin.ListAlarms(t.Context(), &pb.ListAlarmsRequest{Pool: "games"})
		if err != nil || len(res.GetAlarms()) != 1 {
			t.Errorf("alarms of the pool: %v, %v", res, err)
		}
		_, err = w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"})
		if !errors.Is(err, member.ErrAlreadyExists) {
			t.Errorf("create: %v", err)
		}
		_, err = w.admin.ListServers(t.Context(), &pb.ListServersRequest{})
		if !errors.Is(err, member.ErrInvalid) {
			t.Errorf("a request for whichever pool there is: %v", err)
		}
		player := w.newAgent("web-9")
		player.hello.Pool = "games"
		player.connect()
		if err := heard(t, player.over); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("join: %v", err)
		}

		// Mended, it is served without another leader.
		epoch := epochOf(t, w)
		table.pool.Store(nil)
		time.Sleep(11 * time.Second)
		player.connect()
		player.welcomed()
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms: %v", got)
		}
		if got := epochOf(t, w); got != epoch {
			t.Errorf("epoch %d after %d", got, epoch)
		}
	})
}

func notServed(t *testing.T, w *world) {
	t.Helper()
	_, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "games"})
	if !errors.Is(err, member.ErrUnavailable) || !strings.Contains(err.Error(), "web-9") {
		t.Errorf("get pool: %v", err)
	}
}

// The same for the pool that always exists: it is not made anew.
func TestUnreadableDefaultPoolIsSetAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &spoilt{Store: newTable()}
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		if _, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"}); err != nil {
			t.Fatal(err)
		}
		w.shutDown()
		table.spoil(member.DefaultPool)
		w.run()
		w.leads(time.Second)
		if _, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "games"}); err != nil {
			t.Errorf("the other pool: %v", err)
		}
		if _, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "default"}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("the pool: %v", err)
		}
		table.pool.Store(nil)
		time.Sleep(11 * time.Second)
		w.consistent()
	})
}

// Who names no pool is told why the only one is not served.
func TestOnlyPoolIsUnreadable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &spoilt{Store: newTable()}
		w := start(t, table)
		w.join("web-1")
		w.shutDown()
		table.spoil(member.DefaultPool)
		w.run()
		w.leads(time.Second)
		_, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{})
		if !errors.Is(err, member.ErrUnavailable) || !strings.Contains(err.Error(), "no probe") {
			t.Errorf("got %v", err)
		}
	})
}

// withSpoilt starts a coordinator whose pool games cannot be read, and subscribes a
// router that has followed it before.
func withSpoilt(t *testing.T) (w *world, table *spoilt, r *router, revision uint64) {
	t.Helper()
	table = &spoilt{Store: newTable()}
	w = start(t, table)
	w.makePool("games")
	w.inPool("games", "g-1").welcomed()
	r = w.newRouter("r1").subscribe()
	time.Sleep(2 * time.Second)
	res, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "games"})
	if err != nil {
		t.Fatal(err)
	}
	revision = res.GetPool().GetRevision()
	w.shutDown()
	table.spoil("games")
	w.run()
	w.leads(time.Second)
	if got := w.alarms(); !slices.Contains(got, "POOL_UNREADABLE") {
		t.Fatalf("alarms: %v", got)
	}
	r.subscribe()
	time.Sleep(time.Second)
	return w, table, r, revision
}

// inner is the table behind it.
func inner(t *testing.T, s *spoilt) *table {
	t.Helper()
	in, ok := s.Store.(*table)
	if !ok {
		t.Fatal("it is another one")
	}
	return in
}

// A pool that is not served can be deleted, if an operator insists.
func TestDeleteAPoolThatIsNotServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, table, r, revision := withSpoilt(t)
		for what, c := range map[string]struct {
			req  *pb.DeletePoolRequest
			want error
		}{
			"without force":       {&pb.DeletePoolRequest{Pool: "games"}, member.ErrRefused},
			"at another revision": {&pb.DeletePoolRequest{Pool: "games", Force: true, ExpectedRevision: new(revision - 1)}, member.ErrStale},
		} {
			if _, err := w.admin.DeletePool(t.Context(), c.req); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if res := w.deletePool(&pb.DeletePoolRequest{Pool: "games", Force: true, ValidateOnly: true}); res.GetRevision() != revision {
			t.Errorf("validated at revision %d, want %d", res.GetRevision(), revision)
		}
		notServed(t, w)
		inner(t, table).lose()
		for range 2 {
			res := w.deletePool(&pb.DeletePoolRequest{Pool: "games", Force: true, ExpectedRevision: &revision, RequestId: "once"})
			if res.GetRevision() != revision+1 || res.Servers != nil {
				t.Errorf("deleted: %v, after revision %d", res, revision)
			}
		}
		time.Sleep(time.Second)
		if log, want := r.messages(), fmt.Sprintf("deleted games %d in epoch 2", revision+1); !slices.Contains(log, want) {
			t.Errorf("the router heard %v", log)
		}
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms: %v", got)
		}
		eventually(t, 10*time.Second, func() error { return w.told("pool_deleted", "pool games was deleted at revision") })
		if made := w.makePool("games").GetRevision(); made != revision+2 {
			t.Errorf("made anew at revision %d", made)
		}
	})
}

// The deletion goes through, and nobody hears of that in time. It is found when the
// table is read again, or somebody asks again.
func TestDeletionOfAPoolThatIsNotServedWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for name, pause := range map[string]time.Duration{"repeated at once": 0, "repeated later": 11 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, table, r, revision := withSpoilt(t)
				table.silent.Store(true)
				req := &pb.DeletePoolRequest{Pool: "games", Force: true, RequestId: "once"}
				// It is over before the table is read again.
				impatient, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				if res, err := w.admin.DeletePool(impatient, req); err == nil {
					t.Errorf("without an answer: %v", res)
				}
				time.Sleep(pause)
				if res := w.deletePool(req); res.GetRevision() != revision+1 {
					t.Errorf("repeated: %v", res)
				}
				table.silent.Store(false)
				isDeleted(t, w, r, revision+1)
			})
		})
	}
}

// isDeleted checks that everybody knows of the deletion by the request "once".
func isDeleted(t *testing.T, w *world, r *router, revision uint64) {
	t.Helper()
	_, err := w.admin.DeletePool(t.Context(), &pb.DeletePoolRequest{Pool: "games", RequestId: "once"})
	wantField(t, err, "request_id")
	other := &pb.DeletePoolRequest{Pool: "games", Force: true, RequestId: "twice"}
	if _, err := w.admin.DeletePool(t.Context(), other); !errors.Is(err, member.ErrNotFound) {
		t.Errorf("another one: %v", err)
	}
	time.Sleep(time.Second)
	if log, want := r.messages(), fmt.Sprintf("deleted games %d in epoch 2", revision); !slices.Contains(log, want) {
		t.Errorf("the router heard %v", log)
	}
	if got := w.alarms(); slices.Contains(got, "POOL_UNREADABLE") {
		t.Errorf("alarms: %v", got)
	}
}

// The COMMIT comes through only when the request was repeated and has read the pool
// once more.
func TestLateDeletionOfAPoolThatIsNotServed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, table, r, revision := withSpoilt(t)
		table.late.Store(true)
		req := &pb.DeletePoolRequest{Pool: "games", Force: true, RequestId: "once"}
		if _, err := w.admin.DeletePool(t.Context(), req); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("without an answer: %v", err)
		}
		table.late.Store(false)
		if res := w.deletePool(req); res.GetRevision() != revision+1 {
			t.Errorf("repeated: %v", res)
		}
		isDeleted(t, w, r, revision+1)
	})
}

// A repeat that comes while the first one is under way is answered as that.
func TestDeletionOfAPoolThatIsNotServedTwiceAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, table, _, revision := withSpoilt(t)
		release := inner(t, table).hold()
		answers := make(chan error, 2)
		for range 2 {
			go func() {
				res, err := w.admin.DeletePool(t.Context(), &pb.DeletePoolRequest{Pool: "games", Force: true, RequestId: "once"})
				if err == nil && res.GetRevision() != revision+1 {
					err = fmt.Errorf("at revision %d", res.GetRevision())
				}
				answers <- err
			}()
		}
		time.Sleep(time.Second)
		release()
		for range 2 {
			if err := <-answers; err != nil {
				t.Errorf("deleted: %v", err)
			}
		}
	})
}

// Without the fence of this leader nothing is deleted.
func TestDeletionOfAPoolThatIsNotServedIsFenced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, table, _, _ := withSpoilt(t)
		inner(t, table).usurp("c2")
		_, err := w.admin.DeletePool(t.Context(), &pb.DeletePoolRequest{Pool: "games", Force: true})
		if err == nil {
			t.Error("deleted")
		}
		states, err := table.LoadPools(t.Context())
		if err != nil || len(states) != 2 {
			t.Errorf("%d pools, %v", len(states), err)
		}
	})
}
