package command_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/buddyctl/internal/golden"
	"github.com/buddyring/buddyring/buddyctl/output"
)

var update = flag.Bool("update", false, "write the golden files")

// reads are the commands that look, each with its golden file.
var reads = map[string][]string{
	"status":      {"status"},
	"pools":       {"pools"},
	"pools_get":   {"pools", "get", "default"},
	"servers":     {"servers"},
	"servers_get": {"servers", "get", "db-5"},
	"ring":        {"ring"},
	"check":       {"check"},
	"explain":     {"explain", "db-6"},
	"events":      {"events"},
	"events_last": {"events", "--last", "3"},
	"alarms":      {"alarms"},
	"intents":     {"intents"},
	"brake":       {"brake"},
	"routers":     {"routers"},
	"sessions":    {"sessions"},
	"pick":        {"pick", "-n", "3"},
	"pick_all":    {"pick", "--all"},
}

func busy(t *testing.T) (*network, *fakeAdmin) {
	t.Helper()
	n, admin := &network{}, busyAdmin()
	n.serve(t, "127.0.0.1:7401", admin, nil)
	n.serve(t, "127.0.0.1:7500", nil, busyRouter())
	return n, admin
}

func TestTables(t *testing.T) {
	t.Parallel()
	n, _ := busy(t)
	for name, args := range reads {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := n.run(t, args...)
			if r.code != 0 || r.stderr != "" {
				t.Errorf("exit %d, stderr %q", r.code, r.stderr)
			}
			golden.Compare(t, name+".txt", r.stdout, *update)
		})
	}
}

func TestJSONAndYAML(t *testing.T) {
	t.Parallel()
	n, _ := busy(t)
	for _, format := range []string{"json", "yaml"} {
		for name, args := range reads {
			t.Run(name+"_"+format, func(t *testing.T) {
				t.Parallel()
				r := n.run(t, append(args, "-o", format)...)
				if r.code != 0 || r.stderr != "" {
					t.Errorf("exit %d, stderr %q", r.code, r.stderr)
				}
				golden.Compare(t, name+"."+format, r.stdout, *update)
			})
		}
	}
}

func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	n, _ := busy(t)
	for name, args := range reads {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := n.runOn(t, output.Terminal{Width: 80}, args...)
			for line := range strings.Lines(r.stdout) {
				if got := len([]rune(strings.TrimRight(line, "\n"))); got > 80 {
					t.Errorf("%d columns: %q", got, line)
				}
			}
		})
	}
}
