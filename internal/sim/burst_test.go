package sim

import (
	"math"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
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

// bursting is a small pool with a host whose bursts are made long, and what ends that.
func bursting(t *testing.T) (s *Sim, h *host, end func()) {
	t.Helper()
	o := DefaultOptions(5)
	o.Network.Loss, o.Network.Model = 0.01, HostBursts
	s, err := newSim(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.until(o.Settle)
	s.ledger.begin(s)
	h = s.hosts[0]
	f := Fault{Kind: LengthenBursts, Burst: 100 * time.Millisecond, Both: true}
	s.ledger.struck(s, &f, h)
	return s, h, s.lengthenBursts(&f, h)
}

// While its bursts are long, and a while after, no removal of a host is a mistake; then
// one is again. It keeps what another fault has made of it.
func TestLongBurstsCondemnForTheirTime(t *testing.T) {
	t.Parallel()
	s, h, end := bursting(t)
	may := func() bool { return h.mayGo(s.now, time.Hour) }
	s.until(s.now + time.Second)
	end()
	s.until(s.now + rest - time.Millisecond)
	if !may() {
		t.Error("a removal right after its long bursts is a mistake")
	}
	s.until(s.now + time.Millisecond)
	if may() {
		t.Error("its removal is never a mistake again")
	}
	apart := s.inflict(&Fault{Kind: Isolate}, h, nil)
	end = s.lengthenBursts(&Fault{Burst: time.Second}, h)
	apart()
	if !may() {
		t.Error("the end of another fault ends this one's")
	}
	end()
	s.until(s.now + rest)
	if may() {
		t.Error("two faults are over, and its removal is no mistake")
	}
}

// A host that is removed again counts once, with the likelihood of the first time.
func TestRemovedTwiceWeighsOnce(t *testing.T) {
	t.Parallel()
	s, h, _ := bursting(t)
	s.until(s.now + 100*time.Millisecond)
	first := h.likelihood(s.now)
	remove := member.Change{Remove: []member.Removal{{ID: h.id, Cause: member.CauseCrashed}}}
	s.ledger.published(s, remove)
	s.until(s.now + 30*time.Second)
	remove.Remove[0].Cause = member.CauseLossy
	s.ledger.published(s, remove)
	if later := h.likelihood(s.now); first == later || later == 1 {
		t.Fatalf("the likelihood stays %v", later)
	}
	hits := s.stricken()
	if len(hits) != 1 || hits[0].Removals != 2 || hits[0].Likelihood != first || hits[0].Cause != member.CauseCrashed.String() {
		t.Errorf("%+v, want one of likelihood %v", hits, first)
	}
}
