package coordbench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/bench"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// What S4 asks for.
	streamBytes     = 45 << 10
	restCores       = 0.15
	returnSeconds   = 20
	subscriberCount = 1000
)

// streams is S4, one part after the other on one coordinator.
type streams struct {
	o     Options
	site  *site
	fleet *fleet
	rows  []bench.Row
	// empty is the coordinator's memory without agents.
	empty float64
}

func manyStreams(ctx context.Context, o Options) (_ []bench.Row, err error) {
	if err := files(o.Agents + o.Subscribers); err != nil {
		return nil, err
	}
	x := &streams{o: o}
	if x.site, err = startSite(ctx, o); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.site.close()) }()
	if err := sleep(ctx, 2*time.Second); err != nil {
		return nil, err
	}
	if x.empty, err = bench.Memory(x.site.proc.Pid(), "VmRSS"); err != nil {
		return nil, err
	}
	x.fleet = startFleet(ctx, x.site.address, o.Agents, nil)
	defer x.fleet.stop()
	if _, err := x.fleet.await(ctx, o.Agents, patience); err != nil {
		return nil, err
	}
	if err := x.site.allActive(ctx, o.Agents, patience); err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context) error{x.rest, x.restart, x.subscribe} {
		if err := part(ctx); err != nil {
			return x.rows, err
		}
	}
	return x.rows, nil
}

// rest takes memory and processor time while nothing happens.
func (x *streams) rest(ctx context.Context) error {
	if err := sleep(ctx, x.o.Settle); err != nil {
		return err
	}
	before, err := x.site.processorTime()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := sleep(ctx, x.o.Rest); err != nil {
		return err
	}
	after, err := x.site.processorTime()
	if err != nil {
		return err
	}
	cores := (after - before).Seconds() / time.Since(began).Seconds()
	resident, err := bench.Memory(x.site.proc.Pid(), "VmRSS")
	if err != nil {
		return err
	}
	peak, err := bench.Memory(x.site.proc.Pid(), "VmHWM")
	if err != nil {
		return err
	}
	each := (resident - x.empty) / float64(x.o.Agents)
	x.rows = append(x.rows, bench.Row{
		ID: "S4", Experiment: fmt.Sprintf("%d agents at rest on one coordinator, memory", x.o.Agents),
		Target:   fmt.Sprintf("≤ %d KiB each", streamBytes>>10),
		Measured: fmt.Sprintf("%.1f KiB each: resident %s, %s without agents, largest %s", each/1024, mebibytes(resident), mebibytes(x.empty), mebibytes(peak)),
		Met:      each <= streamBytes,
		Figures:  map[string]float64{"bytes_each": each, "resident_bytes": resident, "empty_bytes": x.empty, "peak_bytes": peak},
	}, bench.Row{
		ID: "S4", Experiment: fmt.Sprintf("the same, processor over %s", time.Since(began).Round(time.Second)),
		Target:   fmt.Sprintf("≤ %.2f cores", restCores),
		Measured: fmt.Sprintf("%.3f cores for %.0f digests a second; questions asked: %d", cores, float64(x.o.Agents)/5, x.fleet.questions.Load()),
		Met:      cores <= restCores,
		Figures:  map[string]float64{"cores": cores, "questions": float64(x.fleet.questions.Load())},
	})
	return nil
}

// again kills the coordinator, starts it at once, and returns when it was killed.
func (x *streams) again(ctx context.Context) (time.Time, error) {
	began := time.Now()
	x.site.kill()
	// Sessions that the agents have not lost yet are not to count as back.
	for x.fleet.sessions() > 0 {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return began, err
		}
	}
	x.fleet.mark()
	return began, x.site.launch()
}

