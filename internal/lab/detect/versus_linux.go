package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// VersusConfig is a comparison.
type VersusConfig struct {
	PoolConfig
	// Crashes is how often a server crashes in each of the systems, Rounds how
	// often the systems take turns.
	Crashes, Rounds int
	// Progress is told of every crash.
	Progress io.Writer
}

// Versus makes the same crashes in buddyring and in memberlist, in turns, each
// alone on the machine. It must run inside netlab.Enter.
func Versus(ctx context.Context, cfg VersusConfig) (VersusReport, error) {
	if cfg.Rounds < 1 || cfg.Crashes < cfg.Rounds {
		return VersusReport{}, fmt.Errorf("compare: %d crashes in %d rounds: there must be at least one in each", cfg.Crashes, cfg.Rounds)
	}
	r := VersusReport{Rounds: cfg.Rounds, Buddyring: Side{Wrong: []string{}}, Memberlist: Side{Wrong: []string{}}}
	for round := range cfg.Rounds {
		crashes := cfg.Crashes / cfg.Rounds
		if round < cfg.Crashes%cfg.Rounds {
			crashes++
		}
		ours := Config{PoolConfig: cfg.PoolConfig, Crashes: crashes, Progress: cfg.Progress}
		ours.Dir = filepath.Join(cfg.Dir, strconv.Itoa(round))
		if err := os.Mkdir(ours.Dir, 0o700); err != nil {
			return VersusReport{}, err
		}
		_, _ = fmt.Fprintf(cfg.Progress, "round %d of %d: buddyring\n", round+1, cfg.Rounds)
		report, err := Run(ctx, ours)
		if err != nil {
			return VersusReport{}, fmt.Errorf("buddyring: %w", err)
		}
		_, _ = fmt.Fprintf(cfg.Progress, "round %d of %d: memberlist\n", round+1, cfg.Rounds)
		theirs, err := gossipCrashes(ctx, ours)
		if err != nil {
			return VersusReport{}, fmt.Errorf("memberlist: %w", err)
		}
		r.add(report, theirs)
	}
	r.sum()
	return r, nil
}

// gossipCrashes is Run for memberlist.
func gossipCrashes(ctx context.Context, cfg Config) (r gossipReport, err error) {
	g, err := newGossip(ctx, cfg.PoolConfig)
	if err != nil {
		return gossipReport{}, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	group, watchCtx := errgroup.WithContext(watchCtx)
	var strain monitor
	group.Go(func() error { return strain.watch(watchCtx) })
	group.Go(func() error {
		defer stop()
		for i := range cfg.Crashes {
			s, err := g.sample(watchCtx, i)
			if err != nil {
				return err
			}
			r.samples = append(r.samples, s)
			_, _ = fmt.Fprintf(cfg.Progress, "%3d of %d  %-8s %s  dead to the first after %5d ms, to the last after %5d ms\n",
				i+1, cfg.Crashes, s.Server, s.Kind, s.Avoided.Milliseconds(), s.Removed.Milliseconds())
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return gossipReport{}, err
	}
	r.version, r.wrong, r.strain = g.version, g.wrong, strain.strain()
	return r, nil
}

// sample crashes a host at random and brings it back. Of a kind with what is
// measured of buddyring: the first to act, and the last to know.
func (g *gossip) sample(ctx context.Context, i int) (Sample, error) {
	if err := pause(ctx, time.Duration(g.random.Int64N(int64(phases)))); err != nil {
		return Sample{}, err
	}
	s := Sample{Server: g.names[g.random.IntN(len(g.names))], Kind: kind(i)}
	start := time.Now()
	first, last, err := g.crash(ctx, s.Server, s.Kind)
	if err != nil {
		return Sample{}, err
	}
	s.Avoided, s.Removed = first.Sub(start), last.Sub(start)
	others := slices.DeleteFunc(slices.Clone(g.names), func(name string) bool { return name == s.Server })
	g.random.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	return s, g.back(ctx, s.Server, others[:seeds])
}
