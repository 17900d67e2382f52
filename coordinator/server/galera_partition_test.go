//go:build galera

package server_test

import (
	"context"
	"errors"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// TestPartitionsOfGalera cuts links between the nodes of a cluster under load. First
// the leader's only node is cut off from the others: another coordinator takes over
// through those. Then the node that this one writes to, which has more: it leads on in
// its epoch through another node. Then one link of that node, which can still be
// reached round about; and at last all links are slow. All the while suspects reach
// the routers, and nothing is acknowledged that is not in the table in the end.
func TestPartitionsOfGalera(t *testing.T) {
	t.Parallel()
	cluster := testdb.StartGalera(t)
	name := path.Base(cluster.Database(t))
	t.Cleanup(cluster.Mend)
	c1 := startTelling(t, "c1", openAll(t, cluster.URL(name, 0)))
	c1.leads(time.Minute)
	c2 := startTelling(t, "c2", openAll(t, cluster.URL(name, 1, 2, 0)))
	c2.standsBy(time.Minute)
	peers := map[string]*world{"c1:7400": c1, "c2:7400": c2}
	c1.peers.Store(&peers)
	c2.peers.Store(&peers)
	unbraked(t, c1)
	agents := c1.join("web-1", "web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8")
	r := c1.newRouter("r1").subscribe()
	knowsOf(t, c1, agents[0], "c2:7400")
	epoch := epochOf(t, c1)
	var took []time.Duration

	var l load
	stop := l.start(t, c1, c2)
	l.goesOn(t, time.Minute)

	cluster.Isolate(0)
	took = append(took, suspect(t, r, agents[7]))
	refuses(t, cluster.URL(name, 0))
	c2.leads(time.Minute)
	epoch++
	leadsIn(t, c2, epoch)
	c1.standsBy(time.Minute) // it hears of that though it has no database
	c2.network.set("web-8", true)
	moveTo(t, c2, agents[:7]...)
	r = c2.newRouter("r1").subscribe()
	l.goesOn(t, time.Minute)
	cluster.Mend()
	cluster.Heal(t)

	cluster.Isolate(cluster.Written(t))
	took = append(took, suspect(t, r, agents[6]))
	l.goesOn(t, time.Minute)
	leadsIn(t, c2, epoch)
	cluster.Mend()
	cluster.Heal(t)

	at := cluster.Written(t)
	cluster.Sever(at, (at+1)%3)
	took = append(took, suspect(t, r, agents[5]))
	l.goesOn(t, time.Minute)
	leadsIn(t, c2, epoch)
	cluster.Mend()
	cluster.Heal(t)

	cluster.Slow(50 * time.Millisecond)
	took = append(took, suspect(t, r, agents[4]))
	l.goesOn(t, time.Minute)
	leadsIn(t, c2, epoch)
	cluster.Mend()

	slices.Sort(took)
	if took[len(took)-2] > time.Second { // one may be late where the machine is busy
		t.Errorf("suspects reached the router after %v", took)
	}
	for _, a := range agents[4:] {
		c2.gone(a.id, time.Minute)
	}
	stop()
	c1.standsBy(0)
	c2.consistent()
	r.messages() // none breaks a promise
	for node := range 3 {
		s := openAll(t, cluster.URL(name, node))
		hasAll(t, s, l.ids)
		oneLeaderAtATime(t, s, epoch)
	}
	t.Logf("%d changes acknowledged", len(l.ids))
}

// knowsOf waits until a coordinator tells an agent of another one.
func knowsOf(t *testing.T, w *world, a *agent, address string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		moveTo(t, w, a)
		if slices.Contains(a.welcomed().GetCoordinators(), address) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody is told of %s", address)
		}
	}
}

// unbraked lets any number of servers be removed: half of the pool crashes within a
// minute.
func unbraked(t *testing.T, w *world) {
	t.Helper()
	off := uint32(100)
	_, err := w.admin.UpdatePool(t.Context(), &pb.UpdatePoolRequest{
		Pool: "default", Settings: &pb.PoolSettings{BrakePercent: &off, BrakeZonePercent: &off, FloorPercent: &off},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// suspect crashes a host, and returns how soon the router holds it suspect.
func suspect(t *testing.T, r *router, a *agent) time.Duration {
	t.Helper()
	a.crash()
	took := r.holdsSuspect(a.id, true, 20*time.Second)
	t.Logf("%s was suspect after %v", a.id, took.Round(time.Millisecond))
	return took
}

func leadsIn(t *testing.T, w *world, epoch uint64) {
	t.Helper()
	w.leads(0)
	if got := epochOf(t, w); got != epoch {
		t.Errorf("epoch %d, want %d", got, epoch)
	}
}

// refuses checks that a node without the others acknowledges nothing, neither before
// nor after it has noticed.
func refuses(t *testing.T, url string) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{URL: url})
	if err != nil {
		if !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("a node without the others: %v", err)
		}
		return
	}
	defer func() { _ = s.Close() }()
	within, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	err = s.PutCoordinator(within, member.Coordinator{ID: "stray", LastSeen: time.Now()})
	if !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("a write through a node without the others: %v", err)
	}
}

// oneLeaderAtATime checks that no change of an epoch comes after one of a later
// epoch, and that the last one is of the present leader.
func oneLeaderAtATime(t *testing.T, s *store.Store, epoch uint64) {
	t.Helper()
	events, err := s.EventsFrom(t.Context(), member.DefaultPool, 1, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	var last member.Event
	for _, e := range events {
		if e.Epoch < last.Epoch {
			t.Errorf("revision %d is of epoch %d, after %d of epoch %d", e.Revision, e.Epoch, last.Revision, last.Epoch)
		}
		last = e
	}
	if uint64(last.Epoch) != epoch {
		t.Errorf("the last of %d events is of epoch %d, want %d", len(events), last.Epoch, epoch)
	}
}
