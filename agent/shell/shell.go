// Package shell runs command lines that the operator has configured. Each has a
// process group of its own, all of which is killed when its time is over, and
// leaves nothing behind in this process, nor in a container whose first it is.
package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	// maxOutput is how much of the end of an output is kept.
	maxOutput = 4 << 10
	// pipeTime is how long after the command has ended, or was killed, its output
	// may be held open by somebody who has left its process group.
	pipeTime = 100 * time.Millisecond
)

// Run gives a command line to /bin/sh and waits for its end, or until ctx ends.
// env is added to this process's environment. It returns the end of what the
// command printed, also with an error; the error is nil only for exit status 0.
func Run(ctx context.Context, line string, env []string) (output string, err error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line) //nolint:gosec // the operator's own configuration
	cmd.Env = append(os.Environ(), env...)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = pipeTime
	ownGroup(cmd)
	err = cmd.Run()
	if cmd.Process != nil {
		reap(cmd.Process.Pid)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("killed: %w", context.Cause(ctx))
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it has ended well and left a child behind that holds its output
	}
	return out.String(), err
}

// tail keeps the end of what is written to it.
type tail struct {
	kept bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	p = p[max(0, n-maxOutput):]
	if over := t.kept.Len() + len(p) - maxOutput; over > 0 {
		t.kept.Next(over)
	}
	t.kept.Write(p)
	return n, nil
}

func (t *tail) String() string { return strings.TrimSpace(t.kept.String()) }
