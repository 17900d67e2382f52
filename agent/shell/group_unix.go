//go:build unix

package shell

import (
	"os/exec"
	"syscall"
)

// ownGroup puts cmd into a process group of its own, and has all of it killed
// when its context ends.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
