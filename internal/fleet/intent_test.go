package fleet_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// intend sets a wish; a zero life has no end.
func (f *fleet) intend(id string, wish coordinatorv1.Wish, life time.Duration) {
	f.t.Helper()
	req := &coordinatorv1.SetIntentRequest{ServerId: id, Wish: wish, Reason: "work"}
	if life > 0 {
		req.ExpiresIn = durationpb.New(life)
	}
	if _, err := f.admin.SetIntent(f.t.Context(), req); err != nil {
		f.t.Fatal(err)
	}
}

// states are the members with their wishes and phases.
func (f *fleet) states() map[string]string {
	f.t.Helper()
	res, err := f.admin.ListServers(f.t.Context(), &coordinatorv1.ListServersRequest{Pool: "default"})
	if err != nil {
		f.t.Fatal(err)
	}
	states := map[string]string{}
	for _, s := range res.GetServers() {
		states[s.GetServerId()] = s.GetIntent().String() + " " + s.GetPhase().String()
	}
	return states
}

// have waits until these are the members with their wishes and phases.
func (f *fleet) have(within time.Duration, want map[string]string) {
	f.t.Helper()
	f.until(within, func() error {
		if got := f.states(); !maps.Equal(got, want) {
			return fmt.Errorf("the members are %v, want %v", got, want)
		}
		return nil
	})
}

const (
	plain      = "WISH_ACTIVE PHASE_ACTIVE"
	drained    = "WISH_DRAIN PHASE_DRAINING"
	maintained = "WISH_MAINTENANCE PHASE_ACTIVE"
)

// Every kind of wish outlives what can happen to a coordinator, its database and
// a server: a restart, the restore of a backup into another database, and a
// server that is removed, crashes, reboots, or shuts down and comes back.
func TestIntentsSurvive(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		all := names("web", 6)
		f.add(all...)
		f.settled(20*time.Second, all...)
		f.warm()
		f.intend("web-1", coordinatorv1.Wish_WISH_DRAIN, 0)
		f.intend("web-2", coordinatorv1.Wish_WISH_MAINTENANCE, 0)
		f.intend("web-3", coordinatorv1.Wish_WISH_BANNED, 0)
		f.intend("late", coordinatorv1.Wish_WISH_BANNED, 0)
		f.intend("web-4", coordinatorv1.Wish_WISH_MAINTENANCE, 10*time.Minute)
		ends := time.Now().Add(10 * time.Minute)
		f.add("late")
		want := map[string]string{"web-1": drained, "web-2": maintained, "web-4": maintained, "web-5": plain, "web-6": plain}
		for _, step := range []struct {
			what string
			do   func()
		}{
			{"nothing", func() {}},
			{"a restart", func() {
				f.stopCoordinator()
				f.startCoordinator()
			}},
			{"a backup and another database", func() {
				backup := f.backup()
				f.stopCoordinator()
				f.restore(backup)
				f.startCoordinator()
			}},
			{"a removal", func() { f.take("web-1", "web-2") }},
			{"a reboot", func() {
				f.crash("web-1", "web-2")
				time.Sleep(2 * time.Second)
				f.reboot("web-1")
				f.reboot("web-2")
			}},
			{"a shutdown", func() {
				for _, id := range []string{"web-1", "web-2"} {
					f.leave(id)
					f.startAgent(id)
				}
			}},
		} {
			step.do()
			f.have(time.Minute, want)
			f.warm()
			// Who is banned has asked to join all the time.
			f.have(0, want)
			f.t.Logf("after %s: as before", step.what)
		}
		f.crash("web-2")
		time.Sleep(time.Minute)
		f.have(0, want) // it is not judged
		f.reboot("web-2")
		time.Sleep(time.Until(ends))
		want["web-4"] = plain
		f.have(time.Second, want)
		f.intend("late", coordinatorv1.Wish_WISH_ACTIVE, 0)
		want["late"] = plain
		f.have(40*time.Second, want) // whoever is refused comes back twice a minute
		f.consistent()
		if active, _ := f.routed(); slices.Contains(active, "web-1") || !slices.Contains(active, "web-2") {
			f.t.Errorf("routed to %v", active)
		}
	})
}

// take has an operator remove servers, whose agents join again at once.
func (f *fleet) take(ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		if _, err := f.admin.RemoveServer(f.t.Context(), &coordinatorv1.RemoveServerRequest{ServerId: id}); err != nil {
			f.t.Fatal(err)
		}
	}
}
