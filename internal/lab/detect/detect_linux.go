package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Config is an experiment.
type Config struct {
	PoolConfig
	// Crashes is how often one of the servers crashes.
	Crashes int
	// Busy is how many processes compete for the processors meanwhile, to see what
	// starved observers cost.
	Busy int
	// Progress is told of every crash.
	Progress io.Writer
}

const (
	// removeTime bounds the wait for a removal.
	removeTime = 20 * time.Second
	// phases is the time over which crashes are spread, so that they meet the
	// probes at every moment of their period.
	phases = time.Second
	// slow is a removal whose explanation is worth reading.
	slow = time.Second
)

// Run makes the experiment. It must run inside netlab.Enter.
func Run(ctx context.Context, cfg Config) (r Report, err error) {
	if cfg.Crashes < 1 {
		return Report{}, fmt.Errorf("measure detection: %d crashes: at least 1 is needed", cfg.Crashes)
	}
	pool, err := newPool(ctx, cfg.PoolConfig)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, pool.close()) }()
	quit, err := compete(cfg.Busy)
	if err != nil {
		return Report{}, err
	}
	defer quit()
	e := &experiment{cfg: cfg, pool: pool, picks: newPicks(cfg.Servers)}
	pickCtx, stop := context.WithCancel(ctx)
	defer stop()
	group, pickCtx := errgroup.WithContext(pickCtx)
	for i := range cfg.Routers {
		group.Go(func() error { return e.picks.pick(pickCtx, pool.site.Router(i)) })
	}
	group.Go(func() error { return e.strain.watch(pickCtx) })
	group.Go(func() error {
		defer stop()
		return e.crashes(pickCtx)
	})
	if err := group.Wait(); err != nil {
		return Report{}, err
	}
	return e.report(ctx)
}

// experiment is a run.
type experiment struct {
	cfg Config
	*pool
	picks   *picks
	strain  monitor
	samples []Sample
}

func (e *experiment) crashes(ctx context.Context) error {
	for i := range e.cfg.Crashes {
		if err := pause(ctx, time.Duration(e.random.Int64N(int64(phases)))); err != nil {
			return err
		}
		s, err := e.crash(ctx, e.servers[e.random.IntN(len(e.servers))], kind(i))
		if err != nil {
			return err
		}
		e.samples = append(e.samples, s)
		_, _ = fmt.Fprintf(e.cfg.Progress, "%3d of %d  %-8s %s  avoided after %4d ms, removed after %4d ms%s\n",
			i+1, e.cfg.Crashes, s.Server, s.Kind, s.Avoided.Milliseconds(), s.Removed.Milliseconds(), late(s.Late))
		if err := e.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// kind is that of the i'th crash.
func kind(i int) string {
	if i%2 == 0 {
		return KindLink
	}
	return KindHost
}

// late tells of lateness that is worth it.
func late(d time.Duration) string {
	if d < starved {
		return ""
	}
	return fmt.Sprintf(" (starved: a timer was %d ms late)", d.Milliseconds())
}

// crash crashes a server, waits for its removal and brings it back.
func (e *experiment) crash(ctx context.Context, server, kind string) (Sample, error) {
	row, err := e.site.Admin().GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: server})
	if err != nil {
		return Sample{}, fmt.Errorf("look at %s: %w", server, err)
	}
	incarnation := row.GetServer().GetIncarnation()
	e.strain.mark()
	start := time.Now()
	if err := e.site.Host(server).LinkDown(); err != nil {
		return Sample{}, err
	}
	if kind == KindHost {
		e.agents[server].Kill()
	}
	removeCtx, cancel := context.WithTimeoutCause(ctx, removeTime, fmt.Errorf("%s is not removed", server))
	defer cancel()
	why, acked, err := e.site.Removed(removeCtx, server, incarnation)
	if err != nil {
		return Sample{}, err
	}
	if acked.Sub(start) > slow {
		e.explain(why, start)
	}
	s := Sample{Server: server, Kind: kind, Removed: acked.Sub(start), Late: e.strain.mark(), Rounds: rounds(why)}
	if last := e.picks.last(server, incarnation); last.After(start) {
		s.Avoided = last.Sub(start)
	}
	return s, e.back(server, kind)
}

// rounds is how many rounds have ended before the removal.
func rounds(why *coordinatorv1.Explanation) int {
	ids := make(map[uint64]bool)
	for _, m := range why.GetTimeline() {
		if m.GetKind() == "verdict" {
			ids[m.GetRound()] = true
		}
	}
	return len(ids)
}

// explain tells of a slow removal, with times since the crash.
func (e *experiment) explain(why *coordinatorv1.Explanation, start time.Time) {
	_, _ = fmt.Fprintln(e.cfg.Progress, "           slow:", why.GetText())
	offset := why.GetStarted().AsTime().Sub(start)
	for _, m := range why.GetTimeline() {
		_, _ = fmt.Fprintf(e.cfg.Progress, "%12d ms  round %d  %-12s %-12s %s %d/%d %s\n", (offset + m.GetAt().AsDuration()).Milliseconds(),
			m.GetRound(), m.GetKind(), m.GetWho(), m.GetResult(), m.GetLost(), m.GetSent(), m.GetText())
	}
}
