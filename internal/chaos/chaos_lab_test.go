//go:build lab && mariadb

package chaos_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/chaos"
	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/wallclock"
)

// progress writes into a test's log.
type progress struct{ t *testing.T }

func (p progress) Write(line []byte) (int, error) {
	p.t.Logf("%s", line)
	return len(line), nil
}

// build builds the programs.
func build(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	for _, program := range []string{"coordinator", "agent", "router"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, "buddyring-"+program), "./"+program)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
	}
	return bin
}

// place is a folder that stays when the test fails, with the history and the logs.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos-") //nolint:usetesting // it stays when the test fails
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the history and the logs are in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// forClientsAndOperators wants that enough has happened for them to show anything.
func forClientsAndOperators(t *testing.T, report chaos.Report) {
	t.Helper()
	for _, kind := range history.OrderKinds() {
		if report.Orders[kind] == 0 {
			t.Errorf("no operator's %s was acknowledged", kind)
		}
	}
	if h := report.History; h.Compared < 100 || h.Resumed == 0 {
		t.Errorf("%d messages to clients of routers were compared, %d streams resumed", h.Compared, h.Resumed)
	}
}

// TestFaults is the experiment of "make chaos" in short. Its figures are no test:
// machines are shared. What must not be is.
func TestFaults(t *testing.T) {
	t.Parallel()
	bin, clocks := build(t), 0
	if wallclock.Known {
		clocks = 4
	}
	for name, c := range map[string]struct {
		cfg chaos.Config
		// epochs are those that there must have been.
		epochs uint64
	}{
		"histories": {chaos.Config{Servers: 20, Watchers: 3, Kills: 1, Handovers: 1, Crashes: 1, Wave: 40}, 4},
		"slow links": {chaos.Config{
			Servers: 20, Watchers: 2, Agents: 4, Routers: 2, Slows: 3, StopFor: 4 * time.Second,
		}, 1},
		"all": {chaos.Config{
			Servers: 30, Watchers: 2, Agents: 4, Routers: 2, Kills: 2, Handovers: 2, Stops: 1, Cuts: 1, Outages: 2, Clocks: clocks,
			StopFor: 6 * time.Second,
		}, 7},
		"programs beside the leader": {chaos.Config{
			Servers: 10, Watchers: 1, Agents: 4, Routers: 2, Kills: 1, Others: 6, StopFor: 5 * time.Second,
		}, 2},
		"galera": {chaos.Config{
			Servers: 20, Watchers: 2, Agents: 4, Routers: 2, Galera: true, Kills: 1, Crashes: 1, Wave: 20, Outages: 1, Nodes: 6, Hosts: 1,
			StopFor: 5 * time.Second,
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.cfg.Bin, c.cfg.Dir, c.cfg.Seed, c.cfg.Coordinators, c.cfg.Progress = bin, place(t), 1, 3, progress{t}
			c.cfg.Command = "go test -tags 'lab mariadb' -run '" + t.Name() + "' ./internal/chaos"
			report, runErr := chaos.Run(t.Context(), c.cfg)
			if err := report.Write(progress{t}); runErr != nil || err != nil {
				t.Fatal(runErr, err)
			}
			if n := report.Wrong(); n != 0 {
				t.Errorf("%d things went wrong", n)
			}
			if c.cfg.Routers > 0 {
				forClientsAndOperators(t, report)
			}
			if report.Joins <= c.cfg.Servers || report.Leaves == 0 || report.Epochs < c.epochs ||
				report.Clocks != c.cfg.Clocks || report.Others != c.cfg.Others || report.Nodes != c.cfg.Nodes || report.Slows != c.cfg.Slows ||
				c.cfg.Stops > 0 && (report.Visits.Agents == 0 || report.Visits.Routers == 0) || report.History.Unknown == 0 || report.History.Messages < 100 || report.History.Streams <= c.cfg.Watchers {
				t.Error("too little has happened to show anything")
			}
		})
	}
	t.Run("a database that answers before it has written", func(t *testing.T) {
		t.Parallel()
		report, err := chaos.Run(t.Context(), chaos.Config{
			Bin: bin, Dir: place(t), Seed: 1, Coordinators: 2, Servers: 10, Watchers: 2, Crashes: 1, Wave: 40, Unsafe: true, Progress: progress{t},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := report.Write(progress{t}); err != nil {
			t.Fatal(err)
		}
		if len(report.Lost) == 0 || !slices.ContainsFunc(report.Breaches, func(b string) bool { return strings.HasPrefix(b, "linearizable") }) {
			t.Error("what it has lost is not noticed")
		}
	})
}
