package command_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// candidates are what a shell is offered.
func (n *network) candidates(t *testing.T, args ...string) []string {
	t.Helper()
	r := n.run(t, append([]string{"__complete"}, args...)...)
	if r.code != 0 {
		t.Fatalf("exit %d, stderr %q", r.code, r.stderr)
	}
	var found []string
	for line := range strings.Lines(r.stdout) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ":") {
			name, _, _ := strings.Cut(line, "\t")
			found = append(found, name)
		}
	}
	return found
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	n, _ := busy(t)
	servers := []string{"db-1", "db-2", "db-3", "db-4", "db-5"}
	pools := []string{"default", "edge", "game"}
	wishes := []string{"active", "drain", "maintenance", "banned"}
	for _, c := range []struct {
		line string
		want []string
	}{
		{"explain ", servers},
		{"explain db-", servers},
		{"explain x", nil},
		{"explain db-1 ", nil},
		{"servers get ", servers},
		{"servers update ", servers},
		{"remove ", servers},
		{"events --server ", servers},
		{"pick --exclude ", servers},
		{"intent ", servers},
		{"intent db-1 ", wishes},
		{"pools get ", pools},
		{"pools update ", pools},
		{"servers --pool ", pools},
		{"servers --pool e", []string{"edge"}},
		{"servers --phase ", []string{"joining", "active", "service_down", "draining", "held"}},
		{"pools update --mode ", []string{"enforce", "shadow", "paused"}},
		{"pick --policy ", []string{"p2c", "round_robin", "random", "maglev"}},
		{"status -o ", []string{"table", "json", "yaml"}},
		{"stat", []string{"status"}},
		{"status ", nil},
	} {
		if diff := cmp.Diff(c.want, n.candidates(t, strings.Split(c.line, " ")...)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.line, diff)
		}
	}
}

func TestCompletionIsSilentWithoutACoordinator(t *testing.T) {
	t.Parallel()
	r := (&network{}).run(t, "__complete", "explain", "")
	if r.code != 0 || strings.Contains(r.stdout, "reach") || strings.Contains(r.stderr, "reach") {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := (&network{}).run(t, "completion", shell); r.code != 0 || !strings.Contains(r.stdout, "buddyctl") {
			t.Errorf("%s: exit %d, stderr %q", shell, r.code, r.stderr)
		}
	}
}
