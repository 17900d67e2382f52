package pool_test

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
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
	// The machines are small and many: collecting them less often saves a quarter.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	start, total := time.Now(), tally{}
	workers := runtime.GOMAXPROCS(0)
	t.Run("all", func(t *testing.T) {
		for worker := range workers {
			t.Run(strconv.Itoa(worker), func(t *testing.T) {
				t.Parallel()
				for n := worker; n < *sequences && total.hopeful(); n += workers {
					total.add(play(t, *first+uint64(n), false), t.Failed())
				}
			})
		}
	})
	t.Logf("%d sequences in %v: %v", *sequences, time.Since(start).Round(time.Millisecond), total.done)
	for _, what := range []string{"removed by verdict", "contradicted", "kept by a rule"} {
		if total.done[what] == 0 && *sequences >= 50_000 {
			t.Errorf("no sequence has a server %s", what)
		}
	}
}

// tally counts what has happened in all sequences. It is safe for concurrent
// use.
type tally struct {
	mu     sync.Mutex
	failed bool
	done   map[string]int
}

// hopeful reports whether no sequence has failed so far.
func (c *tally) hopeful() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.failed
}

func (c *tally) add(g *rig, failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = map[string]int{}
	}
	c.failed = c.failed || failed
	for what, counter := range map[string]pool.Counter{
		"rounds": pool.CountRound, "kept by a rule": pool.CountNotRemoved, "dropped": pool.CountDropped, "contradicted": pool.CountContradicted,
	} {
		c.done[what] += g.counts[counter]
	}
	c.done["removed by verdict"] += g.verdicts
	c.done["revisions"] += int(g.table.at.Revision)
	c.done["steps"] += g.stepped
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
