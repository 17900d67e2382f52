//go:build lab && mariadb

package coordbench_test

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/bench/coordbench"
)

// TestCoordinatorUnderManyAgents is "make bench-coordinator" in short. Its figures
// are no test: machines are shared. That nobody is removed, that rings are valid
// and that routers share a snapshot is one.
func TestCoordinatorUnderManyAgents(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "buddyring-coordinator"), "./coordinator")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	figures := map[string]float64{}
	for _, e := range coordbench.All(coordbench.Options{
		Bin: bin, Agents: 300, Subscribers: 50, Rest: time.Second, Settle: 500 * time.Millisecond,
	}) {
		rows, err := e.Run(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", e.ID, err)
		}
		for _, r := range rows {
			t.Logf("%s: %s", r.Experiment, r.Measured)
			for name, v := range r.Figures {
				figures[name] += v
			}
		}
	}
	for name, want := range map[string]float64{"removed": 0, "coalesced": 0, "questions": 0, "encoded": 1} {
		if got, ok := figures[name]; !ok || got != want {
			t.Errorf("%s is %v instead of %v", name, got, want)
		}
	}
	for _, name := range []string{"joins_per_second", "back_seconds", "snapshots_seconds", "bytes_each"} {
		if figures[name] <= 0 {
			t.Errorf("%s is %v", name, figures[name])
		}
	}
	// Over a second at rest it may be less than the clock of the processor shows.
	if cores, ok := figures["cores"]; !ok || cores < 0 {
		t.Errorf("cores is %v", cores)
	}
}
