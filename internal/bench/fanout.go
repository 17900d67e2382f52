package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	fanWatchers    = 1000
	fanConnections = 50
	fanChanges     = 20
	// fanPause is between a change that all have got and the next.
	fanPause = 200 * time.Millisecond
	// memoryTarget is R3's for 1,000 servers.
	memoryTarget = 200 * mib
)

// fanOut measures from the moment at which the coordinator sends a change until
// each watcher has it. A change is of one server, as when one crashes, or of all
// of them, which is as much as a whole list.
func fanOut(ctx context.Context) ([]Row, error) {
	var rows []Row
	for _, c := range []struct {
		servers int
		target  float64
	}{{100, 0.05}, {1000, 0.5}} {
		for _, whole := range []bool{false, true} {
			row, err := fanOutOf(ctx, c.servers, whole)
			if err != nil {
				return nil, err
			}
			row.Target = fmt.Sprintf("p99 ≤ %s, ≤ %s", milliseconds(c.target), mebibytes(memoryTarget))
			row.Met = row.Figures["p99_seconds"] <= c.target && row.Figures["resident_bytes"] <= memoryTarget
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func fanOutOf(ctx context.Context, servers int, whole bool) (_ Row, err error) {
	r, err := startRouter(ctx, servers)
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
	var ready bool
	if err := c.ask(watchOrder{Address: r.address, Connections: fanConnections, Watchers: fanWatchers}, &ready); err != nil {
		return Row{}, err
	}
	changed, what := 1, "one"
	if whole {
		changed, what = servers, "all"
	}
	var times []float64
	var size int64
	best := math.Inf(1)
	before, err := processorTime()
	if err != nil {
		return Row{}, err
	}
	for i := range fanChanges {
		some, bytes, err := r.fan(ctx, c, fleet(servers, uint32(101+i))[:changed])
		if err != nil {
			return Row{}, err
		}
		times, size, best = append(times, some...), size+bytes, min(best, slices.Max(some))
		time.Sleep(fanPause)
	}
	after, err := processorTime()
	if err != nil {
		return Row{}, err
	}
	used, each := stop(), (after-before)/float64(len(times))
	p50, p99, most := median(times), quantile(times, 0.99), quantile(times, 1)
	return Row{
		ID: "R3", Experiment: fmt.Sprintf("publish → 1,000 watchers, %s of %d servers changed, %.1f kB each",
			what, servers, float64(size)/float64(len(times))/1000),
		Measured: fmt.Sprintf("p50 %s, p99 %s, max %s; the fastest of %d changes was at the last watcher after %s; "+
			"%.1f µs of a processor each; heap %s, resident %s", milliseconds(p50), milliseconds(p99), milliseconds(most), fanChanges,
			milliseconds(best), each*1e6, mebibytes(used.heap), mebibytes(used.resident)),
		Figures: map[string]float64{
			"processor_seconds_each": each, "p50_seconds": p50, "p99_seconds": p99, "max_seconds": most, "fastest_seconds": best, "heap_bytes": used.heap, "resident_bytes": used.resident,
		},
	}, nil
}

// fan publishes a change, waits until all watchers have it, and returns how long
// it took to each, and the bytes to all.
func (r *router) fan(ctx context.Context, c *clients, put []*pb.Server) (times []float64, bytes int64, err error) {
	began := time.Now().UnixNano()
	revision, err := r.change(ctx, put)
	if err != nil {
		return nil, 0, err
	}
	var result watchResult
	if err := c.ask(watchOrder{Await: revision}, &result); err != nil {
		return nil, 0, err
	}
	for _, at := range result.Times {
		times = append(times, time.Duration(at-began).Seconds())
	}
	return times, result.Bytes, nil
}

// slowWatchers do not read at all while the whole pool changes again and again.
func slowWatchers(ctx context.Context) (_ []Row, err error) {
	const servers = 1000
	r, err := startRouter(ctx, servers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	c, err := startClients(ctx, "watchers")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	stop := watchFootprint()
	var ready bool
	if err := c.ask(watchOrder{Address: r.address, Connections: fanConnections, Watchers: fanWatchers, Deaf: true}, &ready); err != nil {
		return nil, err
	}
	for i := range 100 {
		if _, err := r.change(ctx, fleet(servers, uint32(101+i))); err != nil {
			return nil, err
		}
		time.Sleep(100 * time.Millisecond)
	}
	const patience = time.Minute
	dropped := r.value("buddyring_router_watchers_dropped_total")
	for began := time.Now(); dropped < fanWatchers && time.Since(began) < patience; time.Sleep(fanPause) {
		dropped = r.value("buddyring_router_watchers_dropped_total")
	}
	used := stop()
	return []Row{{
		ID: "R3", Experiment: "1,000 watchers that do not read, 1,000 servers changed 100 times in 10 s",
		Target: "all dropped, ≤ " + mebibytes(memoryTarget), Met: dropped == fanWatchers && used.resident <= memoryTarget,
		Measured: fmt.Sprintf("%.0f dropped; heap %s, resident %s", dropped, mebibytes(used.heap), mebibytes(used.resident)),
		Figures:  map[string]float64{"dropped": dropped, "heap_bytes": used.heap, "resident_bytes": used.resident},
	}}, nil
}
