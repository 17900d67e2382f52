package prober

import (
	"testing"
	"testing/synctest"
	"time"
)

// A request that leaves late is not lost by that: its reply is waited for from
// then on.
func TestRequestThatLeavesLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = 20 * time.Millisecond
		for _, c := range []struct {
			name string
			// left is when the request leaves, or 0 for never; took is how long its
			// reply takes, or 0 for ever.
			left, took time.Duration
			want       Outcome
		}{
			{"late, a reply", 4 * timeout, timeout / 2, Replied},
			{"late, silence", 4 * timeout, 0, Lost},
			{"never", 0, 0, NotSent},
		} {
			v := newVolley(loopback, 1)
			if c.left > 0 {
				time.AfterFunc(c.left, func() { v.shots[0].sent <- time.Now() })
			}
			if c.took > 0 {
				time.AfterFunc(c.left+c.took, func() { v.shots[0].replied <- time.Now() })
			}
			if r := v.probe(t.Context(), 0, timeout); r.Outcome != c.want || r.RTT != c.took || r.Late {
				t.Errorf("%s: %+v, want outcome %d after %v", c.name, r, c.want, c.took)
			}
		}
	})
}
