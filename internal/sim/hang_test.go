package sim_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/sim"
)

// A server that comes back while its removal hangs in the database stays.
func TestReturnWhileTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	o := sim.DefaultOptions(12)
	o.Duration = 20 * time.Second
	o.Store.HangAt, o.Store.HangFor = time.Second, 6*time.Second
	f, err := sim.ParseFault("fault", "suspend count=1 at=1s for=3s")
	if err != nil {
		t.Fatal(err)
	}
	o.Faults = []sim.Fault{f}
	if r := run(t, o); r.FewestActive == 12 || r.Revisions > 0 {
		t.Errorf("%d were removed, at the least %d were active", r.Revisions, r.FewestActive)
	}
}
