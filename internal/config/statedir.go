package config

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/buddyring/buddyring/internal/member"
)

// systemStateDir is where a system service keeps its state.
const systemStateDir = "/var/lib/buddyring"

// StateDir is where a process keeps its state when nobody says so: the directory
// that systemd gives, that of a system service where it can be written to or
// made, or the user's. The error names the flag state-dir.
func StateDir(getenv func(string) string) (string, error) {
	if dirs := filepath.SplitList(getenv("STATE_DIRECTORY")); len(dirs) > 0 {
		return dirs[0], nil
	}
	if writable(systemStateDir) {
		return systemStateDir, nil
	}
	if dir := getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "buddyring"), nil
	}
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "buddyring"), nil
	}
	return "", member.Invalid("state-dir", "must be given: %s cannot be written to and $HOME is not set", systemStateDir)
}

// writable reports whether dir can be written to, or made.
func writable(dir string) bool {
	err := unix.Access(dir, unix.W_OK|unix.X_OK)
	if errors.Is(err, unix.ENOENT) {
		err = unix.Access(filepath.Dir(dir), unix.W_OK|unix.X_OK)
	}
	return err == nil
}
