//go:build unix

package quota

import (
	"math"
	"syscall"
)

// openFiles is how many files the process may have open; Go has raised that to
// what it may raise it to.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return math.MaxInt
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)) //nolint:unconvert // it is signed on FreeBSD
}
