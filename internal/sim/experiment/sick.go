package experiment

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/sim"
)

// BadNetworks is D4: servers that receive nothing half of the time, and servers
// that lose 80 % of what they receive, send, or both.
func BadNetworks(e Effort) ([]Row, error) {
	const bad = 10
	flip := sim.Fault{
		Kind: sim.LoseIngress, Loss: 1, Who: sim.Who{Count: bad}, At: time.Second, For: 20 * time.Second, Every: 40 * time.Second, Times: 22, Same: true,
	}
	in := sim.Fault{Kind: sim.LoseIngress, Loss: 0.8, Who: sim.Who{Count: bad}, At: time.Second}
	out := in
	out.Kind = sim.LoseEgress
	in2, out2 := in, out
	in2.Who, out2.Who = sim.Who{Servers: numbers(bad)}, sim.Who{Servers: numbers(bad)}
	var rows []Row
	for _, c := range []struct {
		what     string
		faults   []sim.Fault
		duration time.Duration
		most     int
	}{
		{"10 of 1,000 receive nothing, 20 s of every 40 s, 15 min", []sim.Fault{flip}, minutes(15), 1},
		{"10 of 1,000 lose 80% of what they receive, 15 min", []sim.Fault{in}, minutes(15), 1},
		{"10 of 1,000 lose 80% of what they send, 15 min", []sim.Fault{out}, minutes(15), 1},
		{"10 of 1,000 lose 80% both ways, 15 min", []sim.Fault{in2, out2}, minutes(15), 1},
	} {
		o := sim.DefaultOptions(1000)
		o.Duration, o.Faults = c.duration, c.faults
		b, err := run(o, int(e))
		if err != nil {
			return nil, err
		}
		rows = append(rows, badNetwork(b, c.what, c.most), b.safe("D4", c.what))
	}
	return rows, nil
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i + 1
	}
	return all
}

// badNetwork says whether exactly the bad ones went, soon and few times.
func badNetwork(b *batch, what string, most int) Row {
	gone, hits, slow, times := 0, 0, 0.0, 0
	for _, r := range b.results {
		for _, h := range r.Stricken {
			hits++
			if h.Removals > 0 {
				gone++
				slow = max(slow, h.RemovedMS)
			}
			times = max(times, h.Removals)
		}
	}
	return b.row(Row{
		ID: "D4", Experiment: what, Target: fmt.Sprintf("exactly those, ≤ 5 s, ≤ %d removals each", most),
		Measured: fmt.Sprintf("%d of %d gone, the last after %s, at most %d times", gone, hits, ms(slow), times),
	}, func(r *sim.Result) bool {
		for _, h := range r.Stricken {
			if h.Removals == 0 || h.Removals > most || h.RemovedMS > 5000 {
				return true
			}
		}
		return false
	})
}

// BlockedAgents is D6: stopped and starved agents, whose kernels answer.
func BlockedAgents(e Effort) ([]Row, error) {
	const servers = 128
	var stopped, starved []sim.Options
	for _, n := range []int{1, 4, 8, 16, 32} {
		for _, long := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 8 * time.Second, 32 * time.Second} {
			o := sim.DefaultOptions(servers)
			o.Duration = minutes(5)
			every := long + long/4
			o.Faults = []sim.Fault{{
				Kind: sim.PauseAgent, Who: sim.Who{Count: n}, At: time.Second, For: long, Every: every, Times: int(o.Duration / every),
			}}
			stopped = append(stopped, o)
		}
		o := sim.DefaultOptions(servers)
		o.Duration = minutes(5)
		o.Faults = []sim.Fault{{Kind: sim.StarveAgent, Who: sim.Who{Count: n}, At: time.Second}}
		starved = append(starved, o)
	}
	var rows []Row
	for _, c := range []struct {
		what    string
		options []sim.Options
	}{
		{"agents stopped for 0.5 to 32 s, 1 to 32 of 128 at a time", stopped},
		{"agents starved of the processor, 1 to 32 of 128", starved},
	} {
		b, err := runEach(c.options, int(e))
		if err != nil {
			return nil, err
		}
		rows = append(rows, b.row(Row{
			ID: "D6", Experiment: c.what, Target: "0 suspects", Measured: fmt.Sprintf("%d suspects", b.WrongSuspects),
		}, func(r *sim.Result) bool { return r.WrongSuspects > 0 }), b.safe("D6", c.what))
	}
	return rows, nil
}

