package command_test

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAFirstInstallation(t *testing.T) {
	t.Parallel()
	n, dir := &network{}, filepath.Join(t.TempDir(), "ca")
	r := n.run(t, "ca", "init", "--domain", "example.org", "--dir", dir)
	if r.code != 0 || !strings.Contains(r.stdout, "keep it here and nowhere else") {
		t.Fatalf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if again := n.run(t, "ca", "init", "--domain", "example.org", "--dir", dir); again.code != 1 || !strings.Contains(again.stderr, "not overwritten") {
		t.Errorf("a second time: exit %d, stderr %q", again.code, again.stderr)
	}
	for file, c := range map[string]struct {
		args []string
		uri  string
		says string
	}{
		"agent-default.db-1": {[]string{"agent", "default", "db-1"}, "spiffe://example.org/buddyring/agent/default/db-1", "buddyring-agent --tls-cert /etc/buddyring/agent.crt"},
		"router-edge-1":      {[]string{"router", "edge-1"}, "spiffe://example.org/buddyring/router/edge-1", "buddyring-router --tls-cert"},
		"coordinator-c-1":    {[]string{"coordinator", "c-1", "--host", "c-1.example.org,10.0.0.1", "--valid", "48h"}, "spiffe://example.org/buddyring/coordinator/c-1", "buddyring-coordinator --tls-cert"},
		"client-shop":        {[]string{"client", "shop"}, "spiffe://example.org/buddyring/client/shop", "copy them to its host as /etc/buddyring/client.crt and /etc/buddyring/client.key"},
		"admin-ann":          {[]string{"admin", "ann"}, "spiffe://example.org/buddyring/admin/ann", "buddyctl --tls-cert ~/.buddyring/admin.crt"},
	} {
		r := n.run(t, append(append([]string{"ca", "issue"}, c.args...), "--dir", dir)...)
		if r.code != 0 || !strings.Contains(r.stdout, c.says) || !strings.Contains(r.stdout, c.uri) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", file, r.code, r.stdout, r.stderr)
			continue
		}
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, file+".crt"), filepath.Join(dir, file+".key"))
		if err != nil {
			t.Error(err)
			continue
		}
		if got := pair.Leaf.URIs[0].String(); got != c.uri {
			t.Errorf("%s: %s", file, got)
		}
		if file == "coordinator-c-1" && !pair.Leaf.NotAfter.Equal(noon.Add(48*time.Hour)) {
			t.Errorf("valid until %s", pair.Leaf.NotAfter)
		}
	}
}

func TestCAUsage(t *testing.T) {
	t.Parallel()
	n, dir := &network{}, t.TempDir()
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no domain":    {[]string{"ca", "init"}, 2, "domain: must not be empty"},
		"bad validity": {[]string{"ca", "init", "--domain", "a", "--valid", "0s"}, 2, "valid: "},
		"no CA":        {[]string{"ca", "issue", "admin", "ann"}, 1, "make a CA first: buddyctl ca init"},
		"no id":        {[]string{"ca", "issue", "agent", "default"}, 2, "ID: is missing"},
		"unknown role": {[]string{"ca", "issue", "root", "x"}, 2, `unknown command "root"`},
	} {
		r := n.run(t, append(c.args, "--dir", dir)...)
		if name == "unknown role" {
			r = n.run(t, c.args...)
		}
		if r.code != c.code || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s: exit %d, stderr %q", name, r.code, r.stderr)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
