//go:build lab && linux

package daemon

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/buddyring/buddyring/internal/netlab"
)

// fullDiskEnv marks the process that has mounts of its own.
const fullDiskEnv = "DAEMON_TEST_FULL_DISK"

// TestRealFullDisk fills a small file system below the state directory.
func TestRealFullDisk(t *testing.T) {
	if os.Getenv(fullDiskEnv) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestRealFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), fullDiskEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v (the lab tests need root: run them with sudo)\n%s", err, out)
		}
		return
	}
	if err := netlab.PrivateMounts(); err != nil {
		t.Fatal(err)
	}
	dir := mountSmall(t, "size=64k")
	d := openDisk(t, dir)
	if err := d.Save(exampleState()); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk: %v", err)
	}
	if err := d.Save(State{Pool: "default", ID: "other", Incarnation: 1}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("save on a full disk: %v", err)
	}
	if s, err := d.Load(); err != nil || s.ID != exampleState().ID {
		t.Errorf("loaded %+v, %v", s, err)
	}
	// An agent that starts now gets its directory and its old state.
	d.Close()
	d = openDisk(t, dir)
	if s, err := d.Load(); err != nil || s.ID != exampleState().ID {
		t.Errorf("loaded after a restart %+v, %v", s, err)
	}
	// An agent that has left, or was removed, must not take its old incarnation for
	// its present one after that.
	over := exampleState()
	over.Incarnation = 0
	if err := d.Save(over); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("save on a full disk: %v", err)
	}
	if s, err := d.Load(); err != nil || s.Incarnation != 0 {
		t.Errorf("loaded after the end of its incarnation %+v, %v", s, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(State{Pool: "default", ID: "other", Incarnation: 1}); err != nil {
		t.Errorf("save after the disk has room again: %v", err)
	}

	// A disk that was full before the agent ever started: it starts, and saves
	// nothing.
	full := openDisk(t, mountSmall(t, "nr_inodes=1"))
	if err := full.Save(exampleState()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("save where nothing was ever saved: %v", err)
	}
}

// mountSmall mounts a small file system for the test.
func mountSmall(t *testing.T, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
