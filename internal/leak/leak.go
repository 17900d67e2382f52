// Package leak fails the tests of a package that leave goroutines behind.
package leak

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end after the tests. On a machine
// with other work those that have been told to may take seconds.
const patience = 30 * time.Second

// Main runs the tests of a package, and fails if goroutines are left when all have
// passed. It does not return.
func Main(m *testing.M, options ...goleak.Option) { os.Exit(Run(m, options...)) }

// Run is Main, but returns the exit status.
func Run(m *testing.M, options ...goleak.Option) int {
	code := m.Run()
	if code != 0 {
		return code
	}
	if err := find(patience, options...); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "left behind: %v\n", err)
		return 1
	}
	return 0
}

// find waits until no goroutine is left, and says at the end of its patience which
// are.
func find(patience time.Duration, options ...goleak.Option) error {
	for end := time.Now().Add(patience); ; {
		err := goleak.Find(options...) // it waits a part of a second by itself
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
