package fleet_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/agent/daemon"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// inVirtualTime runs a test with a new fleet.
func inVirtualTime(t *testing.T, test func(f *fleet)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { test(newFleet(t, dir)) })
}

// warm lets the coordinator's warm-up pass.
func (f *fleet) warm() { time.Sleep(20 * time.Second) }

func TestCrash(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 12)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.consistent()
		f.warm()

		f.crash("web-5")
		steered := f.until(2*time.Second, func() error {
			if active, _ := f.routed(); slices.Contains(active, "web-5") {
				return fmt.Errorf("web-5 still gets work")
			}
			return nil
		})
		removed := steered + f.until(2*time.Second, func() error {
			if _, others := f.routed(); slices.Contains(others, "web-5") {
				return fmt.Errorf("web-5 is still there")
			}
			return nil
		})
		if steered > 800*time.Millisecond || removed > time.Second {
			f.t.Errorf("steered away after %s, removed after %s", steered, removed)
		}
		f.settled(time.Second, without(all, "web-5")...)
		f.consistent()

		// It comes back and is held for a while.
		f.reboot("web-5")
		f.settled(20*time.Second, all...)
		f.consistent()
		if got := f.removals(); !maps.Equal(got, map[string]int{"web-5": 1}) {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// ring are the members in ring order.
func (f *fleet) ring() []string {
	f.t.Helper()
	res, err := f.admin.GetRing(f.t.Context(), &coordinatorv1.GetRingRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	var ids []string
	for _, m := range res.GetMembers() {
		ids = append(ids, m.GetServerId())
	}
	return ids
}

// Ten that die together leave in one revision, as fast as one alone.
func TestTenCrashes(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 40)
		f.add(all...)
		f.settled(30*time.Second, all...)
		f.warm()
		f.unbraked()
		var dead []string
		for i, id := range f.ring() {
			if i%4 == 3 {
				dead = append(dead, id)
			}
		}
		begin := time.Now()
		f.crash(dead...)
		f.settled(2*time.Second, without(all, dead...)...)
		if took := time.Since(begin); took > time.Second {
			f.t.Errorf("it took %s", took)
		}
		f.consistent()
		res, err := f.admin.ListEvents(f.t.Context(), &coordinatorv1.ListEventsRequest{Kinds: []string{"removed"}})
		if err != nil {
			f.t.Fatal(err)
		}
		revisions := map[uint64]bool{}
		for _, e := range res.GetEvents() {
			revisions[e.GetRevision()] = true
		}
		if len(res.GetEvents()) != 10 || len(revisions) != 1 {
			f.t.Errorf("%d removals in %d revisions", len(res.GetEvents()), len(revisions))
		}
	})
}

// With the brake on, nobody leaves: ten of forty are more than it allows. The
// routers steer clients away all the same.
func TestTenCrashesAreHeld(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 40)
		f.add(all...)
		f.settled(30*time.Second, all...)
		f.warm()
		var dead []string
		for i, id := range f.ring() {
			if i%4 == 3 {
				dead = append(dead, id)
			}
		}
		f.crash(dead...)
		time.Sleep(20 * time.Second)
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("%v were removed", got)
		}
		brake, err := f.admin.GetBrake(f.t.Context(), &coordinatorv1.GetBrakeRequest{})
		if err != nil || len(brake.GetHeld()) != 10 || len(brake.GetStops()) == 0 {
			f.t.Errorf("%v, %v", brake, err)
		}
		if _, err := f.admin.ReleaseBrake(f.t.Context(), &coordinatorv1.ReleaseBrakeRequest{Reason: "they burned"}); err != nil {
			f.t.Fatal(err)
		}
		f.settled(10*time.Second, without(all, dead...)...)
		f.consistent()
	})
}

