package server_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// spoilt is a table with a pool that cannot be read.
type spoilt struct {
	server.Store

	pool atomic.Pointer[member.Pool]
}

func (s *spoilt) LoadPools(ctx context.Context) ([]member.PoolState, error) {
	states, err := s.Store.LoadPools(ctx)
	for i, state := range states {
		if p := s.pool.Load(); p != nil && state.Name == *p {
			states[i] = member.PoolState{Name: *p, Unreadable: errors.New(`read server web-9: "odd" is no probe`)}
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

// The same where each row can be read, and together they make no ring; and for
// the pool that always exists.
func TestPoolWithoutARingIsSetAside(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		if _, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"}); err != nil {
			t.Fatal(err)
		}
		w.shutDown()
		table.meddle("default", "web-2", func(s *member.Server) { s.First = "web-2" })
		w.run()
		w.leads(time.Second)
		if _, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "games"}); err != nil {
			t.Errorf("the other pool: %v", err)
		}
		if _, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "default"}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("the pool: %v", err)
		}
	})
}
