package simulate_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/buddyctl/command"
	"github.com/buddyring/buddyring/buddyctl/simulate"
	"github.com/buddyring/buddyring/internal/sim"
)

// run runs a command line and returns its output and exit status.
func run(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	code := command.Run(t.Context(), append([]string{"simulate"}, args...), command.World{Stdout: &out, Stderr: io.Discard}, simulate.Command())
	return out.String(), code
}

// small keeps the simulations short.
func small(args ...string) []string {
	return append([]string{"--servers", "24", "--settle", "5s", "--duration", "12s"}, args...)
}

func TestFlagsDoWhatTheySay(t *testing.T) {
	t.Parallel()
	for line, told := range map[string]string{
		"--crash 2":                          "2 servers crash, after 3s",
		"--crash-adjacent 3":                 "3 neighbours on the ring crash, after 3s",
		"--crash-rack":                       "rack-1 of zone-1 crashes, after 3s",
		"--loss 1%":                          "the network loses 1% of all packets each way",
		"--loss 1% --loss-model link-bursts": "in bursts of 200ms that lose 90% (link-bursts)",
		"--deaf 1":                           "1 server has an agent whose own probes all fail",
		"--deaf-pair 1":                      "both watchers of 1 server have an agent whose own probes all fail",
		"--liar 1 --lie random":              "1 server has an agent that lies about everybody: random",
		"--cut-coordinator 50%":              "50% of the servers are cut off from the coordinator",
		"--icmp-filter":                      "all servers have their ICMP dropped by a firewall",
		"--stall 2":                          "2 servers lose their network, after 3s, for 400ms, 9 times, every 1s others",
		"--pause 2":                          "2 servers have their agent stopped",
		"--starve 2":                         "2 servers have an agent that gets the processor late",
		"--commit-fail 20% --crash 1":        "20% of all commits fail",
		"--bootstrap":                        "all servers join an empty pool within 1s",
		"--chaos 10%":                        "10% of the agents' messages come twice, late, or out of order",
		"":                                   "nothing",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			out, code := run(t, small(strings.Fields(line)...)...)
			if code != 0 || !strings.Contains(out, told) || !strings.Contains(out, "Good: ") {
				t.Errorf("exit %d, want %q in\n%s", code, told, out)
			}
		})
	}
}

func TestSettingsAndFaultsAreGiven(t *testing.T) {
	t.Parallel()
	out, code := run(t, small("--crash", "1", "--set", "stall_tolerance=3s", "--json")...)
	var r struct {
		Good    bool
		Summary sim.Summary
		Runs    []sim.Result
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Fatalf("exit %d: %v in %s", code, err, out)
	}
	if ms := r.Summary.Removed.P50; !r.Good || ms < 3000 || ms > 4000 {
		t.Errorf("with a tolerance of 3 s a crash is removed after %v ms", ms)
	}
	out, _ = run(t, small("--fault", "unplug servers=3,4 at=1s for=400ms")...)
	if want := "servers [3 4] lose their network, after 1s, for 400ms"; !strings.Contains(out, want) {
		t.Errorf("want %q in\n%s", want, out)
	}
}

func TestAFailureCanBeReplayed(t *testing.T) {
	t.Parallel()
	trace := filepath.Join(t.TempDir(), "trace")
	args := []string{"--servers", "24", "--duration", "12s", "--crash", "3", "--set", "mode=shadow", "--seed", "7"}
	out, code := run(t, append(args, "--trace", trace)...)
	if code != 1 || !strings.Contains(out, "Bad: 0 healthy servers were removed, 3 dead ones were not") {
		t.Fatalf("exit %d:\n%s", code, out)
	}
	_, command, _ := strings.Cut(out, "To see a failing run again:\n  buddyctl simulate ")
	command, _, _ = strings.Cut(command, "\n")
	var again []string
	for i, part := range strings.Split(command, `"`) {
		if i%2 == 0 {
			again = append(again, strings.Fields(part)...)
		} else {
			again = append(again, part)
		}
	}
	hash := func(args []string) string {
		out, _ := run(t, append(args, "--json")...)
		var r struct{ Runs []sim.Result }
		if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Runs) != 1 {
			t.Fatalf("%v: %v in %s", args, err, out)
		}
		return r.Runs[0].Hash
	}
	if hash(args) != hash(again) {
		t.Errorf("this is another run: %s", command)
	}
	text, err := os.ReadFile(trace)
	if err != nil || !strings.Contains(string(text), "FAULT") || !strings.Contains(string(text), "not_removed") {
		t.Errorf("%v, the trace is\n%.1000s", err, text)
	}
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	for line, named := range map[string]string{
		"--servers 0":                           "servers: 0 is not from 1",
		"--loss 120%":                           "loss: ",
		"--loss x":                              "loss: ",
		"--loss-model fractal":                  "loss-model: ",
		"--cut-coordinator 2":                   "cut-coordinator: ",
		"--lie sometimes":                       "lie: ",
		"--set colour=red":                      "set: ",
		"--set brake_percent":                   "set: ",
		"--set brake_percent=200":               "brake_percent",
		"--seeds 0":                             "seeds: ",
		"--duration 0":                          "duration: 0s is less than 1ms",
		"--duration -5s":                        "duration: -5s is less than 1ms",
		"--settle -1s":                          "settle: ",
		"--crash -1":                            "crash: -1 is not from 0 to 100, the size of the pool",
		"--servers 10 --crash 99":               "crash: 99 is not from 0 to 10",
		"--servers 10 --deaf 11":                "deaf: ",
		"--servers 10 --crash-adjacent 11":      "crash-adjacent: ",
		"--crash-zone --zones 0":                "crash-zone: ",
		"--crash-rack --racks 0":                "crash-rack: ",
		"--fault burn":                          "fault: ",
		"--servers 10 --fault crash=11":         "fault: ",
		"--trace /nonexistent/x":                "trace: ",
		"--script /nonexistent/x":               "script: ",
		"--script /nonexistent/x --servers 251": "script: a scenario script has at most 250 servers",
		"--script /nonexistent/x --suspend 1":   "script: scenario scripts have no word for suspend",
		"more":                                  "more",
	} {
		var out, told bytes.Buffer
		world := command.World{Stdout: &out, Stderr: &told}
		code := command.Run(t.Context(), append([]string{"simulate"}, strings.Fields(line)...), world, simulate.Command())
		if code != 2 || out.Len() > 0 || !strings.Contains(told.String(), named) {
			t.Errorf("%s: exit %d, %s\n%s", line, code, told.String(), out.String())
		}
	}
	for _, fault := range []string{"crash count=11", "crash servers=3,11", "deafen watchers=11", "crash", "make-liar count=1"} {
		if _, code := run(t, "--servers", "10", "--fault", fault); code != 2 {
			t.Errorf("--fault %s: exit %d", fault, code)
		}
	}
}
