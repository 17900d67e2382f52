package coordbench

import (
	"context"
	"time"

	"github.com/buddyring/buddyring/internal/bench"
)

// Options say what to measure on. Zero fields take their defaults.
type Options struct {
	// Bin is the folder of the programs, bin.
	Bin string
	// Agents is how many there are, 10,000; Subscribers how many routers, 1,000.
	Agents, Subscribers int
	// Rest is how long the processor's time at rest is measured, 30 s; Settle the
	// pause before that, and before removals are counted, 20 s: a new leader removes
	// nobody for 15.
	Rest, Settle time.Duration
}

func (o Options) withDefaults() Options {
	if o.Bin == "" {
		o.Bin = "bin"
	}
	if o.Agents == 0 {
		o.Agents = 10_000
	}
	if o.Subscribers == 0 {
		o.Subscribers = subscriberCount
	}
	if o.Rest == 0 {
		o.Rest = 30 * time.Second
	}
	if o.Settle == 0 {
		o.Settle = 20 * time.Second
	}
	return o
}

// All returns the experiments in the order of their targets.
func All(o Options) []bench.Experiment {
	o = o.withDefaults()
	return []bench.Experiment{
		{ID: "S4", Run: func(ctx context.Context) ([]bench.Row, error) { return manyStreams(ctx, o) }},
		{ID: "S5", Run: func(ctx context.Context) ([]bench.Row, error) { return joins(ctx, o) }},
	}
}
