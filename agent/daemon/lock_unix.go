//go:build unix

package daemon

import (
	"os"
	"syscall"
)

// lock takes an advisory lock on a directory. It needs no space, so that a full
// disk does not keep an agent from starting.
func lock(dir *os.File) error {
	return syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
