package detect

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func setting() Setting {
	return Setting{Date: "2026-01-02", Machine: "a machine", Servers: 12, Routers: 2, Start: Start{Starting: 1.2, Settled: 0.3}}
}

// written is a report as people see it.
func written(t *testing.T, write func(*strings.Builder) error) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestWriteCalm(t *testing.T) {
	t.Parallel()
	r := CalmReport{Setting: setting(), Faults: []FaultReport{
		{
			Fault: "stop", Text: "agents stopped", Victims: 3, Times: 1, Lasted: 15, Normal: 0.2, FewestNamed: 12,
			Alarms: []AlarmCount{{"AGENT_DOWN", 3}},
		},
		{
			Fault: "flap", Text: "a moment", Victims: 1, Times: 50, Lasted: 0.4, Removed: []string{"web-2: gone"}, Suspects: 2,
			LongestSuspect: 1.5, FewestNamed: 11, Unanswered: 1, Strain: Strain{Busy: 50, Late: Summary{Max: 7}},
		},
	}}
	want := `Faults that must not remove anybody. Pool of 12, 2 routers. 2026-01-02, a machine.
The agents were started within 1.2 s, and all was settled 0.3 s later.

| fault          | servers | times | lasted | removed | ever suspect | longest | normal after | a router named           | alarms       | busy | timers late |
| ---            | ---     | ---   | ---    | ---     | ---          | ---     | ---          | ---                      | ---          | ---  | ---         |
| agents stopped | 3       | 1     | 15.0 s | 0       | 0            | 0.0 s   | 0.2 s        | ≥ 12 of 12               | AGENT_DOWN 3 | 0 %  | 0 ms        |
| a moment       | 1       | 50    | 0.4 s  | 1       | 2            | 1.5 s   | 0.0 s        | ≥ 11 of 12, 1 unanswered |              | 50 % | 7 ms        |

Removed during "flap": web-2: gone
`
	if d := cmp.Diff(want, written(t, func(b *strings.Builder) error { return r.Write(b) })); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	r := CostReport{Setting: setting(), Lasted: 10}
	before := usage{
		agents:      []processUsage{{seconds: 1}, {seconds: 1}},
		traffic:     []traffic{{in: 1000, out: 1000, echoesIn: 10, echoesOut: 10}, {}},
		coordinator: processUsage{seconds: 3},
	}
	after := usage{
		agents:      []processUsage{{seconds: 1.1, resident: 10 << 20}, {seconds: 1.3, resident: 20 << 20}},
		traffic:     []traffic{{in: 21000, out: 41000, echoesIn: 110, echoesOut: 110}, {in: 20000, out: 40000, echoesIn: 100, echoesOut: 100}},
		coordinator: processUsage{seconds: 4, resident: 30 << 20},
	}
	r.summarize(before, after, 10)
	want := CostReport{
		Setting: setting(), Lasted: 10,
		Agents:      Spread{Mean: Usage{2, 15}, Max: Usage{3, 20}},
		Coordinator: Usage{10, 30},
		ProbingIn:   0.52, ProbingOut: 0.52, WireIn: 2, WireOut: 4,
	}
	if d := cmp.Diff(want, r); d != "" {
		t.Errorf("cost (-want +got):\n%s", d)
	}
	text := written(t, func(b *strings.Builder) error { return r.Write(b) })
	for _, line := range []string{"A pool at rest for 10 s.", "| agent, largest | 3.00 %  | 20.0 MiB |", "| everything on the wire | 2.00 KB/s | 4.00 KB/s |"} {
		if !strings.Contains(text, line) {
			t.Errorf("the report lacks %q:\n%s", line, text)
		}
	}
}

func TestVersus(t *testing.T) {
	t.Parallel()
	crash := func(avoided, removed time.Duration) Sample { return Sample{Avoided: avoided, Removed: removed} }
	const ms = time.Millisecond
	var r VersusReport
	for _, samples := range [][]Sample{{crash(100*ms, 700*ms)}, {crash(200*ms, 800*ms)}} {
		ours := summary(samples)
		ours.Setting = setting()
		r.add(ours, gossipReport{version: "v1.2.3", samples: []Sample{crash(5000*ms, 7000*ms)}, wrong: []string{"a by b"}})
	}
	r.Rounds = 2
	r.sum()
	want := VersusReport{
		Date: "2026-01-02", Machine: "a machine", Servers: 12, Crashes: 2, Rounds: 2,
		Buddyring: Side{First: Summary{100, 200, 200}, Last: Summary{700, 800, 800}, Strains: make([]Strain, 2)},
		Memberlist: Side{
			Version: "v1.2.3", First: Summary{5000, 5000, 5000}, Last: Summary{7000, 7000, 7000},
			Wrong: []string{"a by b", "a by b"}, Strains: make([]Strain, 2),
		},
		FirstRatio: Summary{50, 25, 25}, LastRatio: Summary{10, 8.8, 8.8},
	}
	withoutSamples := r
	withoutSamples.Buddyring.samples, withoutSamples.Memberlist.samples = nil, nil
	if d := cmp.Diff(want, withoutSamples, cmp.AllowUnexported(Side{})); d != "" {
		t.Errorf("comparison (-want +got):\n%s", d)
	}
	text := written(t, func(b *strings.Builder) error { return r.Write(b) })
	for _, line := range []string{
		"| first to act | p50 | 100 ms    | 5000 ms                | 50.0 × |",
		"Called dead without a crash: buddyring 0, memberlist 2 (a by b, a by b)",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the report lacks %q:\n%s", line, text)
		}
	}
}
