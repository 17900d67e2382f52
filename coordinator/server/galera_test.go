//go:build galera

package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// openAll opens a store on all nodes of a cluster.
func openAll(t *testing.T, url string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: url, Migrate: store.MigrateAuto})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // sessions to killed nodes cannot end well
	return s
}

// startTelling runs a coordinator of a name, whose log is shown if the test fails.
func startTelling(t *testing.T, id string, table server.Store) *world {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("coordinator", id)
	return startLogging(t, log, table, calledCoordinator(id))
}

// load asks for changes all the time and keeps those that were acknowledged.
type load struct {
	acked atomic.Int64
	mu    sync.Mutex
	ids   []member.ID
}

// asking is how many ask at once.
const asking = 4

// start asks coordinators until the returned function is called, or the test ends.
func (l *load) start(t *testing.T, all ...*world) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	for i := range asking {
		for j, w := range all {
			loops.Go(func() { l.run(ctx, w, fmt.Sprintf("load%d-%d", i, j)) })
		}
	}
	stop = func() {
		cancel()
		loops.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// run asks until ctx ends.
func (l *load) run(ctx context.Context, w *world, name string) {
	for n := 0; ctx.Err() == nil; n++ {
		id := fmt.Sprintf("%s-%d", name, n)
		within, cancel := context.WithTimeout(ctx, 3*time.Second)
		_, err := w.admin.SetIntent(within, &pb.SetIntentRequest{ServerId: id, Wish: pb.Wish_WISH_MAINTENANCE, RequestId: id})
		cancel()
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		l.mu.Lock()
		l.ids = append(l.ids, member.ID(id))
		l.mu.Unlock()
		l.acked.Add(1)
	}
}

// goesOn waits until many more changes are acknowledged.
func (l *load) goesOn(t *testing.T, within time.Duration) {
	t.Helper()
	before, begin := l.acked.Load(), time.Now()
	eventually(t, within, func() error {
		if n := l.acked.Load() - before; n < 20 {
			return fmt.Errorf("%d changes acknowledged", n)
		}
		return nil
	})
	t.Logf("20 more changes after %v", time.Since(begin).Round(time.Millisecond))
}

// TestFaultsOfGalera is the leader on a cluster whose nodes are stopped and killed
// under load, also all at once: suspects reach the routers while nothing can be made
// durable, nothing that was acknowledged is lost, and the leader, which is well, leads
// on in its epoch.
func TestFaultsOfGalera(t *testing.T) {
	t.Parallel()
	cluster := testdb.StartGalera(t)
	url := cluster.Database(t)
	w := startTelling(t, "c1", openAll(t, url))
	w.leads(time.Minute)
	standby := startTelling(t, "c2", openAll(t, url))
	standby.standsBy(time.Minute)
	agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8")
	r := w.newRouter("r1").subscribe()
	epoch := epochOf(t, w)

	var l load
	stop := l.start(t, w)
	l.goesOn(t, time.Minute)

	suspect := func(a *agent) {
		t.Helper()
		before := l.acked.Load()
		a.crash()
		took := r.holdsSuspect(a.id, true, 20*time.Second)
		t.Logf("%s was suspect after %v", a.id, took.Round(time.Millisecond))
		// What was under way may have been answered just now.
		if n := l.acked.Load() - before; n > asking {
			t.Errorf("%d changes were acknowledged meanwhile: the database was well", n)
		}
	}
	ledOn := func() {
		t.Helper()
		w.leads(0)
		standby.standsBy(0)
		if got := epochOf(t, w); got != epoch {
			t.Errorf("epoch %d after %d", got, epoch)
		}
	}

	// The node that the leader writes to.
	cluster.Node(0).Signal(t, syscall.SIGSTOP)
	suspect(agents[6])
	l.goesOn(t, time.Minute)
	w.gone("web-7", time.Minute)
	ledOn()
	cluster.Node(0).Signal(t, syscall.SIGCONT)
	cluster.Heal(t)

	cluster.KillAll(t)
	suspect(agents[7])
	cluster.Rebuild(t)
	l.goesOn(t, time.Minute)
	w.gone("web-8", time.Minute)
	ledOn()

	stop()
	w.consistent()
	for node := range 3 {
		hasAll(t, openAll(t, cluster.URL(path.Base(url), node)), l.ids)
	}
	t.Logf("%d changes acknowledged", len(l.ids))
}

// TestLostHostOfGalera is the end of a host that has the leader and the node that all
// coordinators write to: from then on nothing that is sent there is answered. Another
// coordinator leads through another node.
func TestLostHostOfGalera(t *testing.T) {
	t.Parallel()
	cluster := testdb.StartGalera(t)
	url := cluster.Database(t)
	cut := &link{Store: openAll(t, url)}
	c1 := startTelling(t, "c1", cut)
	c1.leads(time.Minute)
	c2 := startTelling(t, "c2", openAll(t, url))
	c2.standsBy(time.Minute)
	epoch := epochOf(t, c1)
	var l load
	stop := l.start(t, c1, c2)
	l.goesOn(t, time.Minute)

	cluster.Node(0).Signal(t, syscall.SIGSTOP)
	cut.down.Store(true)
	c1.shutDown()
	begin := time.Now()
	c2.leads(time.Minute)
	t.Logf("another one led after %v", time.Since(begin).Round(time.Millisecond))
	l.goesOn(t, time.Minute)
	stop()
	if got := epochOf(t, c2); got != epoch+1 {
		t.Errorf("epoch %d after %d", got, epoch)
	}
	for _, node := range []int{1, 2} {
		hasAll(t, openAll(t, cluster.URL(path.Base(url), node)), l.ids)
	}
	cluster.Node(0).Signal(t, syscall.SIGCONT)
	cluster.Heal(t) // the database is dropped through it
}

// hasAll checks that the table has the wishes for all ids.
func hasAll(t *testing.T, s *store.Store, ids []member.ID) {
	t.Helper()
	pools, err := s.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there := map[member.ID]bool{}
	for _, i := range pools[0].Intents {
		there[i.ID] = true
	}
	for _, id := range ids {
		if !there[id] {
			t.Errorf("the wish for %s was acknowledged, and is lost", id)
		}
	}
}
