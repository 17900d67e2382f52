//go:build !(linux && amd64)

package wallclock

import (
	"errors"
	"time"
)

// Known says whether clocks can be set on this system.
const Known = false

// Clock is the wall clock of a process.
type Clock struct{}

// Of fails: what replaces the vDSO is known for Linux on amd64 only.
func Of(int) (*Clock, error) {
	return nil, errors.New("a process's clock can be set on Linux on amd64 only")
}

// Set is never called.
func (*Clock) Set(time.Duration) error { return nil }
