//go:build unix

package shell

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOutputAndStatus(t *testing.T) {
	t.Parallel()
	out, err := Run(t.Context(), "echo $GREETING; echo world >&2", []string{"GREETING=hello"})
	if out != "hello\nworld" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	out, err = Run(t.Context(), "echo broken; exit 3", nil)
	var exit *exec.ExitError
	if out != "broken" || !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := Run(t.Context(), "/no/such/program", nil); err == nil {
		t.Error("a program that does not exist: no error")
	}
}

// TestTimeIsOver: the command and its children are killed, also those that
// ignore SIGTERM.
func TestTimeIsOver(t *testing.T) {
	t.Parallel()
	// Whoever lives holds the writing end of the pipe.
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	dead := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(pipe)
		dead <- err
	}()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("its time is over"))
	defer cancel()
	out, err := Run(ctx, "trap '' TERM; exec 3>"+pipe+"; sleep 1000 & echo begun; wait", nil)
	if out != "begun" || err == nil || err.Error() != "killed: its time is over" {
		t.Errorf("%q, %v", out, err)
	}
	select {
	case err := <-dead:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a child is still alive")
	}
}

// TestChildThatHoldsTheOutput: who leaves a daemon behind has ended all the
// same.
func TestChildThatHoldsTheOutput(t *testing.T) {
	t.Parallel()
	began := time.Now()
	out, err := Run(t.Context(), "echo started; sleep 3 &", nil)
	if out != "started" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestOnlyTheEndIsKept(t *testing.T) {
	t.Parallel()
	var kept tail
	for range 1000 {
		kept.Write([]byte(strings.Repeat("x", 100)))
	}
	kept.Write([]byte("the end"))
	if s := kept.String(); len(s) != maxOutput || !strings.HasSuffix(s, "xthe end") {
		t.Errorf("%d bytes", len(s))
	}
	kept.Write([]byte(strings.Repeat("y", 2*maxOutput) + "z"))
	if s := kept.String(); len(s) != maxOutput || !strings.HasSuffix(s, "yz") {
		t.Errorf("%d bytes", len(s))
	}
}
