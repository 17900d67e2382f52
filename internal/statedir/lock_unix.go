//go:build unix

package statedir

import (
	"errors"
	"os"
	"syscall"
)

// lock takes an advisory lock, which ends with the file's last descriptor.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	return err
}
