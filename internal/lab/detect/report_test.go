package detect

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSummary(t *testing.T) {
	t.Parallel()
	var samples []Sample
	for i := range 100 {
		kind := KindLink
		if i >= 50 {
			kind = KindHost
		}
		samples = append(samples, Sample{Kind: kind, Rounds: 1 + i/90, Avoided: time.Duration(i+1) * time.Millisecond, Removed: time.Second})
	}
	got := summary(samples)
	want := Report{
		Crashes: 100, Avoided: Summary{50, 99, 100}, Removed: Summary{1000, 1000, 1000},
		ByKind: []KindReport{
			{KindHost, 50, Summary{75, 100, 100}, Summary{1000, 1000, 1000}},
			{KindLink, 50, Summary{25, 50, 50}, Summary{1000, 1000, 1000}},
		},
		Rounds: []int{90, 10}, WrongRemovals: []string{},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Report{})); d != "" {
		t.Errorf("summary (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Summary{}, summarize(nil, avoided)); d != "" {
		t.Error(d)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	r := summary([]Sample{{Server: "a", Kind: KindHost, Rounds: 2, Avoided: 150 * time.Millisecond, Removed: 700 * time.Millisecond}})
	r.Setting, r.WrongRemovals = setting(), []string{"b"}
	r.Strain = Strain{Busy: 25, Late: Summary{0.1, 1.2, 31}}
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `One crash, 1 times. Pool of 12, 2 routers. 2026-01-02, a machine.
The agents were started within 1.2 s, and all was settled 0.3 s later.
Processors 25 % busy; timers late by p50 0.1 ms, p99 1.2 ms, max 31.0 ms. The machine was starved: these times say more about it than about the system.

|                         | p50    | p99    | max    |
| ---                     | ---    | ---    | ---    |
| crash → avoided         | 150 ms | 150 ms | 150 ms |
| crash → removed         | 700 ms | 700 ms | 700 ms |
| host dead (1) → avoided | 150 ms | 150 ms | 150 ms |
| host dead (1) → removed | 700 ms | 700 ms | 700 ms |

Rounds of questions per removal: 0 × 1, 1 × 2
Removed without a crash: 1 (b)
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
}
