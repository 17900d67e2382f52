//go:build unix

package shell

import (
	"context"
	"errors"
	"io"
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
	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)
	dead := make(chan error, 1)
	go func() {
		// It is opened when the command opens it, and what the command writes comes
		// after its output.
		file, err := os.Open(pipe)
		if err == nil {
			_, err = io.ReadFull(file, make([]byte, len("begun\n")))
			end(errors.New("its time is over"))
		}
		if err == nil {
			_, err = io.Copy(io.Discard, file)
		}
		dead <- errors.Join(err, file.Close())
	}()
	out, err := Run(ctx, "trap '' TERM; exec 3>"+pipe+"; sleep 1000 & echo begun; echo begun >&3; wait", nil)
	if out != "begun" || err == nil || err.Error() != "killed: its time is over" {
		t.Errorf("%q, %v", out, err)
	}
	select {
	case err := <-dead:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a child is still alive")
	}
}

// TestChildThatHoldsTheOutput: who leaves a daemon behind has ended all the
// same.
func TestChildThatHoldsTheOutput(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// The child lives until somebody opens the pipe.
	out, err := Run(ctx, "echo started; read end <"+pipe+" &", nil)
	if out != "started" || err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	end, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := end.Close(); err != nil {
		t.Error(err)
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
