package bench

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// idleWatchers get a bookmark each second and nothing else, at first 50 on each
// connection and then each on one of its own, as programs have them.
func idleWatchers(ctx context.Context) ([]Row, error) {
	const watching, shared, most = 10_000, 200, 2_000
	own, err := ownConnections(most)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, c := range []struct {
		watching, connections int
		what                  string
	}{
		{watching, shared, fmt.Sprintf("on %d connections", shared)},
		{own, own, "on connections of their own"},
	} {
		row, err := idleWatchersOn(ctx, c.watching, c.connections)
		if err != nil {
			return nil, err
		}
		row.ID, row.Target = "R3", "memory bounded"
		row.Experiment = fmt.Sprintf("%d idle watchers %s, then one change", c.watching, c.what)
		rows = append(rows, row)
	}
	return rows, nil
}

// ownConnections is how many of so many watchers can each have a connection: a router
// shares out its files among its two listeners.
func ownConnections(wanted int) (int, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0, fmt.Errorf("look at the limit of files: %w", err)
	}
	const part, besides = 2, 1_000
	return max(1, min(wanted, (int(min(files.Cur, 1<<30))-besides)/part)), nil
}

func idleWatchersOn(ctx context.Context, watching, connections int) (_ Row, err error) {
	const rest = 20 * time.Second
	r, err := startRouter(ctx, 100)
	if err != nil {
		return Row{}, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	c, err := startClients(ctx, "watchers")
	if err != nil {
		return Row{}, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	stop := watchFootprint()
	before := status("VmRSS")
	var ready bool
	if err := c.ask(watchOrder{Address: r.address, Connections: connections, Watchers: watching}, &ready); err != nil {
		return Row{}, err
	}
	busy, err := processorTime()
	if err != nil {
		return Row{}, err
	}
	time.Sleep(rest)
	after, err := processorTime()
	if err != nil {
		return Row{}, err
	}
	times, _, err := r.fan(ctx, c, fleet(1, 1))
	if err != nil {
		return Row{}, err
	}
	used := stop()
	each, cores := (used.resident-before)/float64(watching), (after-busy)/rest.Seconds()
	return Row{
		Met: len(times) == watching,
		Measured: fmt.Sprintf("%.1f KiB each (resident %s), %.2f cores; the change at %d of them, p99 %s", each/1024,
			mebibytes(used.resident), cores, len(times), milliseconds(quantile(times, 0.99))),
		Figures: map[string]float64{
			"bytes_each": each, "resident_bytes": used.resident, "cores": cores, "reached": float64(len(times)), "p99_seconds": quantile(times, 0.99),
		},
	}, nil
}
