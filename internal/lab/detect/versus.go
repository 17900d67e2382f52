package detect

import (
	"fmt"
	"io"
	"strings"
)

// VersusReport compares buddyring with memberlist.
type VersusReport struct {
	Date       string `json:"date"`
	Machine    string `json:"machine"`
	Servers    int    `json:"servers"`
	Crashes    int    `json:"crashes"`
	Rounds     int    `json:"rounds"`
	Buddyring  Side   `json:"buddyring"`
	Memberlist Side   `json:"memberlist"`
	// Ratios are memberlist's times in buddyring's.
	FirstRatio Summary `json:"first_ratio"`
	LastRatio  Summary `json:"last_ratio"`
}

// Side is one of the two. Times are from the crash, in milliseconds.
type Side struct {
	// Version is memberlist's.
	Version string `json:"version,omitempty"`
	// First is when the first acts on it: in buddyring the last pick of the server
	// by any router, for they avoid it together; in memberlist the first member
	// that calls it dead.
	First Summary `json:"first"`
	// Last is when the last knows it: in buddyring the last router that has
	// confirmed the removal, in memberlist the last member that calls it dead.
	Last Summary `json:"last"`
	// Wrong lists those removed, or called dead, without a crash.
	Wrong []string `json:"wrong"`
	// Strains are the machine's in each round.
	Strains []Strain `json:"strains"`
	samples []Sample
}

// gossipReport is what crashes have shown in memberlist: Avoided is the first
// member's time, Removed the last one's.
type gossipReport struct {
	version string
	samples []Sample
	wrong   []string
	strain  Strain
}

// add adds a round.
func (r *VersusReport) add(ours Report, theirs gossipReport) {
	r.Date, r.Machine, r.Servers = ours.Date, ours.Machine, ours.Servers
	r.Crashes += ours.Crashes
	r.Memberlist.Version = theirs.version
	r.Buddyring.add(ours.samples, ours.WrongRemovals, ours.Strain)
	r.Memberlist.add(theirs.samples, theirs.wrong, theirs.strain)
}

func (s *Side) add(samples []Sample, wrong []string, strain Strain) {
	s.samples = append(s.samples, samples...)
	s.Wrong = append(s.Wrong, wrong...)
	s.Strains = append(s.Strains, strain)
}

// sum takes the figures of all rounds together.
func (r *VersusReport) sum() {
	for _, s := range []*Side{&r.Buddyring, &r.Memberlist} {
		s.First, s.Last = summarize(s.samples, avoided), summarize(s.samples, removed)
	}
	r.FirstRatio = ratio(r.Memberlist.First, r.Buddyring.First)
	r.LastRatio = ratio(r.Memberlist.Last, r.Buddyring.Last)
}

func ratio(a, b Summary) Summary {
	of := func(a, b float64) float64 {
		if b == 0 {
			return 0
		}
		return round(a/b, 1)
	}
	return Summary{P50: of(a.P50, b.P50), P99: of(a.P99, b.P99), Max: of(a.Max, b.Max)}
}

// Write writes the report for people, as Markdown.
func (r VersusReport) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "One crash of %d servers, %d times in each system, in %d turns. %s, %s.\n\n", r.Servers, r.Crashes, r.Rounds, r.Date, r.Machine)
	rows := [][]string{{"crash → …", "", "buddyring", "memberlist " + r.Memberlist.Version + ", LAN", "ratio"}}
	for _, part := range []struct {
		name                string
		ours, theirs, times Summary
	}{
		{"first to act", r.Buddyring.First, r.Memberlist.First, r.FirstRatio},
		{"last to know", r.Buddyring.Last, r.Memberlist.Last, r.LastRatio},
	} {
		row := func(quantile string, ours, theirs, times float64) {
			rows = append(rows, []string{part.name, quantile, ms(ours), ms(theirs), fmt.Sprintf("%.1f ×", times)})
		}
		row("p50", part.ours.P50, part.theirs.P50, part.times.P50)
		row("p99", part.ours.P99, part.theirs.P99, part.times.P99)
		row("max", part.ours.Max, part.theirs.Max, part.times.Max)
	}
	b.WriteString(table(rows))
	b.WriteString(`
First to act: buddyring's routers have named the server to a client for the last time; the first member of memberlist
calls it dead. Last to know: the last router has confirmed the removal; the last member of memberlist calls it dead.
`)
	fmt.Fprintf(&b, "Called dead without a crash: buddyring %d%s, memberlist %d%s\n", len(r.Buddyring.Wrong), named(r.Buddyring.Wrong),
		len(r.Memberlist.Wrong), named(r.Memberlist.Wrong))
	for i := range r.Rounds {
		fmt.Fprintf(&b, "Round %d, buddyring:  %s\nRound %d, memberlist: %s\n", i+1, r.Buddyring.Strains[i].text(), i+1, r.Memberlist.Strains[i].text())
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
