package xdsbench_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/bench/xdsbench"
)

func TestMeasure(t *testing.T) {
	report, err := xdsbench.Measure(t.Context(), xdsbench.Options{
		Dir: filepath.Join(t.TempDir(), "state"), Servers: 3, Rounds: 3, Drains: 3, Away: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Lags) != 3 || len(report.Acks) != 3 || len(report.Phases) != 4 {
		t.Errorf("report %+v", report)
	}
	for _, p := range report.Phases {
		if p.Calls == 0 || p.Failed > 0 {
			t.Errorf("phase %+v", p)
		}
	}
}