// restart kills the coordinator and waits until all are back.
func (x *streams) restart(ctx context.Context) error {
	began, err := x.again(ctx)
	if err != nil {
		return err
	}
	last, err := x.fleet.await(ctx, x.o.Agents, patience)
	if err != nil {
		return err
	}
	first, median := x.fleet.quantile(0), x.fleet.quantile(0.5)
	unacked := x.fleet.unacked.Load()
	if err := sleep(ctx, x.o.Settle); err != nil {
		return err
	}
	removed, err := x.removed(ctx)
	if err != nil {
		return err
	}
	took := last.Sub(began).Seconds()
	x.rows = append(x.rows, bench.Row{
		ID: "S4", Experiment: fmt.Sprintf("SIGKILL and restart, %d agents come back", x.o.Agents),
		Target: fmt.Sprintf("≤ %d s, 0 removals", returnSeconds),
		Measured: fmt.Sprintf("all back after %.1f s (first %.2f s, half %.1f s); removed or moved %d; given up for want of an acknowledgement %d",
			took, first.Sub(began).Seconds(), median.Sub(began).Seconds(), removed, unacked),
		Met: took <= returnSeconds && removed == 0,
		Figures: map[string]float64{
			"back_seconds": took, "first_seconds": first.Sub(began).Seconds(), "half_seconds": median.Sub(began).Seconds(), "removed": float64(removed),
		},
	})
	return nil
}

// removed counts the servers that are no longer what they were.
func (x *streams) removed(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	p, err := x.site.pool(ctx)
	if err != nil {
		return 0, err
	}
	left, err := x.site.metric(ctx, "buddyring_removals_total")
	if err != nil {
		return 0, err
	}
	return max(x.fleet.wrong(), int(left), x.o.Agents-int(p.GetMembers())), nil
}

// subscribe kills the coordinator under a thousand routers that have missed its
// last change, so that each needs a snapshot when it comes back, together with all
// the agents.
func (x *streams) subscribe(ctx context.Context) error {
	s := startSubscribers(ctx, x.site.address, x.o.Subscribers)
	defer s.stop()
	if _, err := s.await(ctx, x.o.Subscribers, patience); err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, askTime)
	status, err := x.site.client.GetStatus(within, &pb.GetStatusRequest{})
	p, poolErr := x.site.pool(within)
	cancel()
	if err := errors.Join(err, poolErr); err != nil {
		return err
	}
	s.mark(status.GetStoreId(), p.GetRevision()-1)
	began, err := x.again(ctx)
	if err != nil {
		return err
	}
	times, err := s.await(ctx, x.o.Subscribers, patience)
	if err != nil {
		return err
	}
	return x.subscribed(ctx, s, began, times)
}

func (x *streams) subscribed(ctx context.Context, s *subscribers, began time.Time, times []time.Time) error {
	last, err := x.fleet.await(ctx, x.o.Agents, patience)
	if err != nil {
		return err
	}
	peak, err := bench.Memory(x.site.proc.Pid(), "VmHWM")
	if err != nil {
		return err
	}
	if err := sleep(ctx, x.o.Settle); err != nil {
		return err
	}
	resident, err := bench.Memory(x.site.proc.Pid(), "VmRSS")
	if err != nil {
		return err
	}
	encoded, err := x.site.metric(ctx, "buddyring_snapshots_encoded_total")
	if err != nil {
		return err
	}
	removed, err := x.removed(ctx)
	if err != nil {
		return err
	}
	first, all := times[0].Sub(began).Seconds(), slices.MaxFunc(times, time.Time.Compare).Sub(began).Seconds()
	x.rows = append(x.rows, bench.Row{
		ID: "S4", Experiment: fmt.Sprintf("the same under %d subscribers, each of which needs a snapshot of %.1f MB", x.o.Subscribers, float64(s.bytes)/1e6),
		Target: fmt.Sprintf("all within %d s, snapshots encoded once", returnSeconds),
		Measured: fmt.Sprintf("snapshots: first after %.2f s, all after %.2f s; %.0f encoded; all agents after %.1f s; removed or moved %d; largest %s, at rest %s",
			first, all, encoded, last.Sub(began).Seconds(), removed, mebibytes(peak), mebibytes(resident)),
		Met: max(all, last.Sub(began).Seconds()) <= returnSeconds && removed == 0 && encoded <= float64(x.o.Subscribers)/100,
		Figures: map[string]float64{
			"first_snapshot_seconds": first, "snapshots_seconds": all, "encoded": encoded, "agents_seconds": last.Sub(began).Seconds(),
			"removed": float64(removed), "peak_bytes": peak, "resident_bytes": resident, "snapshot_bytes": float64(s.bytes),
		},
	})
	return nil
}

func mebibytes(bytes float64) string { return fmt.Sprintf("%.0f MiB", bytes/(1<<20)) }
