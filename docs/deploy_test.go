package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	agent "github.com/buddyring/buddyring/agent/daemon"
	coordinator "github.com/buddyring/buddyring/coordinator/server"
	router "github.com/buddyring/buddyring/router/server"
)

// services are the programs that have a unit and a sample of their settings.
var services = map[string]func() *cobra.Command{
	"coordinator": func() *cobra.Command { return coordinator.Command(nil, nil) },
	"router":      func() *cobra.Command { return router.Command(nil, nil) },
	"agent":       func() *cobra.Command { return agent.Command(nil, nil) },
}

// flagsOf are all flags of a program's command line.
func flagsOf(t *testing.T, program string) *pflag.FlagSet {
	t.Helper()
	cmd := services[program]()
	if err := cmd.ParseFlags(nil); err != nil {
		t.Fatal(err)
	}
	return cmd.Flags()
}

func readDeploy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// unit are the settings of a unit by their names, each with all its values.
func unit(t *testing.T, program string) map[string][]string {
	t.Helper()
	settings := map[string][]string{}
	for line := range strings.Lines(readDeploy(t, "systemd/buddyring-"+program+".service")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return settings
}

// A unit starts a command line that there is, with the file of which there is a
// sample, in the directory that the sample names.
func TestUnits(t *testing.T) {
	t.Parallel()
	for program, command := range services {
		settings := unit(t, program)
		words := strings.Fields(strings.Join(settings["ExecStart"], " "))
		want := []string{"/usr/local/bin/buddyring-" + program, "--config", "/etc/buddyring/" + program + ".yaml"}
		if !slices.Equal(words, want) {
			t.Errorf("%s starts %q, want %q", program, words, want)
		}
		if err := usable(command(), want[1:]); err != nil {
			t.Errorf("%s: %v", program, err)
		}
		var sample map[string]any
		if err := yaml.Unmarshal([]byte(readDeploy(t, "etc/"+program+".yaml")), &sample); err != nil {
			t.Fatal(err)
		}
		if dir := "/var/lib/" + strings.Join(settings["StateDirectory"], ""); sample["state-dir"] != dir {
			t.Errorf("%s: the unit's state is in %s, the sample's in %v", program, dir, sample["state-dir"])
		}
	}
}

// The limits of the units are those that the programs need with their defaults.
func TestLimitsOfUnits(t *testing.T) {
	t.Parallel()
	const spare = 300
	for program, want := range map[string]int{
		"coordinator": coordinator.DefaultConnections().Total + spare,
		"router":      3*router.DefaultConnections().Total + spare, // gRPC, HTTP and web
	} {
		if got := unit(t, program)["LimitNOFILE"]; !slices.Equal(got, []string{strconv.Itoa(want)}) {
			t.Errorf("%s: %v open files, want %d", program, got, want)
		}
	}
	var leave time.Duration
	for _, name := range []string{"drain-timeout", "leave-timeout"} {
		d, err := time.ParseDuration(flagsOf(t, "agent").Lookup(name).DefValue)
		if err != nil {
			t.Fatal(err)
		}
		leave += d
	}
	stop, err := strconv.Atoi(strings.Join(unit(t, "agent")["TimeoutStopSec"], ""))
	if err != nil || time.Duration(stop)*time.Second <= leave {
		t.Errorf("the agent is killed after %d s (%v), and may need %v", stop, err, leave)
	}
}

// Every key of a sample is a flag that takes its value.
func TestSampleSettings(t *testing.T) {
	t.Parallel()
	// An example that is commented out counts as well.
	comment := regexp.MustCompile(`(?m)^# ([a-z-]+: \S+)$`)
	for program := range services {
		text := comment.ReplaceAllString(readDeploy(t, "etc/"+program+".yaml"), "$1")
		var sample map[string]any
		if err := yaml.Unmarshal([]byte(text), &sample); err != nil {
			t.Fatal(err)
		}
		flags := flagsOf(t, program)
		for key, value := range sample {
			values, ok := value.([]any)
			if !ok {
				values = []any{value}
			}
			for _, v := range values {
				if s, ok := v.(string); !ok {
					t.Errorf("%s: %s is %v", program, key, v)
				} else if err := flags.Set(key, s); err != nil {
					t.Errorf("%s: %s: %v", program, key, err)
				}
			}
		}
	}
}

// alerts are the rules for Prometheus.
type alerts struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations struct{ Summary, Runbook string }
		}
	}
}

// Alerts are about metrics that there are, every alarm is in one of them, and each
// leads to a text that there is.
func TestAlerts(t *testing.T) {
	t.Parallel()
	var a alerts
	if err := yaml.Unmarshal([]byte(readDeploy(t, "alerts.yml")), &a); err != nil {
		t.Fatal(err)
	}
	source, known := sources(t), coordinator.AlarmNames()
	grave := regexp.MustCompile(`name([!=])~"([A-Z_|]+)"`)
	var lists []string
	for _, r := range a.Groups[0].Rules {
		names := metric.FindAllString(r.Expr, -1)
		for _, name := range names {
			if !made(source, name) {
				t.Errorf("%s asks for the metric %s", r.Alert, name)
			}
		}
		if len(names) == 0 && !strings.HasPrefix(r.Expr, "up{") {
			t.Errorf("%s asks for no metric of ours", r.Alert)
		}
		if m := grave.FindStringSubmatch(r.Expr); m != nil {
			lists = append(lists, m[1]+m[2])
		}
		file, anchor, _ := strings.Cut(r.Annotations.Runbook, "#")
		there := anchors(t, filepath.Join(root, file))
		if anchor == "{{ toLower $labels.name }}" || anchor == "" {
			continue
		}
		if !slices.Contains(there, anchor) {
			t.Errorf("%s: %s has no %s", r.Alert, file, anchor)
		}
	}
	if len(lists) != 2 || lists[0][0] != '!' || lists[1][0] != '=' || lists[0][1:] != lists[1][1:] {
		t.Fatalf("not the same alarms are left out of one rule and in the other: %q", lists)
	}
	for name := range strings.SplitSeq(lists[0][1:], "|") {
		if !slices.Contains(known, name) {
			t.Errorf("there is no alarm %s", name)
		}
	}
}
