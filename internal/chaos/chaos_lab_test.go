//go:build lab && mariadb

package chaos_test

import (
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/chaos"
)

// progress writes into a test's log.
type progress struct{ t *testing.T }

func (p progress) Write(line []byte) (int, error) {
	p.t.Logf("%s", line)
	return len(line), nil
}

// TestLeaderKilledStoppedAndReplaced is the experiment of "make chaos" in short.
// Its figures are no test: machines are shared. What must not be is.
func TestLeaderKilledStoppedAndReplaced(t *testing.T) {
	t.Parallel()
	cfg := chaos.Config{
		Bin: t.TempDir(), Dir: t.TempDir(), Coordinators: 3, Servers: 30, Progress: progress{t},
		Agents: 4, Kills: 3, Handovers: 2, Stops: 1, Cuts: 1, Outages: 2, StopFor: 6 * time.Second, Crashes: 1,
	}
	for _, program := range []string{"coordinator", "agent", "router"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(cfg.Bin, "buddyring-"+program), "./"+program)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	report, err := chaos.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := report.Write(progress{t}); err != nil {
		t.Fatal(err)
	}
	if n := report.Wrong(); n != 0 {
		t.Errorf("%d things went wrong", n)
	}
	if report.Joins <= cfg.Servers || report.Leaves == 0 || report.Intents == 0 || int(report.Epochs) < 8 {
		t.Error("too little has happened to show anything")
	}
}
