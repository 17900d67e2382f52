package server_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// inDoubt runs a test on a pool of five in which web-3 hangs, by whose removal the
// database goes away. The removal is in the table or not.
func inDoubt(t *testing.T, isIn bool, test func(w *world, table *table, hung *agent)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5")
		r := w.newRouter("r1").subscribe()
		time.Sleep(20 * time.Second)
		table.crash(isIn)
		agents[2].crash()
		r.holdsSuspect("web-3", true, 2*time.Second)
		time.Sleep(time.Second)
		test(w, table, agents[2])
	})
}

// keeps fails the test if web-3 is removed within half a minute.
func (w *world) keeps() {
	w.t.Helper()
	time.Sleep(30 * time.Second)
	if got := w.phases()["web-3"]; got != pb.Phase_PHASE_ACTIVE {
		w.t.Errorf("web-3 is %s", got)
	}
	if got := w.metric("buddyring_removals_total"); got != 0 {
		w.t.Errorf("%v were removed", got)
	}
	if got := w.alarms(); len(got) != 0 {
		w.t.Errorf("alarms: %v", got)
	}
	w.consistent()
}

// A removal whose COMMIT is lost is not made minutes later, when the server has long
// been back.
func TestReturnWhileARemovalIsInDoubt(t *testing.T) {
	inDoubt(t, false, func(w *world, table *table, hung *agent) {
		time.Sleep(time.Second)
		hung.revive()
		newcomer := w.newAgent("web-6")
		newcomer.connect()
		if err := <-newcomer.over; !errors.Is(err, member.ErrUnavailable) {
			w.t.Errorf("join: %v", err)
		}
		time.Sleep(5 * time.Minute)
		table.fail(nil)
		w.keeps()
		newcomer.connect()
		w.allActive("web-6")
	})
}

// One that is still dead is verified anew, and removed.
func TestRemovalAfterADoubt(t *testing.T) {
	inDoubt(t, false, func(w *world, table *table, _ *agent) {
		time.Sleep(5 * time.Minute)
		table.fail(nil)
		w.gone("web-3", 5*time.Second)
		w.consistent()
	})
}

// One that is in the table is found there.
func TestRemovalThatWasInDoubtIsFound(t *testing.T) {
	inDoubt(t, true, func(w *world, table *table, _ *agent) {
		before := ringOf(w.t, w).GetRevision()
		time.Sleep(time.Minute)
		table.fail(nil)
		w.gone("web-3", 5*time.Second)
		if got := ringOf(w.t, w).GetRevision(); got != before+1 {
			w.t.Errorf("revision %d after %d", got, before)
		}
		w.consistent()
	})
}

// A removal that hangs in the database for longer than its verdict is worth is not
// made when that goes on.
func TestReturnWhileARemovalHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5")
		time.Sleep(20 * time.Second)
		release := table.hold()
		agents[2].crash()
		time.Sleep(3 * time.Second)
		agents[2].revive()
		time.Sleep(3 * time.Second)
		release()
		w.keeps()
	})
}
