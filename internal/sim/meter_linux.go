package sim

import (
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is what this thread has had of a processor so far. Where the
// kernel does not tell, the machine seems to take nothing.
func processorTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
