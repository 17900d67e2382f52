//go:build lab && linux

package lab_test

import (
	"os"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab/doors"
)

// TestNothingFailsUnderLoad: a pool behind two routers, with clients that use it by
// every door all the time. Restarts of servers that are drained, the loss of a
// router, and the loss of coordinator and database cost nothing; a crash costs what
// comes before its suspect mark.
func TestNothingFailsUnderLoad(t *testing.T) {
	t.Parallel()
	underLoad(t, true)
}

// TestNothingFailsWithoutDNS: restarts cost nothing either where no acknowledgement
// waits for the time to live of an answer. But nobody waits for the answer to a Pick that
// is on its way: the caller may find a server that has stopped since.
func TestNothingFailsWithoutDNS(t *testing.T) {
	t.Parallel()
	underLoad(t, false)
}

func underLoad(t *testing.T, dns bool) {
	t.Helper()
	cfg := doors.Config{
		Bin: os.Getenv(binEnv), Dir: t.TempDir(), HAProxy: "../../deploy/haproxy.cfg", Servers: 5, DNS: dns,
		Router: watched(2*time.Second, 10*time.Second), Coordinator: watched(4*time.Second, time.Minute), Progress: t.Output(),
	}
	report, err := doors.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Write(t.Output()); err != nil {
		t.Fatal(err)
	}
	for _, e := range report.Experiments {
		for _, o := range e.Doors {
			checkOutcome(t, report, e, o)
		}
	}
}

// checkOutcome: what was chosen after the suspect mark of a crash may not fail, but
// for what HAProxy sends before it asks again. The mark has to reach the clients, on
// a machine that may be busy.
func checkOutcome(t *testing.T, r *doors.Report, e doors.Experiment, o doors.Outcome) {
	t.Helper()
	switch {
	case o.Asked == 0:
		t.Errorf("%s, %s: nobody has asked", e.Name, o.Door)
	case o.Failed == 0:
	case !e.Crash && !r.DNS && o.Door == doors.Pick && o.Failed <= r.Servers:
		// One for each server restarted: see TestNothingFailsWithoutDNS.
	case !e.Crash:
		t.Errorf("%s, %s: %d of %d failed: %q", e.Name, o.Door, o.Failed, o.Asked, o.Errors)
	case e.Suspect == 0:
		t.Errorf("%s: there was no suspect mark", e.Name)
	case o.Door != doors.HAProxy && o.Last > e.Suspect+watched(3*time.Second, 250*time.Millisecond):
		t.Errorf("%s, %s: failed what was chosen %v after it, suspect after %v: %q", e.Name, o.Door, o.Last, e.Suspect, o.Errors)
	}
}
