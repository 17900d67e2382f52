//go:build unix

package shell

import (
	"errors"
	"os/exec"
	"syscall"
	"time"
)

const (
	// reapEvery and reapTimes bound the wait for processes that have just been
	// killed.
	reapEvery = 5 * time.Millisecond
	reapTimes = 20
)

// ownGroup puts cmd into a process group of its own, and has all of it killed
// when its context ends.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

// reap takes note of the ends of those of a group who have outlived the command.
// They are children of this process only where it is the first of a container, or
// a subreaper; nobody else would do it, and there is room for so many dead only.
func reap(group int) {
	for waited := 0; waited < reapTimes; {
		pid, err := syscall.Wait4(-group, nil, syscall.WNOHANG, nil)
		switch {
		case err != nil && !errors.Is(err, syscall.EINTR):
			return // there are no such children
		case pid == 0:
			waited++
			time.Sleep(reapEvery)
		}
	}
}
