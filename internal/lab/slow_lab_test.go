//go:build lab && linux

package lab_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// TestSlowLinks is of agents and routers that are far away from the coordinator. A crash
// is noticed and told that much later. On another continent it is removed, too; on links
// on which no round comes to its end, it is avoided until the links are better. Those of
// two agents are so slow that every acknowledgement comes too late: that is an alarm.
// Nobody else is removed.
func TestSlowLinks(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, 10, 2, "detour")
	a, _ := w.audience(2)
	before := w.ring()
	detour, err := w.Host("detour").Detour()
	if err != nil {
		t.Fatal(err)
	}
	slow := func(delay time.Duration, hosts ...string) {
		t.Helper()
		for _, host := range hosts {
			if err := detour.Between(w.Host(host), w.CoordinatorHost(), delay); err != nil {
				t.Fatal(err)
			}
		}
	}
	avoided := func(server string, delay time.Duration) {
		t.Helper()
		a.crash(server)
		for i := range 2 {
			took, marked := a.steers(i, server)
			t.Logf("%v each way: router %d steered away after %v", delay, i+1, took.Round(time.Millisecond))
			// What two buddies say comes late, and so does what the router hears of it.
			if most := watched(3*time.Second, time.Second) + 2*delay; !marked || took > most {
				t.Errorf("router %d steered away after %v, by a mark: %t; want a mark, within %v", i+1, took, marked, most)
			}
		}
	}
	all := append(names(10), "router-1", "router-2")

	slow(60*time.Millisecond, all...)
	w.watch(2 * time.Second)
	w.settled()
	sameRing(t, before, w.ring())
	w.await("no alarms", func(ctx context.Context) error { return w.onlyAlarms(ctx) })
	avoided("web-5", 60*time.Millisecond)
	for i := range 2 {
		a.removed(i, "web-5")
	}
	w.settled()

	slow(250*time.Millisecond, all...)
	row := w.row("web-8")
	far := slices.DeleteFunc(slices.Clone(w.servers), func(server string) bool {
		return slices.Contains([]string{"web-8", row.GetFirstBuddy(), row.GetSecondBuddy()}, server)
	})[:2]
	slow(1500*time.Millisecond, far...)
	time.Sleep(time.Second)
	avoided("web-8", 250*time.Millisecond)
	for _, server := range far {
		w.await("the alarm of an agent that hears nothing in time", func(ctx context.Context) error { return w.alarmed(ctx, "AGENT_DOWN", server) })
	}
	time.Sleep(watched(0, time.Minute))
	for i := range 2 {
		w.await("one suspect", func(ctx context.Context) error { return w.suspects(ctx, i, "web-8") })
	}
	w.onlyRemoved("web-5")
	w.await("no alarms but of agents", func(ctx context.Context) error { return w.onlyAlarms(ctx, "AGENT_DOWN") })
	if err := detour.Close(); err != nil {
		t.Fatal(err)
	}
	w.settled()
	w.onlyRemoved("web-5", "web-8")
	if status, err := w.Coordinators()[0].Status(t.Context()); err != nil || status.GetEpoch() != 1 {
		t.Errorf("epoch %d, %v; want the first", status.GetEpoch(), err)
	}
}

// suspects says what is wrong when a router calls another server suspect than this one,
// or not this one.
func (w *world) suspects(ctx context.Context, router int, server string) error {
	answer, err := w.Router(router).Resolve(ctx, &routerv1.ResolveRequest{Pool: lab.Pool})
	if err != nil {
		return err
	}
	var all []string
	for _, s := range answer.GetServers() {
		if s.GetState() == routerv1.State_STATE_SUSPECT {
			all = append(all, s.GetServerId())
		}
	}
	if !slices.Equal(all, []string{server}) {
		return fmt.Errorf("router %d calls %q suspect, want %s", router+1, all, server)
	}
	return nil
}

// onlyAlarms says which alarms there are but those of these names.
func (w *world) onlyAlarms(ctx context.Context, names ...string) error {
	answer, err := w.Admin().ListAlarms(ctx, &coordinatorv1.ListAlarmsRequest{})
	if err != nil {
		return err
	}
	for _, alarm := range answer.GetAlarms() {
		if !slices.Contains(names, alarm.GetName()) {
			return fmt.Errorf("alarm: %v", alarm)
		}
	}
	return nil
}
