//go:build !linux

package sim

import "time"

// processorTime is the time of the clock: an upper bound, where other programs
// run beside this one.
func processorTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
