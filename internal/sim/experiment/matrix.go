package experiment

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/sim"
)

// SickObservers is D5: every server deaf, every pair of watchers deaf, every
// edge broken, every liar with every lie, in pools of several sizes; and crashes
// beside a liar that says "up". Pools of one to four have a table of their own.
func SickObservers(e Effort) ([]Row, error) {
	var rows []Row
	for _, n := range []int{2, 3, 4, 7, 50} {
		for _, c := range sickness(n) {
			b, err := runEach(c.options, int(e))
			if err != nil {
				return nil, err
			}
			what := fmt.Sprintf("N = %d: %s", n, c.what)
			rows = append(rows, b.safe("D5", what))
			if c.most > 0 {
				rows = append(rows, b.row(Row{
					ID: "D5", Experiment: what, Target: fmt.Sprintf("removed ≤ %.0f s", c.most/1000), Measured: quantiles(b.Removed),
				}, func(r *sim.Result) bool { return slowest(r) > c.most }))
			}
		}
	}
	small, err := SmallPools(e)
	return append(rows, small...), err
}

// sick is one kind of sickness, for every server that may have it.
type sick struct {
	what    string
	options []sim.Options
	// most is by when a crashed server must be gone, in milliseconds; 0 for none.
	most float64
}

func sickness(n int) []sick {
	deaf, pairs, edges := sick{what: "each server deaf"}, sick{what: "both watchers of each server deaf"}, sick{what: "each edge broken"}
	liars := make([]sick, len(sim.Lies()))
	beside := sick{what: "a crash beside each liar that says up", most: 3000}
	one := func(faults ...sim.Fault) sim.Options {
		o := sim.DefaultOptions(n)
		o.Duration, o.Faults = 20*time.Second, faults
		return o
	}
	for i := 1; i <= n; i++ {
		me := sim.Who{Servers: []int{i}}
		deaf.options = append(deaf.options, one(sim.Fault{Kind: sim.Deafen, Who: me}))
		o := one(sim.Fault{Kind: sim.Deafen, Who: sim.Who{Watchers: 1}})
		o.Seed = uint64(i)
		pairs.options = append(pairs.options, o)
		edges.options = append(edges.options, one(sim.Fault{Kind: sim.BreakEdge, Who: me}))
		for k := range liars {
			liars[k].what = "each server a liar: " + sim.Lies()[k]
			liars[k].options = append(liars[k].options, one(sim.Fault{Kind: sim.MakeLiar, Lie: sim.Lie(k + 1), Who: me}))
		}
		o = one(sim.Fault{Kind: sim.MakeLiar, Lie: sim.SaysUp, Who: sim.Who{Watchers: 1, Either: true}},
			sim.Fault{Kind: sim.Crash, Who: sim.Who{Watched: true}, At: 3 * time.Second})
		o.Seed = uint64(i)
		beside.options = append(beside.options, o)
	}
	all := append([]sick{deaf, edges}, liars...)
	if n > 3 {
		// With fewer, nobody is left to say better.
		all = append(all, pairs)
	}
	if n >= 7 {
		all = append(all, beside)
	}
	return all
}

// SmallPools is the table of N = 1 to 4 and of what may happen there.
func SmallPools(e Effort) ([]Row, error) {
	var rows []Row
	for n := 1; n <= 4; n++ {
		for _, c := range []struct {
			what    string
			fault   sim.Fault
			removed bool
		}{
			{"a crash", sim.Fault{Kind: sim.Crash, Who: sim.Who{Count: 1}, At: 2 * time.Second}, n > 1},
			{"an agent killed", sim.Fault{Kind: sim.RestartAgent, Who: sim.Who{Count: 1}, At: 2 * time.Second, For: time.Hour}, false},
			{"the way to the coordinator cut", sim.Fault{Kind: sim.CutOff, Who: sim.Who{Count: 1}, At: 2 * time.Second}, false},
		} {
			o := sim.DefaultOptions(n)
			o.Duration, o.Faults = 30*time.Second, []sim.Fault{c.fault}
			b, err := run(o, 5*int(e))
			if err != nil {
				return nil, err
			}
			want := n
			if c.removed {
				want--
			}
			rows = append(rows, b.row(Row{
				ID: "D5", Experiment: fmt.Sprintf("N = %d: %s", n, c.what), Safety: true,
				Target: fmt.Sprintf("%d left", want), Measured: fmt.Sprintf("%d left", b.results[0].Members),
			}, func(r *sim.Result) bool { return r.Members != want || len(r.WrongRemovals) > 0 }))
		}
	}
	return rows, nil
}
