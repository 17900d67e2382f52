package sim

import (
	"math"
	"testing"
	"time"
)

// Longer bursts, weighed by their likelihood, are as long as the true ones: the share
// of bursts that last 0.8 s and of hosts that have another one within 2 s is what it
// is in plain runs, although the one is e^-4 and the other seldom.
func TestBiasedChainsAreWeighed(t *testing.T) {
	t.Parallel()
	o := DefaultOptions(3).Network
	o.Loss, o.Model = 0.05, HostBursts
	n := newNetwork(o, 1)
	const chains, long, later = 40_000, 800 * time.Millisecond, 2 * time.Second
	var all, lasting, another float64
	for range chains {
		var c chain
		n.bias(&c, time.Second, 0, true)
		b := c.biased
		bad := b.until
		if bad > long {
			lasting += b.likelihood(long)
		}
		b.advance(later)
		if bad < later && b.until > later && b.bad {
			another += b.likelihood(later)
		}
		all += b.likelihood(later)
	}
	share := o.Loss / 2 / o.BurstLoss
	rate := 1 / (o.Burst.Seconds() * (1 - share))
	stillBad := math.Exp(-later.Seconds() / o.Burst.Seconds())
	for what, c := range map[string]struct{ got, want float64 }{
		"all":                      {all, 1},
		"a burst of 0.8 s":         {lasting, math.Exp(-long.Seconds() / o.Burst.Seconds())},
		"in another one after 2 s": {another, share + (1-share)*math.Exp(-rate*later.Seconds()) - stillBad},
	} {
		if got := c.got / chains; math.Abs(got-c.want) > 0.1*c.want {
			t.Errorf("%s: %.4f, want %.4f", what, got, c.want)
		}
	}
}

// Without the bias the likelihood stays what it is.
func TestUnbiased(t *testing.T) {
	t.Parallel()
	o := DefaultOptions(3).Network
	o.Loss, o.Model = 0.01, HostBursts
	n := newNetwork(o, 1)
	var c chain
	n.bias(&c, time.Second, 0, true)
	before := c.biased.likelihood(300 * time.Millisecond)
	c.biased.unbias(300 * time.Millisecond)
	if after := c.biased.likelihood(time.Minute); before == 1 || math.Abs(after-before) > 1e-9*before {
		t.Errorf("likelihood %v, then %v", before, after)
	}
}
