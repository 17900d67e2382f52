package shell

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTheFirstOfAContainer leaves no dead children of its commands behind. It is
// not parallel: no other command runs meanwhile.
func TestTheFirstOfAContainer(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	started := filepath.Join(t.TempDir(), "started")
	ctx, end := context.WithCancelCause(t.Context())
	if err := unix.Mkfifo(started, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := os.ReadFile(started) // until the command has opened and closed it
		end(errors.Join(errors.New("its time is over"), err))
	}()
	if _, err := Run(ctx, "sleep 1000 & sleep 1000 & sleep 1000 & echo >"+started+"; wait", nil); err == nil {
		t.Error("no error")
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
}

// children are the lines of /proc/PID/stat of this process's children.
func children(t *testing.T) (lines []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PARENT …
		_, rest, _ := strings.Cut(string(line), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			lines = append(lines, string(line))
		}
	}
	return lines
}