// runEach runs several options, each with so many seeds.
func runEach(options []sim.Options, seeds int) (*batch, error) {
	all := &batch{}
	for _, o := range options {
		b, err := run(o, seeds)
		if err != nil {
			return nil, err
		}
		all.options, all.results = append(all.options, b.options...), append(all.results, b.results...)
	}
	all.Summary = sim.Summarise(all.results)
	return all, nil
}

// CutCoordinator is D7: half of the agents cannot reach the coordinator for ten
// minutes, though everybody reaches everybody else.
func CutCoordinator(e Effort) ([]Row, error) {
	const cutAt, cutFor = 10 * time.Second, 10 * time.Minute
	o := sim.DefaultOptions(1000)
	o.Duration = cutAt + cutFor + 30*time.Second
	o.Faults = []sim.Fault{{Kind: sim.CutOff, Who: sim.Who{Share: 0.5}, At: cutAt, For: cutFor}}
	b, err := run(o, int(e))
	if err != nil {
		return nil, err
	}
	healed := float64((cutAt + cutFor).Milliseconds())
	back, fewest := 0.0, o.Servers
	for _, r := range b.results {
		back, fewest = max(back, r.LastWelcomeMS-healed), min(fewest, r.FewestActive)
	}
	const what = "the coordinator cut off from half of 1,000 for 10 min"
	return []Row{
		b.row(Row{
			ID: "D7", Experiment: what, Target: "the list served throughout", Measured: fmt.Sprintf("never fewer than %d of 1,000", fewest),
		}, func(r *sim.Result) bool { return r.FewestActive < r.Servers }),
		b.row(Row{
			ID: "D7", Experiment: what, Target: "all agents back ≤ 5 s after healing", Measured: ms(back),
		}, func(r *sim.Result) bool { return r.LastWelcomeMS-healed > 5000 || r.Connected < r.Servers }),
		b.safe("D7", what),
	}, nil
}

// ShortOutages is D11.
func ShortOutages(e Effort) ([]Row, error) {
	var rows []Row
	for _, c := range []struct {
		what  string
		fault sim.Fault
		grace time.Duration
	}{
		{
			"1,000 links down for 400 ms",
			sim.Fault{Kind: sim.Unplug, Who: sim.Who{Count: 20}, Within: time.Second, For: 400 * time.Millisecond, Every: time.Second, Times: 50},
			0,
		},
		{
			"1,000 agents stopped for 3 s",
			sim.Fault{Kind: sim.PauseAgent, Who: sim.Who{Count: 20}, Within: time.Second, For: 3 * time.Second, Every: time.Second, Times: 50},
			0,
		},
		{
			"1,000 servers suspended for 3 s, removal_grace 5 s",
			sim.Fault{Kind: sim.Suspend, Who: sim.Who{Count: 20}, Within: time.Second, For: 3 * time.Second, Every: time.Second, Times: 50},
			5 * time.Second,
		},
	} {
		o := withoutBrake(sim.DefaultOptions(1000))
		o.Settings.RemovalGrace = c.grace
		o.Faults = []sim.Fault{c.fault}
		b, err := run(o, 2*int(e))
		if err != nil {
			return nil, err
		}
		removed := 0
		for _, r := range b.results {
			for _, h := range r.Stricken {
				removed += h.Removals
			}
		}
		rows = append(rows, b.row(Row{
			ID: "D11", Experiment: c.what, Target: "0 removals", Safety: true,
			Measured: fmt.Sprintf("%d removals; %d suspects of others", removed+b.WrongRemovals, b.WrongSuspects),
		}, func(r *sim.Result) bool {
			for _, h := range r.Stricken {
				if h.Removals > 0 {
					return true
				}
			}
			return !r.Good()
		}))
	}
	return rows, nil
}
