package experiment

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/sim"
)

// BackgroundLoss is D8. How many server-years fit is said; with no removal in
// them, the 95 % bound on the rate is 3 divided by them.
func BackgroundLoss(e Effort) ([]Row, error) {
	var rows []Row
	for _, c := range []struct {
		loss  float64
		model sim.LossModel
	}{
		{0.01, sim.Independent},
		{0.01, sim.LinkBursts},
		{0.01, sim.HostBursts},
		{0.05, sim.Independent},
		{0.05, sim.LinkBursts},
		{0.05, sim.HostBursts},
	} {
		o := sim.DefaultOptions(500)
		o.Network.Loss, o.Network.Model, o.Duration = c.loss, c.model, minutes(5)
		target, seeds := "0 healthy removed in 3,000 server-years", 4
		if c.loss > 0.01 {
			target, seeds = "≤ 1 healthy removed in 1,000 server-years", 1
		}
		b, err := run(o, seeds*int(e))
		if err != nil {
			return nil, err
		}
		what := fmt.Sprintf("%.0f%% loss each way, %s", c.loss*100, c.model)
		rows = append(rows, b.row(Row{
			ID: "D8", Experiment: what, Target: target, Safety: true, Unproven: b.WrongRemovals == 0 && b.ServerYears < 1000,
			Measured: fmt.Sprintf("%d removed in %.3g server-years (a rate below %.3g a year); %d wrong suspects, %.0f ms each", b.WrongRemovals,
				b.ServerYears, bound(b.WrongRemovals)/b.ServerYears, b.WrongSuspects, 1000*b.WrongSuspectSeconds/max(1, float64(b.WrongSuspects))),
		}, func(r *sim.Result) bool { return !r.Good() }))
	}
	for _, c := range []rare{
		{"taken out as lossy", false, 2 * time.Second, []member.Cause{member.CauseLossy}},
		{"taken out as dead, when both ways fail at once", true, 800 * time.Millisecond, []member.Cause{member.CauseCrashed, member.CauseUnreachable}},
	} {
		for _, loss := range []float64{0.01, 0.05} {
			row, err := rareBursts(e, loss, c)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// bound is the upper end of the one-sided 95 % interval of a Poisson mean of
// which n was seen: 3.0 for none, and roughly n + 1.65·√n + 2.7 otherwise.
func bound(n int) float64 {
	if n == 0 {
		return 3
	}
	x := float64(n)
	return x + 1.645*math.Sqrt(x) + 2.7
}

// rare is a way of bursts to take a host out.
type rare struct {
	what string
	both bool
	// longer is how long bursts are for those that are struck.
	longer time.Duration
	causes []member.Cause
}

// rareBursts estimates how often bursts of loss that take a whole host have it
// removed, which plain runs are too short to see, by importance sampling: bursts
// begin at hosts, and are longer at them for ten seconds than the network's; a
// removal counts the likelihood of what led to it. One that follows several bursts
// counts for each, so that the rate is too high, at 5 % by some 2.7 times:
//
//	rate = bursts per year · mean of the likelihoods, 0 for those who stay
func rareBursts(e Effort, loss float64, c rare) (Row, error) {
	const struck, together, every = 200, 20, 14 * time.Second
	o := withoutBrake(sim.DefaultOptions(struck))
	o.Network.Loss, o.Network.Model = loss, sim.HostBursts
	o.Duration = struck / together * every
	all := numbers(struck)
	for i := 0; i < struck; i += together {
		o.Faults = append(o.Faults, sim.Fault{
			Kind: sim.LengthenBursts, Who: sim.Who{Servers: all[i : i+together]}, At: time.Duration(i/together) * every,
			Within: 3 * time.Second, For: 10 * time.Second, Burst: c.longer, Both: c.both,
		})
	}
	b, err := run(o, 4*int(e))
	if err != nil {
		return Row{}, err
	}
	var sum, squares float64
	hosts, removed := 0, 0
	for _, r := range b.results {
		for _, h := range r.Stricken {
			hosts++
			if h.RemovedMS >= 0 && slices.ContainsFunc(c.causes, func(cause member.Cause) bool { return h.Cause == cause.String() }) {
				removed++
				sum, squares = sum+h.Likelihood, squares+h.Likelihood*h.Likelihood
			}
		}
	}
	either, perYear := o.Network.BurstsPerYear()
	if !c.both {
		perYear = either
	}
	mean := sum / float64(hosts)
	deviation := math.Sqrt((squares/float64(hosts) - mean*mean) / float64(hosts))
	most := 1.0 / 3000
	if loss > 0.01 {
		most = 1.0 / 1000
	}
	// So many samples of one weight say as much; a few say nothing.
	samples := sum * sum / max(squares, math.SmallestNonzeroFloat64)
	return Row{
		ID: "D8", Experiment: fmt.Sprintf("%.0f%% loss each way, %s, %s", loss*100, sim.HostBursts, c.what),
		Target:   fmt.Sprintf("≤ %.2g a server-year", most),
		Measured: fmt.Sprintf("%.2g ± %.1g a server-year (%d of %d with longer bursts, weighed: worth %.0f)", perYear*mean, perYear*deviation, removed, hosts, samples),
		Met:      samples >= 10 && perYear*(mean+1.645*deviation) <= most, Runs: len(b.results), Replay: b.options[0].Command(),
	}, nil
}
