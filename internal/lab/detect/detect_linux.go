package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Config is an experiment.
type Config struct {
	// Bin is the folder of the programs, Dir an empty one for their files.
	Bin, Dir string
	// Servers is the size of the pool, at least 4; Crashes how often one of them
	// crashes; Routers how many routers there are.
	Servers, Crashes, Routers int
	// Progress is told of every crash.
	Progress io.Writer
}

const (
	// settleTime bounds the wait for a pool that is well, removeTime that for a
	// removal.
	settleTime = 2 * time.Minute
	removeTime = 20 * time.Second
	// phases is the time over which crashes are spread, so that they meet the
	// probes at every moment of their period.
	phases = time.Second
	// slow is a removal whose explanation is worth reading.
	slow = time.Second
	// holdDown lets servers come back soon enough for many crashes.
	holdDown = 100 * time.Millisecond
)

// Run makes the experiment. It must run inside netlab.Enter.
func Run(ctx context.Context, cfg Config) (r Report, err error) {
	if cfg.Servers < 4 || cfg.Crashes < 1 || cfg.Routers < 1 {
		return Report{}, fmt.Errorf("measure detection: %d servers, %d crashes and %d routers: at least 4, 1 and 1 are needed",
			cfg.Servers, cfg.Crashes, cfg.Routers)
	}
	e := &experiment{cfg: cfg, agents: make(map[string]*lab.Agent), picks: newPicks(cfg.Servers)}
	seed := uint64(time.Now().UnixNano())
	e.random = rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // whom to crash next is no secret
	for i := range cfg.Servers {
		e.servers = append(e.servers, "web-"+strconv.Itoa(i+1))
	}
	e.site, err = lab.New(lab.Config{Bin: cfg.Bin, Dir: cfg.Dir, Hosts: e.servers, Routers: cfg.Routers})
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, e.site.Troubles(), e.site.Close()) }()
	if err := e.prepare(ctx); err != nil {
		return Report{}, err
	}
	pickCtx, stop := context.WithCancel(ctx)
	defer stop()
	group, pickCtx := errgroup.WithContext(pickCtx)
	for i := range cfg.Routers {
		group.Go(func() error { return e.picks.pick(pickCtx, e.site.Router(i)) })
	}
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
	cfg     Config
	site    *lab.Site
	servers []string
	agents  map[string]*lab.Agent
	picks   *picks
	random  *rand.Rand
	samples []Sample
}

// prepare starts the agents and waits until all is well.
func (e *experiment) prepare(ctx context.Context) error {
	for i, server := range e.servers {
		agent, err := e.site.StartAgent(lab.AgentConfig{Server: server, Rack: "rack-" + strconv.Itoa(i%4+1)})
		if err != nil {
			return err
		}
		e.agents[server] = agent
	}
	if err := e.settle(ctx); err != nil {
		return err
	}
	_, err := e.site.Admin().UpdatePool(ctx, &coordinatorv1.UpdatePoolRequest{
		Pool: lab.Pool,
		Settings: &coordinatorv1.PoolSettings{
			HoldDown: durationpb.New(holdDown), HoldDownMax: durationpb.New(holdDown), HoldDownLoss: durationpb.New(holdDown),
			// So many crashes in a minute would put the brake on.
			BrakePercent: new(uint32(100)), BrakeZonePercent: new(uint32(100)), FloorPercent: new(uint32(100)),
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{
			"hold_down", "hold_down_max", "hold_down_loss", "brake_percent", "brake_zone_percent", "floor_percent",
		}},
		Reason: "an experiment with many crashes",
	})
	if err != nil {
		return fmt.Errorf("shorten the hold-down: %w", err)
	}
	return nil
}

func (e *experiment) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errors.New("the pool does not settle"))
	defer cancel()
	return e.site.AwaitSettled(ctx, e.servers)
}

func (e *experiment) crashes(ctx context.Context) error {
	for i := range e.cfg.Crashes {
		if err := pause(ctx, time.Duration(e.random.Int64N(int64(phases)))); err != nil {
			return err
		}
		kind := KindLink
		if i%2 == 1 {
			kind = KindHost
		}
		s, err := e.crash(ctx, e.servers[e.random.IntN(len(e.servers))], kind)
		if err != nil {
			return err
		}
		e.samples = append(e.samples, s)
		_, _ = fmt.Fprintf(e.cfg.Progress, "%3d of %d  %-8s %s  avoided after %4d ms, removed after %4d ms\n",
			i+1, e.cfg.Crashes, s.Server, s.Kind, s.Avoided.Milliseconds(), s.Removed.Milliseconds())
		if err := e.settle(ctx); err != nil {
			return err
		}
	}
	return nil
}

// crash crashes a server, waits for its removal and brings it back.
func (e *experiment) crash(ctx context.Context, server, kind string) (Sample, error) {
	row, err := e.site.Admin().GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: server})
	if err != nil {
		return Sample{}, fmt.Errorf("look at %s: %w", server, err)
	}
	incarnation := row.GetServer().GetIncarnation()
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
	s := Sample{Server: server, Kind: kind, Removed: acked.Sub(start)}
	if last := e.picks.last(server, incarnation); last.After(start) {
		s.Avoided = last.Sub(start)
	}
	return s, e.back(server, kind)
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

// back brings a crashed server back.
func (e *experiment) back(server, kind string) error {
	if err := e.site.Host(server).LinkUp(); err != nil {
		return err
	}
	if kind == KindLink {
		return nil
	}
	agent, err := e.site.StartAgent(lab.AgentConfig{Server: server, Boot: true})
	if err != nil {
		return err
	}
	e.agents[server] = agent
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
