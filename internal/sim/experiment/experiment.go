// Package experiment holds the simulations that stand behind the figures D1 to
// D11 of docs/measurements.md: what each is to show, and what it has shown.
package experiment

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/sim"
)

// Row is one figure.
type Row struct {
	ID         string `json:"id"`
	Experiment string `json:"experiment"`
	Target     string `json:"target"`
	Measured   string `json:"measured"`
	// Met says that the target is met. Safety says that this is about servers that
	// are removed or kept wrongly, and not about time.
	Met    bool `json:"met"`
	Safety bool `json:"safety"`
	// Unproven says that nothing has spoken against the target in a time that is too
	// short to prove it; Met is true then.
	Unproven bool `json:"unproven,omitempty"`
	// Runs is how many runs with different seeds stand behind it.
	Runs int `json:"runs"`
	// Replay makes the first run again that missed the target, or is empty.
	Replay string `json:"replay,omitempty"`
}

// Experiment is a group of figures.
type Experiment struct {
	ID  string
	Run func(Effort) ([]Row, error)
}

// Effort multiplies the number of seeds; 1 takes minutes.
type Effort int

// All are the experiments in their order.
func All() []Experiment {
	return []Experiment{
		{"D1", OneCrash},
		{"D2", TenCrashes},
		{"D3", AdjacentCrashes},
		{"D4", BadNetworks},
		{"D5", SickObservers},
		{"D6", BlockedAgents},
		{"D7", CutCoordinator},
		{"D8", BackgroundLoss},
		{"D9", Bootstrap},
		{"D11", ShortOutages},
	}
}

// withoutBrake switches the brake and the floor off, for measurements of speed.
func withoutBrake(o sim.Options) sim.Options {
	o.Settings.BrakePercent, o.Settings.BrakeRackPercent, o.Settings.BrakeZonePercent = 100, 100, 100
	o.Settings.FloorPercent = 100
	return o
}

// batch is what the runs of one experiment have shown.
type batch struct {
	options []sim.Options
	results []*sim.Result
	sim.Summary
}

// run runs options with seeds from 1 on.
func run(o sim.Options, seeds int) (*batch, error) {
	results, err := sim.RunSeeds(o, seeds, nil)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", o.Command(), err)
	}
	b := &batch{results: results, Summary: sim.Summarise(results)}
	for _, r := range results {
		o.Seed = r.Seed
		b.options = append(b.options, o)
	}
	return b, nil
}

// first is the command of the first run for which bad holds.
func (b *batch) first(bad func(*sim.Result) bool) string {
	for i, r := range b.results {
		if bad(r) {
			return b.options[i].Command()
		}
	}
	return ""
}

// row is a figure about all runs; bad says which run misses it.
func (b *batch) row(r Row, bad func(*sim.Result) bool) Row {
	r.Runs = len(b.results)
	r.Replay = b.first(bad)
	r.Met = r.Replay == ""
	return r
}

// safe is the figure about wrong removals and about dead servers that stay.
func (b *batch) safe(id, what string) Row {
	return b.row(Row{
		ID: id, Experiment: what, Safety: true, Target: "0 healthy removed, all dead removed, one ring",
		Measured: fmt.Sprintf("%d healthy removed, %d dead left, %d breaks", b.WrongRemovals, b.Remaining, b.BrokenRings),
	}, func(r *sim.Result) bool { return !r.Good() })
}

// never is a time that has not come.
const never = 1e12

func late(v float64) float64 {
	if v < 0 {
		return never
	}
	return v
}

func ms(v float64) string {
	if v < 0 || v >= never {
		return "never"
	}
	return fmt.Sprintf("%.0f ms", v)
}

func quantiles(q sim.Quantiles) string {
	return fmt.Sprintf("p50 %s, p99 %s, max %s of %d", ms(q.P50), ms(q.P99), ms(q.Max), q.Count)
}

func within(q sim.Quantiles, p50, p99, most float64) bool {
	return late(q.P50) <= p50 && late(q.P99) <= p99 && late(q.Max) <= most
}

// slowest is the latest removal of a run, in milliseconds.
func slowest(r *sim.Result) float64 {
	most := 0.0
	for _, c := range r.Crashes {
		most = max(most, late(c.RemovedMS))
	}
	return most
}

func minutes(n int) time.Duration { return time.Duration(n) * time.Minute }