// Neighbours that die together have nobody left who watches the inner ones, but
// for those that the closing ring gives them.
func TestNeighboursCrash(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 40)
		f.add(all...)
		f.settled(30*time.Second, all...)
		f.warm()
		f.unbraked()
		dead := f.ring()[10:15]
		begin := time.Now()
		f.crash(dead...)
		f.settled(5*time.Second, without(all, dead...)...)
		if took := time.Since(begin); took > 2500*time.Millisecond {
			f.t.Errorf("it took %s", took)
		}
		f.consistent()
		if got := len(f.removals()); got != 5 {
			f.t.Errorf("%d servers were removed", got)
		}
	})
}

// The coordinator's death and return remove nobody, and routing goes on.
func TestCoordinatorRestart(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 10)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		for range 3 {
			f.stopCoordinator()
			for range 20 {
				time.Sleep(time.Second)
				if active, _ := f.routed(); len(active) != 10 {
					f.t.Fatalf("routed to %v without a coordinator", active)
				}
			}
			f.startCoordinator()
			time.Sleep(30 * time.Second)
			f.settled(time.Second, all...)
			f.consistent()
		}
		// One that dies meanwhile is found afterwards.
		f.stopCoordinator()
		f.crash("web-3")
		time.Sleep(10 * time.Second)
		f.startCoordinator()
		f.settled(40*time.Second, without(all, "web-3")...)
		if got := f.removals(); !maps.Equal(got, map[string]int{"web-3": 1}) {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// An agent whose own probes all fail harms nobody.
func TestDeafObserver(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 8)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		suspect := f.disturbance(func() {
			f.network.set(func(n *network) { n.cut[[2]netip.Addr{f.servers["web-2"].address, {}}] = true })
			time.Sleep(2 * time.Minute)
		})
		if suspect > time.Second {
			f.t.Errorf("a server was suspect for %s", suspect)
		}
		f.settled(2*time.Second, all...)
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// A single bad edge harms nobody either.
func TestBadEdge(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 6)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		suspect := f.disturbance(func() {
			for _, from := range all {
				for _, to := range all {
					edge := [2]netip.Addr{f.servers[from].address, f.servers[to].address}
					f.network.set(func(n *network) { n.cut[edge] = true })
					time.Sleep(5 * time.Second)
					f.network.set(func(n *network) { delete(n.cut, edge) })
					time.Sleep(time.Second)
				}
			}
		})
		if suspect > time.Second {
			f.t.Errorf("a server was suspect for %s", suspect)
		}
		f.settled(2*time.Second, all...)
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// An agent that is killed alone harms nobody, and is resumed.
func TestAgentKilled(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 6)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		f.servers["web-4"].stop()
		time.Sleep(time.Minute)
		f.settled(time.Second, all...)
		f.startAgent("web-4")
		time.Sleep(5 * time.Second)
		f.consistent()
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// service is one that a server's agent checks.
type service struct {
	name string
	hung atomic.Bool
}

func (s *service) String() string { return s.name }

func (s *service) Run(ctx context.Context) error {
	if s.hung.Load() {
		<-ctx.Done()
	}
	return ctx.Err()
}

// A service that hangs on a host that answers pings is out of routing within 4 s,
// and its host stays in the ring.
func TestHungService(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 6)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		ring, web := f.ring(), &service{name: "http://service"}
		f.servers["web-3"].agent.Recheck(f.t.Context(), []daemon.Check{web})
		for _, after := range []time.Duration{10 * time.Second, 10*time.Second + time.Millisecond, 10500 * time.Millisecond} {
			time.Sleep(after)
			f.settled(0, all...)
			web.hung.Store(true)
			f.settled(4*time.Second, without(all, "web-3")...)
			time.Sleep(time.Minute)
			f.settled(0, without(all, "web-3")...)
			if now := f.ring(); !slices.Equal(now, ring) {
				f.t.Errorf("the ring was %v and is %v", ring, now)
			}
			web.hung.Store(false)
			f.settled(3*time.Second, all...)
		}
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// A service that hangs stays out of routing while its agent starts anew, and while
// the check that fails is replaced by another: neither has a result at first.
func TestHungServiceBehindANewCheck(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 6)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		web, another := &service{name: "http://service"}, &service{name: "http://service/health"}
		for _, s := range []*service{web, another} {
			s.hung.Store(true)
		}
		s := f.servers["web-3"]
		s.checks = []daemon.Check{web}
		s.agent.Recheck(f.t.Context(), s.checks)
		f.settled(4*time.Second, without(all, "web-3")...)
		staysOut := func(what string) {
			f.t.Helper()
			for range 200 {
				time.Sleep(50 * time.Millisecond)
				if active, _ := f.routed(); slices.Contains(active, "web-3") {
					f.t.Fatalf("routed after %s", what)
				}
			}
		}
		s.stop()
		f.startAgent("web-3")
		staysOut("its agent has started anew")
		s.agent.Recheck(f.t.Context(), []daemon.Check{another})
		staysOut("its check was replaced")
		another.hung.Store(false)
		f.settled(3*time.Second, all...)
	})
}

