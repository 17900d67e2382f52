// Package detect makes experiments with a pool of real agents on a private
// network. Run measures how soon a crash is noticed: one host after another is
// lost, and the time is taken until the routers avoid it and until they know
// that it is removed. Versus does the same to memberlist, in turns. Calm plays
// faults that must not remove anybody, and Cost measures a pool at rest.
//
// Every report says how starved the machine was. The package judges nothing:
// its figures are compared with their aims by people.
package detect

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The kinds of crash, in turn.
const (
	// KindLink pulls the cable; the host lives on and hears nobody.
	KindLink = "link"
	// KindHost pulls the cable and kills the agent.
	KindHost = "host"
)

// Sample is one crash. Times are counted from just before the cable was
// pulled.
type Sample struct {
	Server string
	Kind   string
	// Avoided is when a router last named the server to a client; 0 if none has
	// since.
	Avoided time.Duration
	// Removed is when the last router had confirmed the removal.
	Removed time.Duration
	// Late is the largest lateness of a timer meanwhile; see Strain.
	Late time.Duration
	// Rounds is how many rounds of questions the removal has taken.
	Rounds int
}

// Start is how long a pool took to come up.
type Start struct {
	// Starting is from the first agent's start to the last one's, Settled from
	// then until all were active and had confirmed whom they watch; in seconds.
	Starting float64 `json:"starting_s"`
	Settled  float64 `json:"settled_s"`
}

func (s Start) text() string {
	return fmt.Sprintf("The agents were started within %.1f s, and all was settled %.1f s later.", s.Starting, s.Settled)
}

// Strain says how starved the machine was meanwhile. Figures taken on a starved
// one tell more of it than of what was measured.
type Strain struct {
	// Late is how late timers of the measuring program were, in milliseconds.
	Late Summary `json:"late"`
	// Busy is the share of the processors' time that was not idle, in percent, by
	// whichever program.
	Busy float64 `json:"busy_percent"`
}

// starved is the lateness of a timer from which a machine counts as starved:
// agents and coordinator wait as long, several times in a row.
const starved = 30 * time.Millisecond

func (s Strain) text() string {
	text := fmt.Sprintf("Processors %.0f %% busy; timers late by p50 %.1f ms, p99 %.1f ms, max %.1f ms.",
		s.Busy, s.Late.P50, s.Late.P99, s.Late.Max)
	if s.Late.Max >= milliseconds(starved) {
		text += " The machine was starved: these times say more about it than about the system."
	}
	return text
}

// Setting is where an experiment was made.
type Setting struct {
	Date    string `json:"date"`
	Machine string `json:"machine"`
	Servers int    `json:"servers"`
	Routers int    `json:"routers"`
	Start   Start  `json:"start"`
}

// text ends what experiment was made.
func (s Setting) text(what string) string {
	return fmt.Sprintf("%s Pool of %d, %d routers. %s, %s.\n%s\n", what, s.Servers, s.Routers, s.Date, s.Machine, s.Start.text())
}

// Report is what crashes have shown, in milliseconds.
type Report struct {
	Setting
	Strain  Strain `json:"strain"`
	Crashes int    `json:"crashes"`
	// Avoided is crash to last pick by any router, Removed crash to the last
	// router's confirmation of the removal.
	Avoided Summary `json:"avoided"`
	Removed Summary `json:"removed"`
	// ByKind are the same per kind of crash.
	ByKind []KindReport `json:"by_kind"`
	// Rounds is how many removals took one round of questions, two, and so on.
	Rounds []int `json:"rounds"`
	// WrongRemovals lists servers that were removed without a crash.
	WrongRemovals []string `json:"wrong_removals"`
	samples       []Sample
}

// KindReport is the part of a report about one kind of crash.
type KindReport struct {
	Kind    string  `json:"kind"`
	Crashes int     `json:"crashes"`
	Avoided Summary `json:"avoided"`
	Removed Summary `json:"removed"`
}

