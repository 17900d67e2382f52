package experiment

import (
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/sim"
)

// OneCrash is D1, with D10: single crashes at any moment of the probes' period.
func OneCrash(e Effort) ([]Row, error) {
	var rows []Row
	for _, c := range []struct {
		servers, crashes, seeds int
		loss                    float64
	}{{1000, 20, 10, 0}, {1000, 20, 5, 0.01}, {10_000, 12, 2, 0}} {
		o := sim.DefaultOptions(c.servers)
		o.Network.Loss = c.loss
		o.Settle += time.Duration(c.servers) * time.Millisecond
		o.Duration = time.Duration(4*c.crashes+5) * time.Second
		o.Faults = []sim.Fault{{Kind: sim.Crash, Who: sim.Who{Count: 1}, Within: 2 * time.Second, Every: 4 * time.Second, Times: c.crashes}}
		b, err := run(o, c.seeds*int(e))
		if err != nil {
			return nil, err
		}
		what := fmt.Sprintf("one crash of %d", c.servers)
		if c.loss > 0 {
			what += fmt.Sprintf(", %.0f%% loss each way", c.loss*100)
		}
		slow := b.first(func(r *sim.Result) bool { return slowest(r) > 1000 })
		rows = append(rows, Row{
			ID: "D1a", Experiment: what + " → avoided", Target: "p50 ≤ 500 ms, p99 ≤ 800 ms", Measured: quantiles(b.Avoided),
			Met: within(b.Avoided, 500, 800, never-1), Runs: b.Runs,
		}, Row{
			ID: "D1b", Experiment: what + " → removed", Target: "p50 ≤ 700 ms, p99 ≤ 900 ms, max ≤ 1 s", Measured: quantiles(b.Removed),
			Met: within(b.Removed, 700, 900, 1000), Runs: b.Runs, Replay: slow,
		}, b.safe("D1", what))
		if c.servers == 1000 {
			rows = append(rows, deciding(b, what))
		}
		if c.servers == 1000 && c.loss == 0 {
			rows = append(rows, probing(b, what))
		}
	}
	return rows, nil
}

// probing is D10.
func probing(b *batch, what string) Row {
	const most = 450
	return Row{
		ID: "D10", Experiment: what + ": echoes per server", Target: "≤ 450 B/s each way on IPv4", Runs: b.Runs, Met: b.BytesPerSecond <= most,
		Measured: fmt.Sprintf("%.0f B/s; %.2f probes/s", b.BytesPerSecond, b.ProbesPerSecond),
	}
}

// deciding is what the verdicts cost.
func deciding(b *batch, what string) Row {
	return Row{
		ID: "D1", Experiment: what + ": the coordinator decides", Target: "≤ 5% of a core", Runs: b.Runs, Met: b.StepShare <= 0.05,
		Measured: fmt.Sprintf("%.2f%%; %.0f messages/s, %.1f rounds/s", 100*b.StepShare, b.MessagesPerSec, b.RoundsPerSecond),
	}
}

// TenCrashes is D2: they leave in one revision.
func TenCrashes(e Effort) ([]Row, error) {
	o := sim.DefaultOptions(1000)
	o.Duration = 10 * time.Second
	o.Faults = []sim.Fault{{Kind: sim.Crash, Who: sim.Who{Count: 10}, At: time.Second}}
	b, err := run(o, 30*int(e))
	if err != nil {
		return nil, err
	}
	notOne := func(r *sim.Result) bool { return r.Revisions != 1 || !slices.Equal(r.Sizes, []int{1000, 990}) }
	one := 0
	for _, r := range b.results {
		if !notOne(r) {
			one++
		}
	}
	const what = "10 crashes at once of 1,000"
	return []Row{
		b.row(Row{ID: "D2", Experiment: what, Target: "removed ≤ 1 s", Measured: quantiles(b.Removed)}, func(r *sim.Result) bool { return slowest(r) > 1000 }),
		b.row(Row{
			ID: "D2", Experiment: what, Target: "one revision, sizes 1000 and 990",
			Measured: fmt.Sprintf("in %d of %d runs; at most %d sizes", one, b.Runs, b.DistinctSizes),
		}, notOne),
		b.safe("D2", what),
	}, nil
}

// AdjacentCrashes is D3: neighbours on the ring, the brake off.
func AdjacentCrashes(e Effort) ([]Row, error) {
	var rows []Row
	for _, c := range []struct {
		n, seeds int
		most     float64
	}{{10, 10, 1200}, {100, 10, 1500}, {320, 5, 2000}} {
		o := withoutBrake(sim.DefaultOptions(1000))
		o.Duration = time.Minute
		o.Faults = []sim.Fault{{Kind: sim.Crash, Who: sim.Who{Count: c.n, Adjacent: true}, At: time.Second}}
		b, err := run(o, c.seeds*int(e))
		if err != nil {
			return nil, err
		}
		what := fmt.Sprintf("%d adjacent crashes of 1,000, no brake", c.n)
		revisions := 0
		for _, r := range b.results {
			revisions = max(revisions, r.Revisions)
		}
		rows = append(rows,
			b.row(Row{
				ID: "D3", Experiment: what, Target: fmt.Sprintf("all removed ≤ %.1f s", c.most/1000), Measured: quantiles(b.Removed),
			}, func(r *sim.Result) bool { return slowest(r) > c.most }),
			b.row(Row{
				ID: "D3", Experiment: what, Target: "≤ 3 revisions", Measured: fmt.Sprintf("at most %d", revisions),
			}, func(r *sim.Result) bool { return r.Revisions > 3 }),
			b.safe("D3", what))
	}
	return rows, nil
}

// Bootstrap is D9: everybody joins an empty pool at once.
func Bootstrap(e Effort) ([]Row, error) {
	o := sim.DefaultOptions(2000)
	o.Bootstrap, o.CheckRing, o.Spread, o.Settle, o.Duration = true, true, 100*time.Millisecond, 0, 20*time.Second
	o.Store = sim.Store{Delay: 5 * time.Millisecond, Jitter: 3 * time.Millisecond, Row: 100 * time.Microsecond}
	b, err := run(o, 3*int(e))
	if err != nil {
		return nil, err
	}
	most := 0.0
	for _, r := range b.results {
		most = max(most, late(r.AllActiveMS))
	}
	const what = "2,000 join at once; commits of 5 ms and 0.1 ms a row"
	return []Row{
		b.row(Row{
			ID: "D9", Experiment: what, Target: "all active at a router ≤ 5 s",
			Measured: fmt.Sprintf("%s; %d sizes seen", ms(most), b.DistinctSizes),
		}, func(r *sim.Result) bool { return late(r.AllActiveMS) > 5000 }),
		b.safe("D9", what+": the ring at every revision"),
	}, nil
}
