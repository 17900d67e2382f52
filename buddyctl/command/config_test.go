package command_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestEnvironmentAndFile(t *testing.T) {
	n, admin := &network{}, busyAdmin()
	n.serve(t, "10.0.0.7:7401", admin, nil)
	file := filepath.Join(t.TempDir(), "buddyctl.yaml")
	if err := os.WriteFile(file, []byte("admin: [127.0.0.1:1, 10.0.0.7:7401]\noutput: json\npool: edge\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BUDDYCTL_CONFIG", file)
	t.Setenv("BUDDYCTL_POOL", "game")
	t.Setenv("BUDDYCTL_REASON", "from the environment")
	r := n.run(t, "remove", "db-1")
	if r.code != 0 || !strings.HasPrefix(r.stdout, "{") {
		t.Fatalf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	got := admin.last().(*coordinatorv1.RemoveServerRequest)
	if got.GetPool() != "game" || got.GetReason() != "from the environment" {
		t.Errorf("pool %q, reason %q", got.GetPool(), got.GetReason())
	}
	if r := n.run(t, "pick", "-o", "yaml"); r.code != 3 {
		t.Errorf("exit %d without a router, stderr %q", r.code, r.stderr)
	}
	candidates := n.run(t, "__complete", "explain", "")
	if !strings.Contains(candidates.stdout, "db-3") {
		t.Errorf("completion does not read the file: %q", candidates.stdout)
	}
}

func TestAWrongFileIsAnErrorOfUsage(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "buddyctl.yaml")
	if err := os.WriteFile(file, []byte("admin: 127.0.0.1:1\ncolour: blue\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := (&network{}).run(t, "status", "--config", file)
	if r.code != 2 || !strings.Contains(r.stderr, file+":2:1") {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
}
