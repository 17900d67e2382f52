package detect

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSummary(t *testing.T) {
	t.Parallel()
	var samples []Sample
	for i := range 100 {
		kind := KindLink
		if i >= 50 {
			kind = KindHost
		}
		samples = append(samples, Sample{Kind: kind, Avoided: time.Duration(i+1) * time.Millisecond, Removed: time.Second})
	}
	got := summary(samples)
	want := Report{
		Crashes: 100, Avoided: Summary{50, 99, 100}, Removed: Summary{1000, 1000, 1000},
		ByKind: []KindReport{
			{KindHost, 50, Summary{75, 100, 100}, Summary{1000, 1000, 1000}},
			{KindLink, 50, Summary{25, 50, 50}, Summary{1000, 1000, 1000}},
		},
		WrongRemovals: []string{},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("summary (-want +got):\n%s", d)
	}
	if d := cmp.Diff(Summary{}, summarize(nil, avoided)); d != "" {
		t.Error(d)
	}
}

func TestWrite(t *testing.T) {
	t.Parallel()
	r := summary([]Sample{{Server: "a", Kind: KindHost, Avoided: 150 * time.Millisecond, Removed: 700 * time.Millisecond}})
	r.Date, r.Machine, r.Servers, r.Routers, r.WrongRemovals = "2026-01-02", "a machine", 12, 2, []string{"b"}
	var b strings.Builder
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	want := `One crash in a pool of 12, 1 times, 2 routers. 2026-01-02, a machine.

|                         | p50    | p99    | max    |
| ---                     | ---    | ---    | ---    |
| crash → avoided         | 150 ms | 150 ms | 150 ms |
| crash → removed         | 700 ms | 700 ms | 700 ms |
| host dead (1) → avoided | 150 ms | 150 ms | 150 ms |
| host dead (1) → removed | 700 ms | 700 ms | 700 ms |

Removed without a crash: 1 (b)
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
}
