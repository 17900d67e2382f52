package pool_test

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
)

var (
	sequences = flag.Int("sequences", defaultSequences, "how many random sequences TestRandomSequences plays")
	first     = flag.Uint64("first", 1, "the seed of the first of them")
	seed      = flag.Uint64("seed", 0, "play only the sequence of this seed, and say what happens")
)

// TestRandomSequences plays random sequences of joins, leaves, crashes, lies,
// commands, restarts, and commits that succeed, fail, come late or are lost with
// the coordinator, beside a naive model of the table and of what is allowed. See
// rig, desk, table and notary for what is asserted. A failing sequence names its
// seed.
func TestRandomSequences(t *testing.T) {
	t.Parallel()
	if *seed != 0 {
		play(t, *seed, true)
		return
	}
	start, done := time.Now(), map[string]int{}
	for n := range *sequences {
		g := play(t, *first+uint64(n), false)
		if t.Failed() {
			return
		}
		g.tally(done)
	}
	t.Logf("%d sequences in %v: %v", *sequences, time.Since(start).Round(time.Millisecond), done)
	for _, what := range []string{"removed by verdict", "contradicted", "kept by a rule"} {
		if done[what] == 0 && *sequences >= 50_000 {
			t.Errorf("no sequence has a server %s", what)
		}
	}
}

func play(t *testing.T, seed uint64, record bool) *rig {
	s := seeded{rand.New(rand.NewPCG(seed, 0))}
	sub := &failing{TB: t, seed: seed}
	g := newRig(sub, s, record)
	length := 8 + s.n(12)
	if s.n(100) == 0 {
		length = 300
	}
	g.steps(length)
	if s.n(16) == 0 {
		g.settle()
	}
	g.drain()
	return g
}

// failing names the seed of a sequence that fails.
type failing struct {
	testing.TB
	seed uint64
}

// Helper does nothing: it would take an eighth of the time.
func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.Logf("go test ./coordinator/pool -run TestRandomSequences -seed %d", f.seed)
	f.TB.Fatalf(format, args...)
}

func (g *rig) tally(done map[string]int) {
	for what, counter := range map[string]pool.Counter{
		"rounds": pool.CountRound, "kept by a rule": pool.CountNotRemoved, "dropped": pool.CountDropped, "contradicted": pool.CountContradicted,
	} {
		done[what] += g.counts[counter]
	}
	done["removed by verdict"] += g.verdicts
	done["revisions"] += int(g.table.at.Revision)
	done["steps"] += g.stepped
}