// A server that was cut off and taken out meanwhile is told so before it joins
// again; who shuts down, or was never taken out, is told nothing.
func TestRemovedServerIsTold(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 6)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		cut := f.servers["web-3"]
		state, _ := cut.state.Load()
		f.network.set(func(n *network) { n.down[cut.address] = true })
		f.settled(5*time.Second, without(all, "web-3")...)
		if len(cut.told) != 0 {
			f.t.Error("told while it was cut off")
		}
		f.network.set(func(n *network) { delete(n.down, cut.address) })
		select {
		case r := <-cut.told:
			if r.ID != "web-3" || r.Incarnation != state.Incarnation || r.Cause != member.CauseCrashed {
				f.t.Errorf("told %+v", r)
			}
		case <-time.After(time.Minute):
			f.t.Error("not told")
		}
		f.settled(time.Minute, all...)
		f.leave("web-5")
		time.Sleep(time.Minute)
		for id, s := range f.servers {
			if len(s.told) != 0 {
				f.t.Errorf("%s is told of %+v", id, <-s.told)
			}
		}
	})
}

// Every server is shut down and started again in turn; a client that asks all
// the time never gets one that has left.
func TestRollingRestart(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 6)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		for _, id := range all {
			f.leave(id)
			f.settled(time.Second, without(all, id)...)
			f.servers[id].boot++
			f.startAgent(id)
			f.settled(10*time.Second, all...)
		}
		f.consistent()
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
	})
}

// Small pools have rules of their own.
func TestSmallPools(t *testing.T) {
	for _, n := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inVirtualTime(t, func(f *fleet) {
				all := names("web", n)
				f.add(all...)
				f.settled(20*time.Second, all...)
				f.warm()
				f.crash("web-1")
				time.Sleep(20 * time.Second)
				active, others := f.routed()
				if n == 1 { // the last one is never removed
					if len(active) != 0 || !slices.Equal(others, all) {
						f.t.Errorf("routed to %v and %v", active, others)
					}
					return
				}
				if !slices.Equal(active, all[1:]) || len(others) != 0 {
					f.t.Errorf("routed to %v and %v", active, others)
				}
				f.consistent()
			})
		})
	}
}

// Many servers at once: no revision has a broken ring, and few are needed.
func TestBootstrap(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 80)
		begin := time.Now()
		f.add(all...)
		f.settled(10*time.Second, all...)
		if took := time.Since(begin); took > 5*time.Second {
			f.t.Errorf("it took %s", took)
		}
		f.consistent()
	})
}

// A database that hangs delays rows, not routing.
func TestStalledDatabase(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 8)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		release := f.table.hold()
		f.crash("web-3")
		steered := f.until(2*time.Second, func() error {
			if active, _ := f.routed(); slices.Contains(active, "web-3") {
				return fmt.Errorf("web-3 still gets work")
			}
			return nil
		})
		if steered > 800*time.Millisecond {
			f.t.Errorf("steered away after %s", steered)
		}
		time.Sleep(time.Minute)
		if active, others := f.routed(); slices.Contains(active, "web-3") || len(active) != 7 {
			f.t.Errorf("after a minute: %v and %v", active, others)
		}
		release()
		f.settled(5*time.Second, without(all, "web-3")...)
		f.consistent()
	})
}
