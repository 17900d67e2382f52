package simulate

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/sim"
)

// report is what the command prints.
type report struct {
	Good    bool          `json:"good"`
	Summary sim.Summary   `json:"summary"`
	Runs    []*sim.Result `json:"runs"`
	// Replay are the commands that make failing runs again.
	Replay []string `json:"replay"`

	options sim.Options
}

func newReport(o sim.Options, results []*sim.Result) report {
	r := report{Good: true, Summary: sim.Summarise(results), Runs: results, Replay: []string{}, options: o}
	for _, res := range results {
		if !res.Good() {
			r.Good = false
			o.Seed = res.Seed
			r.Replay = append(r.Replay, o.Command())
		}
	}
	return r
}

// worstSeed is the first that failed, or the first.
func (r report) worstSeed() uint64 {
	for _, res := range r.Runs {
		if !res.Good() {
			return res.Seed
		}
	}
	return r.Runs[0].Seed
}

const (
	shownServers  = 12
	shownFailures = 5
)

func (r report) write(w io.Writer) error {
	var b strings.Builder
	r.writePlan(&b)
	r.writeOutcome(&b)
	r.writeDetection(&b)
	r.writeCost(&b)
	r.writeVerdict(&b)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (r report) writePlan(b *strings.Builder) {
	o := r.options
	seeds := fmt.Sprintf("seed %d", o.Seed)
	if len(r.Runs) > 1 {
		seeds = fmt.Sprintf("seeds %d to %d", o.Seed, o.Seed+uint64(len(r.Runs))-1)
	}
	fmt.Fprintf(b, "%s, %s, %v of virtual time, %s.\n\nDone to the pool:\n", several(o.Servers, "server"), several(o.Routers, "router"), o.Duration, seeds)
	nothing := true
	say := func(is bool, format string, args ...any) {
		if is {
			nothing = false
			fmt.Fprintf(b, "  "+format+"\n", args...)
		}
	}
	n := o.Network
	say(n.Loss > 0 && n.Model == sim.Independent, "the network loses %.3g%% of all packets each way", n.Loss*100)
	say(n.Loss > 0 && n.Model != sim.Independent, "the network loses %.3g%% of all packets each way, in bursts of %v that lose %.3g%% (%s)", n.Loss*100, n.Burst, n.BurstLoss*100, n.Model)
	say(o.Bootstrap, "all servers join an empty pool within %v", o.Spread)
	say(o.Store.Fail > 0, "%.3g%% of all commits fail", o.Store.Fail*100)
	say(o.Store.HangFor > 0, "the database hangs for %v", o.Store.HangFor)
	say(o.Chaos > 0, "%.3g%% of the agents' messages come twice, late, or out of order", o.Chaos*100)
	for i := range o.Faults {
		say(true, "%s", o.Faults[i].Tell())
	}
	say(nothing, "nothing")
}

func (r report) writeOutcome(b *strings.Builder) {
	s := r.Summary
	fmt.Fprintf(b, "\nWhat came of it, in %s and %s:\n", several(s.Runs, "run"), serverTime(s.ServerYears))
	fmt.Fprintf(b, "  removed though healthy: %d\n", s.WrongRemovals)
	shown := 0
	for _, res := range r.Runs {
		for _, wrong := range res.WrongRemovals {
			if shown++; shown <= shownFailures {
				fmt.Fprintf(b, "    seed %d, at %.3f s: %s\n", res.Seed, wrong.AtMS/1000, wrong.Text)
			}
		}
	}
	fmt.Fprintf(b, "  suspect though healthy: %s, %.1f s in all", several(s.WrongSuspects, "time"), s.WrongSuspectSeconds)
	if s.WrongSuspects > 0 {
		fmt.Fprintf(b, "; once in %s, for %s on average", serverTime(s.RecurrenceYears), ms(1000*s.WrongSuspectSeconds/float64(s.WrongSuspects)))
	}
	fmt.Fprintf(b, "\n  revisions with removals: %d; %s", s.RemovalRevisions, r.sizes())
	last := r.Runs[len(r.Runs)-1]
	fmt.Fprintf(b, "\n  at the end of the last run: %d members, %d given out (never fewer than %d), %d agents connected\n",
		last.Members, last.Active, last.FewestActive, last.Connected)
	if len(last.AlarmsLeft) > 0 {
		fmt.Fprintf(b, "  alarms then: %s\n", shorten(last.AlarmsLeft))
	}
	if hits := removedHits(last); len(hits) > 0 {
		fmt.Fprintf(b, "  of those struck but not crashed for good, removed in the last run: %s\n", shorten(hits))
	}
}

// sizes says which sizes of the pool a subscriber saw.
func (r report) sizes() string {
	first := r.Runs[0].Sizes
	switch {
	case len(first) > shownServers:
		return fmt.Sprintf("a subscriber saw at most %s of the pool in a run", several(r.Summary.DistinctSizes, "size"))
	case len(r.Runs) > 1:
		return fmt.Sprintf("a subscriber saw at most %s of the pool in a run; in the first: %s", several(r.Summary.DistinctSizes, "size"), list(first))
	}
	return "a subscriber saw these sizes of the pool: " + list(first)
}

func removedHits(r *sim.Result) []string {
	var texts []string
	for _, h := range r.Stricken {
		if h.Removals > 0 {
			texts = append(texts, fmt.Sprintf("%s after %s (%s)", h.Server, ms(h.RemovedMS), several(h.Removals, "time")))
		}
	}
	return texts
}

func (r report) writeDetection(b *strings.Builder) {
	s := r.Summary
	if s.Removed.Count == 0 {
		return
	}
	crashes := "1 crash"
	if s.Removed.Count > 1 {
		crashes = fmt.Sprintf("%d crashes", s.Removed.Count)
	}
	fmt.Fprintf(b, "\n%s:\n", crashes)
	g := output.NewGrid("  UNTIL THE LAST ROUTER KNEW", "P50", "P99", "MAX")
	g.Add("  crash → avoided", ms(s.Avoided.P50), ms(s.Avoided.P99), ms(s.Avoided.Max))
	g.Add("  crash → removed", ms(s.Removed.P50), ms(s.Removed.P99), ms(s.Removed.Max))
	_ = g.Write(b, 0) // a strings.Builder does not fail
	if len(r.Runs) > 1 || len(r.Runs[0].Crashes) > shownServers {
		return
	}
	b.WriteByte('\n')
	g = output.NewGrid("  SERVER", "CRASHED AT", "AVOIDED AFTER", "REMOVED AFTER", "REVISION")
	for _, c := range r.Runs[0].Crashes {
		g.Add("  "+c.Server, ms(c.AtMS), ms(c.AvoidedMS), ms(c.RemovedMS), strconv.FormatUint(c.Revision, 10))
	}
	_ = g.Write(b, 0)
}

func (r report) writeCost(b *strings.Builder) {
	s := r.Summary
	fmt.Fprintf(b, "\nWhat it cost:\n")
	fmt.Fprintf(b, "  each server sends %.2f probes a second and %.0f bytes a second for them and its replies (52 bytes each on IPv4)\n", s.ProbesPerSecond, s.BytesPerSecond)
	fmt.Fprintf(b, "  the coordinator handles %.0f messages and opens %.2f rounds a second; deciding takes %.2f%% of a core\n", s.MessagesPerSec, s.RoundsPerSecond, 100*s.StepShare)
}

func (r report) writeVerdict(b *strings.Builder) {
	b.WriteByte('\n')
	if r.Good {
		b.WriteString("Good: no healthy server was removed")
		if r.Summary.Removed.Count > 0 {
			b.WriteString(", and every dead one was")
		}
		b.WriteString(".\n")
		return
	}
	fmt.Fprintf(b, "Bad: %d healthy servers were removed, %d dead ones were not, the ring broke %d times.\n",
		r.Summary.WrongRemovals, r.Summary.Remaining, r.Summary.BrokenRings)
	if r.Summary.Remaining > 0 && r.braked() {
		b.WriteString("The brake holds the dead ones, as it should when so many go at once; an operator would release it.\n")
	}
	b.WriteString("To see a failing run again:\n")
	for i, command := range r.Replay {
		if i == shownFailures {
			fmt.Fprintf(b, "  … and %d more seeds\n", len(r.Replay)-i)
			break
		}
		fmt.Fprintf(b, "  %s\n", command)
	}
}

// braked reports whether the brake was on at the end of a run.
func (r report) braked() bool {
	return slices.ContainsFunc(r.Runs, func(res *sim.Result) bool {
		return slices.ContainsFunc(res.AlarmsLeft, func(a string) bool { return strings.HasPrefix(a, "BRAKE") })
	})
}

// several counts things.
func several(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// serverTime is a time that servers have lived through together.
func serverTime(years float64) string {
	switch hours := years * 365.25 * 24; {
	case hours < 100:
		return fmt.Sprintf("%.2g server-hours", hours)
	case years < 1:
		return fmt.Sprintf("%.3g server-days", hours/24)
	}
	return fmt.Sprintf("%.4g server-years", years)
}

// ms is a time in milliseconds for people.
func ms(v float64) string {
	if v < 0 {
		return "never"
	}
	return time.Duration(v * float64(time.Millisecond)).Round(time.Millisecond).String()
}

func list(numbers []int) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ", ")
}

func shorten(texts []string) string {
	if more := len(texts) - shownFailures; more > 0 {
		return strings.Join(texts[:shownFailures], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(texts, ", ")
}
