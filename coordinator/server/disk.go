package server

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// systemStateDir is where a system service keeps its state.
const systemStateDir = "/var/lib/buddyring"

// defaultStateDir is where the state goes when nobody says so: the directory
// that systemd gives, that of a system service where it can be written to, or
// the user's.
func defaultStateDir(getenv func(string) string) (string, error) {
	if dir := getenv("STATE_DIRECTORY"); dir != "" {
		// systemd separates several by colons; the first is ours.
		return filepath.SplitList(dir)[0], nil
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
	return "", fmt.Errorf("find a state directory: %s cannot be written to and $HOME is not set: give --state-dir", systemStateDir)
}

// writable reports whether dir can be written to, or made.
func writable(dir string) bool {
	err := unix.Access(dir, unix.W_OK|unix.X_OK)
	if err == unix.ENOENT {
		err = unix.Access(filepath.Dir(dir), unix.W_OK|unix.X_OK)
	}
	return err == nil
}

// freeBytes is the room that is left on the disk of dir.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
