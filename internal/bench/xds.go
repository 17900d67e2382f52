package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/bench/xdsbench"
)

// lagTarget is R4's: from the moment that the coordinator publishes a removal to
// the last call that its server gets.
const lagTarget = 20 * time.Millisecond

// xdsClients measures R4 with grpc-go's own client.
func xdsClients(ctx context.Context) ([]Row, error) {
	report, err := withDir(ctx, xdsbench.Measure)
	if err != nil {
		return nil, err
	}
	at := func(sorted []time.Duration, q float64) time.Duration {
		return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
	}
	p50, p99, most := at(report.Lags, 0.5), at(report.Lags, 0.99), at(report.Lags, 1)
	acked := at(report.Acks, 0.99)
	rows := []Row{{
		ID: "R4", Experiment: fmt.Sprintf("xDS, removal → last call, %d servers, %d removals", report.Servers, len(report.Lags)),
		Target: "p99 ≤ " + milliseconds(lagTarget.Seconds()), Met: p99 <= lagTarget,
		Measured: fmt.Sprintf("p50 %s, p99 %s, max %s; acknowledged p99 %s", milliseconds(p50.Seconds()), milliseconds(p99.Seconds()),
			milliseconds(most.Seconds()), milliseconds(acked.Seconds())),
		Figures: map[string]float64{
			"p50_seconds": p50.Seconds(), "p99_seconds": p99.Seconds(), "max_seconds": most.Seconds(), "acked_p99_seconds": acked.Seconds(),
		},
	}}
	return append(rows, phases("R4", "xDS, ", report)...), nil
}

// rollingRestart measures R5 through the Go library.
func rollingRestart(ctx context.Context) ([]Row, error) {
	report, err := withDir(ctx, xdsbench.Restart)
	if err != nil {
		return nil, err
	}
	return phases("R5", fmt.Sprintf("Go library, %d servers, ", report.Servers), report), nil
}

// phases are rows of what happened to the load.
func phases(id, whose string, report *xdsbench.Report) []Row {
	rows := make([]Row, 0, len(report.Phases))
	for _, p := range report.Phases {
		row := Row{
			ID: id, Experiment: whose + p.Name, Target: "0 failed calls", Met: p.Failed == 0,
			Measured: fmt.Sprintf("%d of %d calls failed", p.Failed, p.Calls),
			Figures:  map[string]float64{"calls": float64(p.Calls), "failed": float64(p.Failed)},
		}
		if p.First != "" {
			row.Measured += ", the first with " + strings.ReplaceAll(p.First, "|", "/")
		}
		rows = append(rows, row)
	}
	return rows
}

// withDir measures with a directory of its own.
func withDir(
	ctx context.Context, measure func(context.Context, xdsbench.Options) (*xdsbench.Report, error),
) (_ *xdsbench.Report, err error) {
	dir, err := os.MkdirTemp("", "bench-router-")
	if err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return measure(ctx, xdsbench.Options{Dir: filepath.Join(dir, "state")})
}
