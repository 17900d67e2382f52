//go:build lab

package docs_test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Prometheus itself takes the sample, and with it the rules that it names.
func TestPrometheusTakesTheSample(t *testing.T) {
	for _, args := range [][]string{
		{"check", "config", "--syntax-only", filepath.Join(root, "deploy/prometheus-buddyring.yml")},
		{"check", "rules", filepath.Join(root, "deploy/alerts.yml")},
	} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}
