// Package detect measures how soon a crash is noticed: a pool of real agents
// loses one host after another, and the time is taken until the routers avoid
// it and until they know that it is removed.
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
}

// Report is what an experiment has shown, in milliseconds.
type Report struct {
	Date    string `json:"date"`
	Machine string `json:"machine"`
	Servers int    `json:"servers"`
	Crashes int    `json:"crashes"`
	Routers int    `json:"routers"`
	// Avoided is crash to last pick by any router, Removed crash to the last
	// router's confirmation of the removal.
	Avoided Summary `json:"avoided"`
	Removed Summary `json:"removed"`
	// ByKind are the same per kind of crash.
	ByKind []KindReport `json:"by_kind"`
	// WrongRemovals lists servers that were removed without a crash.
	WrongRemovals []string `json:"wrong_removals"`
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
	if len(samples) == 0 {
		return Summary{}
	}
	times := make([]time.Duration, len(samples))
	for i, s := range samples {
		times[i] = of(s)
	}
	slices.Sort(times)
	rank := func(q float64) float64 {
		i := int(math.Ceil(q*float64(len(times)))) - 1
		return float64(times[max(0, i)].Round(100*time.Microsecond)) / float64(time.Millisecond)
	}
	return Summary{P50: rank(0.50), P99: rank(0.99), Max: rank(1)}
}

func avoided(s Sample) time.Duration { return s.Avoided }

func removed(s Sample) time.Duration { return s.Removed }

// summary is the report of samples, without what only the site knows.
func summary(samples []Sample) Report {
	r := Report{
		Crashes: len(samples), Avoided: summarize(samples, avoided), Removed: summarize(samples, removed),
		WrongRemovals: []string{},
	}
	kinds := map[string][]Sample{}
	for _, s := range samples {
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
	fmt.Fprintf(&b, "One crash in a pool of %d, %d times, %d routers. %s, %s.\n\n", r.Servers, r.Crashes, r.Routers, r.Date, r.Machine)
	var rows strings.Builder
	row := func(name string, s Summary) {
		fmt.Fprintf(&rows, "| %s\t| %.0f ms\t| %.0f ms\t| %.0f ms\t|\n", name, s.P50, s.P99, s.Max)
	}
	rows.WriteString("| \t| p50\t| p99\t| max\t|\n| ---\t| ---\t| ---\t| ---\t|\n")
	row("crash → avoided", r.Avoided)
	row("crash → removed", r.Removed)
	for _, k := range r.ByKind {
		name := map[string]string{KindLink: "link down", KindHost: "host dead"}[k.Kind]
		row(fmt.Sprintf("%s (%d) → avoided", name, k.Crashes), k.Avoided)
		row(fmt.Sprintf("%s (%d) → removed", name, k.Crashes), k.Removed)
	}
	t := tabwriter.NewWriter(&b, 0, 0, 1, ' ', 0)
	if _, err := io.WriteString(t, rows.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	fmt.Fprintf(&b, "\nRemoved without a crash: %d%s\n", len(r.WrongRemovals), named(r.WrongRemovals))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
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
