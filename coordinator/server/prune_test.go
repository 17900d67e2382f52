package server_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// pruned is a table that tells what was pruned.
type pruned struct {
	server.Store

	mu sync.Mutex
	// errs are the answers for a pool; asked are the pools.
	errs   map[member.Pool]error
	asked  []member.Pool
	forgot bool
}

func (p *pruned) Prune(_ context.Context, name member.Pool, _ store.Retention) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, name)
	return 0, p.errs[name]
}

func (p *pruned) ForgetRouters(ctx context.Context, epoch member.Epoch, since time.Time) (int64, error) {
	p.mu.Lock()
	p.forgot = true
	p.mu.Unlock()
	return p.Store.ForgetRouters(ctx, epoch, since)
}

// One pool whose past cannot be pruned, or which the table does not remember, keeps
// no other one's. Deleted pools are pruned, too: they have left their events.
func TestPruneGoesOnWithTheOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want []member.Pool
	}{
		"not known":   {member.ErrNotFound, []member.Pool{"default", "films", "games", "songs"}},
		"damaged":     {errors.New("damaged"), []member.Pool{"default", "films", "games", "songs"}},
		"not reached": {errDown, []member.Pool{"default", "films"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				table := &pruned{Store: newTable(), errs: map[member.Pool]error{"films": c.err}}
				w := start(t, table)
				for _, pool := range []string{"films", "games", "songs"} {
					w.makePool(pool)
				}
				w.deletePool(&pb.DeletePoolRequest{Pool: "games"})
				time.Sleep(2 * time.Minute)
				table.mu.Lock()
				defer table.mu.Unlock()
				if forgot := !errors.Is(c.err, errDown); !slices.Equal(table.asked, c.want) || table.forgot != forgot {
					t.Errorf("pruned %v, routers %t", table.asked, table.forgot)
				}
			})
		})
	}
}
