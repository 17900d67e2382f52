package sim

import (
	"time"
	"unsafe"
)

// clock is a host's own idea of the time: a wall clock and a monotonic one, as
// a time.Time of a real program carries both. They start together and may be
// moved apart.
type clock struct {
	// base is what the clock shows at virtual time 0.
	base time.Time
	// mono is how far the monotonic clock is behind virtual time; drift, how much
	// faster than virtual time both run, in parts per million.
	mono  time.Duration
	drift int64
}

func newClock() clock { return clock{base: epoch()} }

// epoch is when simulations begin, with a monotonic reading.
func epoch() time.Time {
	wall := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	t := time.Now()
	return t.Add(wall.Sub(t.Round(0)))
}

// read returns the host's time at virtual time now.
func (c *clock) read(now time.Duration) time.Time { return c.base.Add(c.ran(now)) }

// ran is how long a clock that nobody has moved has run by then.
func (c *clock) ran(now time.Duration) time.Duration {
	return now + now/1_000_000*time.Duration(c.drift)
}

// monotonic is the host's monotonic time.
func (c *clock) monotonic(now time.Duration) time.Duration { return c.ran(now) - c.mono }

// until is how much virtual time passes before the monotonic clock shows due, to
// a microsecond; never less than 0.
func (c *clock) until(now, due time.Duration) time.Duration { return c.virtual(due - c.monotonic(now)) }

// virtual is how much virtual time passes while the clock runs by local, never
// less than 0.
func (c *clock) virtual(local time.Duration) time.Duration {
	if local <= 0 {
		return 0
	}
	return max(1, local-local/1_000_000*time.Duration(c.drift))
}

// jump sets the wall clock forward, or back, while the monotonic one goes on.
func (c *clock) jump(d time.Duration) { c.base = moveWall(c.base, d) }

// setDrift makes both clocks run at another rate from now on.
func (c *clock) setDrift(now time.Duration, ppm int64) {
	before := c.ran(now)
	c.drift = ppm
	gained := c.ran(now) - before
	c.base = c.base.Add(-gained)
	c.mono += gained
}

// stop makes up for a time during which the monotonic clock stood still, and the
// wall clock too unless wallRuns.
func (c *clock) stop(d time.Duration, wallRuns bool) {
	c.mono += d
	c.base = c.base.Add(-d)
	if wallRuns {
		c.base = moveWall(c.base, d)
	}
}

// moveWall moves the wall reading of t by d and leaves the monotonic one. Package
// time has no way to say so, although every computer can do it: the monotonic
// reading is the second word of a Time that has one. A test checks that.
func moveWall(t time.Time, d time.Duration) time.Time {
	moved := t.Add(d)
	reading := (*struct {
		wall uint64
		ext  int64
	})(unsafe.Pointer(&moved)) //nolint:gosec // see above
	reading.ext -= int64(d)
	return moved
}
