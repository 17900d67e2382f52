//go:build lab && linux && amd64

package lab_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/wallclock"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// clocks are the wall clocks of the programs, by name.
type clocks map[string]*wallclock.Clock

// clocks takes over those of the coordinator, the router and one agent.
func (w *world) clocks(agent string) clocks {
	w.t.Helper()
	all := clocks{}
	for name, pid := range map[string]int{
		"coordinator": w.Coordinator().Pid(), "router": w.RouterProcess(0).Pid(), "agent": w.agents[agent].Pid(),
	} {
		clock, err := wallclock.Of(pid)
		if err != nil {
			w.t.Fatal(err)
		}
		all[name] = clock
	}
	return all
}

func (all clocks) set(t *testing.T, name string, ahead time.Duration) {
	t.Helper()
	if err := all[name].Set(ahead); err != nil {
		t.Fatal(err)
	}
}

// revision is that of the pool: each change of a row raises it.
func (w *world) revision() uint64 {
	w.t.Helper()
	answer, err := w.Admin().GetRing(w.t.Context(), &coordinatorv1.GetRingRequest{Pool: lab.Pool})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetRevision()
}

func TestClocksThatAreSetChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5)
	all := w.clocks("web-1")
	ring, revision := w.ring(), w.revision()
	for _, name := range []string{"coordinator", "router", "agent"} {
		for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute, 0} {
			all.set(t, name, ahead)
			w.watch(watched(time.Second, 10*time.Second))
			w.watchRouter(watched(500*time.Millisecond, 5*time.Second))
		}
	}
	w.settled()
	sameRing(t, ring, w.ring())
	if now := w.revision(); now != revision {
		t.Errorf("revision %d after %d: something was changed", now, revision)
	}
}

// TestCrashBesideClocksThatDiffer is of a server that crashes and comes back while
// the clocks of coordinator, router, one agent and the other agents all differ. While it is held, the coordinator's clock is
// set once more, or another coordinator takes over, whose clock is right.
func TestCrashBesideClocksThatDiffer(t *testing.T) {
	t.Parallel()
	restart := func(w *world, _ clocks) { w.kill() }
	for name, test := range map[string]struct {
		ahead time.Duration
		then  func(*world, clocks)
	}{
		"ahead, then behind":      {10 * time.Minute, func(w *world, all clocks) { all.set(w.t, "coordinator", -10*time.Minute) }},
		"behind, then ahead":      {-10 * time.Minute, func(w *world, all clocks) { all.set(w.t, "coordinator", 10*time.Minute) }},
		"ahead, then another one": {10 * time.Minute, restart},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 5)
			all := w.clocks("web-1")
			all.set(t, "coordinator", test.ahead)
			all.set(t, "router", -test.ahead)
			all.set(t, "agent", 2*test.ahead)
			w.crashAndReturn("web-2")
			removals, err := w.Removals(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ahead := time.Until(removals[0].GetAt().AsTime()); (ahead - test.ahead).Abs() > time.Minute {
				t.Fatalf("the coordinator's clock is %s ahead: its own should be set", ahead)
			}
			begin := time.Now()
			test.then(w, all)
			w.settled()
			// Its hold-down is 5 s.
			if d := time.Since(begin); d < 3*time.Second {
				t.Errorf("it was held for %s only", d)
			}
			w.await("the router's view", w.routed)
		})
	}
}
