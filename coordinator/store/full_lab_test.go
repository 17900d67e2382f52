//go:build lab && linux

package store_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/netlab"
)

// TestFullDisk puts the file on a disk of 2 MiB and fills it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	onSmallDisk(t, "2m", fillDisk)
}

// onSmallDisk runs a test again in a process and a mount namespace of its own, so
// that the disk is gone with that process, whatever happens. It has its temporary
// files on the disk too.
func onSmallDisk(t *testing.T, size string, test func(t *testing.T, dir string)) {
	t.Helper()
	const role = "STORE_TEST_FULL_DISK"
	if dir := os.Getenv(role); dir != "" {
		if err := netlab.PrivateMounts(); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Fatalf("mount a small disk: %v; run as root: `sudo make test`", err)
		}
		test(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), role+"="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: it needs root, as `sudo make test` has\n%s", err, out)
	}
}

func fillDisk(t *testing.T, dir string) {
	t.Helper()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	url := "sqlite:" + filepath.Join(dir, "store.db")
	s := openStore(t, url)
	pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	at, full := fill(t, s, pool.Position)
	checkHistory(t, s, at.Revision)

	// Nothing else than space is needed to go on, and what failed can be repeated.
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	commit(t, s, full)
	at, _ = fill(t, s, member.Position{Epoch: at.Epoch, Revision: full.Revision()})

	// What was acknowledged is in the file, also for a process that starts on the
	// full disk.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkHistory(t, openStore(t, url), at.Revision)
}

// fill commits until the disk refuses the same change three times in a row, and
// returns what was acknowledged and that change.
func fill(t *testing.T, s *store.Store, at member.Position) (member.Position, member.Change) {
	t.Helper()
	for refused := 0; ; {
		c := joinOne(at)
		err := s.Commit(t.Context(), c)
		if err == nil {
			at.Revision++
			refused = 0
			continue
		}
		if !errors.Is(err, member.ErrUnavailable) || errors.Is(err, store.ErrOutcomeUnknown) {
			t.Fatalf("%v, want ErrUnavailable with a known outcome", err)
		}
		if refused++; refused == 3 {
			return at, c
		}
	}
}
