package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// biased is a Gilbert-Elliott chain whose bursts are longer than the network's, for
// importance sampling: what takes a host that is well out is so rare that no plain
// run sees it. likelihood says how much rarer the path so far is without the bias.
type biased struct {
	// burst and gap are the true means, longer is that of bursts here.
	burst, gap, longer time.Duration

	random    *rand.Rand
	bad       bool
	at, until time.Duration
	log       float64
}

// bias replaces a chain by one that begins now, in the state that it is in or in
// a burst.
func (n *network) bias(c *chain, longer, now time.Duration, begin bool) {
	bad := n.advance(c, c.known, n.Loss/2, now)
	b := &biased{
		burst: n.Burst, gap: time.Duration(float64(n.Burst) * (n.BurstLoss/(n.Loss/2) - 1)), longer: longer,
		random: n.random, bad: begin || bad, at: now,
	}
	b.until = now + b.stretch()
	c.biased = b
}

// stretch draws how long the state lasts that has just begun.
func (b *biased) stretch() time.Duration {
	mean := b.gap
	if b.bad {
		mean = b.longer
	}
	return time.Duration(b.random.ExpFloat64() * float64(mean))
}

// advance brings the chain to now and reports whether it is bad.
func (b *biased) advance(now time.Duration) bool {
	for b.until <= now {
		b.pass(b.until)
		if b.bad {
			b.log += math.Log(b.longer.Seconds() / b.burst.Seconds())
		}
		b.bad = !b.bad
		b.until += b.stretch()
	}
	b.pass(now)
	return b.bad
}

// pass lets time pass within a state.
func (b *biased) pass(to time.Duration) {
	if b.bad {
		b.log -= (to - b.at).Seconds() * (1/b.burst.Seconds() - 1/b.longer.Seconds())
	}
	b.at = to
}

// likelihood is the density of the path up to now under the true means divided by
// that under the longer ones. A burst of length t that has ended counts
//
//	(longer/burst)·exp(-t·(1/burst - 1/longer))
//
// and one that has not, the exponential alone; gaps count 1.
func (b *biased) likelihood(now time.Duration) float64 {
	b.advance(now)
	return math.Exp(b.log)
}

// unbias gives the chain its true means from now on.
func (b *biased) unbias(now time.Duration) {
	b.advance(now)
	b.longer = b.burst
	b.until = now + b.stretch()
}

// lengthenBursts begins a burst on one way of a host, drawn at random, or with
// Fault.Both on both, and makes its bursts long. Whatever becomes of such a host is
// no mistake, nor is what follows soon after from the last of them.
func (s *Sim) lengthenBursts(f *Fault, h *host) (end func()) {
	h.condemned++
	first := s.random.IntN(2) == 0
	s.net.bias(&h.in, f.Burst, s.now, first || f.Both)
	s.net.bias(&h.out, f.Burst, s.now, !first || f.Both)
	return func() {
		h.in.biased.unbias(s.now)
		h.out.biased.unbias(s.now)
		s.after(rest, func() { h.condemned-- })
	}
}

// likelihood is that of what the network has done to h since a fault made its
// bursts long, or 1.
func (h *host) likelihood(now time.Duration) float64 {
	if h.in.biased == nil {
		return 1
	}
	return h.in.biased.likelihood(now) * h.out.biased.likelihood(now)
}

// BurstsPerYear is how many bursts begin at a host in a year of background loss, on
// either of its ways, and how many of them while the other way has one:
//
//	2·share/Burst and 2·share²/Burst, share = (Loss/2)/BurstLoss
func (n Network) BurstsPerYear() (either, both float64) {
	share := n.Loss / 2 / n.BurstLoss
	either = 2 * share / n.Burst.Seconds() * secondsPerYear
	return either, either * share
}

const secondsPerYear = 365.25 * 24 * 3600
