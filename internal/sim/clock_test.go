package sim

import (
	"testing"
	"time"
)

func TestClocksMoveApart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		move            func(*clock)
		monotonic, wall time.Duration
	}{
		{"both run", func(*clock) {}, time.Second, time.Second},
		{"the wall clock is set forward", func(c *clock) { c.jump(time.Hour) }, time.Second, time.Second + time.Hour},
		{"the wall clock is set back", func(c *clock) { c.jump(-time.Hour) }, time.Second, time.Second - time.Hour},
		{"suspend: only the wall clock goes on", func(c *clock) { c.stop(time.Second, true) }, 0, time.Second},
		{"pause: neither goes on", func(c *clock) { c.stop(time.Second, false) }, 0, 0},
		{"drift", func(c *clock) { c.drift = 100 }, time.Second + 100*time.Microsecond, time.Second + 100*time.Microsecond},
	} {
		k := newClock()
		before := k.read(0)
		c.move(&k)
		after := k.read(time.Second)
		if got := after.Sub(before); got != c.monotonic {
			t.Errorf("%s: the monotonic clock shows %v, want %v", c.name, got, c.monotonic)
		}
		if got := after.Round(0).Sub(before.Round(0)); got != c.wall {
			t.Errorf("%s: the wall clock shows %v, want %v", c.name, got, c.wall)
		}
		if got := k.monotonic(time.Second); got != c.monotonic {
			t.Errorf("%s: the host counts %v, want %v", c.name, got, c.monotonic)
		}
		due := k.monotonic(time.Second) + 7*time.Second
		later := time.Second + k.until(time.Second, due)
		if off := k.monotonic(later) - due; off.Abs() > time.Microsecond {
			t.Errorf("%s: a timer is off by %v", c.name, off)
		}
	}
}