// Summary are quantiles by nearest rank, in milliseconds.
type Summary struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func summarize(samples []Sample, of func(Sample) time.Duration) Summary {
	times := make([]time.Duration, len(samples))
	for i, s := range samples {
		times[i] = of(s)
	}
	return quantiles(times)
}

// quantiles sorts times.
func quantiles(times []time.Duration) Summary {
	if len(times) == 0 {
		return Summary{}
	}
	slices.Sort(times)
	rank := func(q float64) float64 {
		i := int(math.Ceil(q*float64(len(times)))) - 1
		return milliseconds(times[max(0, i)])
	}
	return Summary{P50: rank(0.50), P99: rank(0.99), Max: rank(1)}
}

// milliseconds and seconds are for people: with one digit after the point.
func milliseconds(d time.Duration) float64 { return round(float64(d)/float64(time.Millisecond), 1) }

func seconds(d time.Duration) float64 { return round(d.Seconds(), 1) }

func round(x float64, digits int) float64 {
	shift := math.Pow10(digits)
	return math.Round(x*shift) / shift
}

func avoided(s Sample) time.Duration { return s.Avoided }

func removed(s Sample) time.Duration { return s.Removed }

// summary is the report of samples, without what only the site knows.
func summary(samples []Sample) Report {
	r := Report{
		Crashes: len(samples), Avoided: summarize(samples, avoided), Removed: summarize(samples, removed),
		WrongRemovals: []string{}, samples: samples,
	}
	kinds := map[string][]Sample{}
	for _, s := range samples {
		for len(r.Rounds) < s.Rounds {
			r.Rounds = append(r.Rounds, 0)
		}
		if s.Rounds > 0 {
			r.Rounds[s.Rounds-1]++
		}
		kinds[s.Kind] = append(kinds[s.Kind], s)
	}
	for kind, of := range kinds {
		r.ByKind = append(r.ByKind, KindReport{kind, len(of), summarize(of, avoided), summarize(of, removed)})
	}
	slices.SortFunc(r.ByKind, func(a, b KindReport) int { return cmp.Compare(a.Kind, b.Kind) })
	return r
}

// Write writes the report for people, as Markdown.
func (r Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n\n", r.text(fmt.Sprintf("One crash, %d times.", r.Crashes)), r.Strain.text())
	rows := [][]string{{"", "p50", "p99", "max"}}
	row := func(name string, s Summary) {
		rows = append(rows, []string{name, ms(s.P50), ms(s.P99), ms(s.Max)})
	}
	row("crash → avoided", r.Avoided)
	row("crash → removed", r.Removed)
	for _, k := range r.ByKind {
		name := map[string]string{KindLink: "link down", KindHost: "host dead"}[k.Kind]
		row(fmt.Sprintf("%s (%d) → avoided", name, k.Crashes), k.Avoided)
		row(fmt.Sprintf("%s (%d) → removed", name, k.Crashes), k.Removed)
	}
	b.WriteString(table(rows))
	var rounds []string
	for i, n := range r.Rounds {
		rounds = append(rounds, fmt.Sprintf("%d × %d", n, i+1))
	}
	fmt.Fprintf(&b, "\nRounds of questions per removal: %s", strings.Join(rounds, ", "))
	fmt.Fprintf(&b, "\nRemoved without a crash: %d%s\n", len(r.WrongRemovals), named(r.WrongRemovals))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func ms(x float64) string { return fmt.Sprintf("%.0f ms", x) }

// table is a Markdown table; the first row is its head.
func table(rows [][]string) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	for i, row := range rows {
		_, _ = fmt.Fprintf(t, "| %s\t|\n", strings.Join(row, "\t| ")) // a Builder takes everything
		if i == 0 {
			_, _ = fmt.Fprintf(t, "|%s\n", strings.Repeat(" ---\t|", len(row)))
		}
	}
	_ = t.Flush()
	return b.String()
}

func named(ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return " (" + strings.Join(ids, ", ") + ")"
}

// machine says on what this ran.
func machine(kernel string) string {
	return fmt.Sprintf("%d cores, %s/%s, kernel %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, kernel)
}
