package config_test

import (
	"path/filepath"
	"testing"

	"github.com/buddyring/buddyring/internal/config"
)

func TestStateDir(t *testing.T) {
	t.Parallel()
	env := map[string]string{"STATE_DIRECTORY": "/given:/second", "XDG_STATE_HOME": "/xdg", "HOME": "/home/a"}
	getenv := func(name string) string { return env[name] }
	if got, err := config.StateDir(getenv); err != nil || got != "/given" {
		t.Errorf("with systemd: %q, %v; want /given", got, err)
	}
	delete(env, "STATE_DIRECTORY")
	for _, user := range []string{"/xdg/buddyring", "/home/a/.local/state/buddyring"} {
		got, err := config.StateDir(getenv)
		if err != nil || got != "/var/lib/buddyring" && got != filepath.FromSlash(user) {
			t.Errorf("%q, %v; want that of the system or %s", got, err, user)
		}
		env["XDG_STATE_HOME"] = "relative"
	}
}
