package detect

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// PoolConfig describes the pool of an experiment.
type PoolConfig struct {
	// Bin is the folder of the programs, Dir an empty one for their files.
	Bin, Dir string
	// Servers is the size of the pool, at least 4; Routers how many routers there
	// are.
	Servers, Routers int
}

const (
	// settleTime bounds the wait for a pool that is well.
	settleTime = 2 * time.Minute
	// startEvery is the time between the starts of two hosts. No more than
	// startAhead agents are on their way into the pool at once: many more would
	// starve each other and those that are already watching.
	startEvery = 20 * time.Millisecond
	startAhead = 8
	// holdDown lets servers come back soon enough for many crashes.
	holdDown = 100 * time.Millisecond
)

// pool is a site whose hosts all run an agent.
type pool struct {
	site    *lab.Site
	servers []string
	agents  map[string]*lab.Agent
	routers int
	random  *rand.Rand
	start   Start
}

// newPool starts everything and waits until all is well.
func newPool(ctx context.Context, cfg PoolConfig) (_ *pool, err error) {
	if cfg.Servers < 4 || cfg.Routers < 1 {
		return nil, fmt.Errorf("start pool: %d servers and %d routers: at least 4 and 1 are needed", cfg.Servers, cfg.Routers)
	}
	p := &pool{servers: names(cfg.Servers), agents: make(map[string]*lab.Agent), routers: cfg.Routers, random: chance()}
	p.site, err = lab.New(lab.Config{Bin: cfg.Bin, Dir: cfg.Dir, Hosts: p.servers, Routers: cfg.Routers})
	if err != nil {
		return nil, err
	}
	if err := p.begin(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// chance draws other numbers in every run.
func chance() *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	return rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // who is hit next is no secret
}

func names(n int) (all []string) {
	for i := range n {
		all = append(all, "web-"+strconv.Itoa(i+1))
	}
	return all
}

// close ends everything, and tells of programs that have ended before.
func (p *pool) close() error { return errors.Join(p.site.Troubles(), p.site.Close()) }

// begin starts the agents and waits until all is well.
func (p *pool) begin(ctx context.Context) error {
	begun := time.Now()
	for i, server := range p.servers {
		agent, err := p.site.StartAgent(lab.AgentConfig{Server: server, Rack: rack(i)})
		if err != nil {
			return err
		}
		p.agents[server] = agent
		if err := errors.Join(pause(ctx, startEvery), p.awaitActive(ctx, i+1-startAhead)); err != nil {
			return err
		}
	}
	started := time.Now()
	if err := p.settle(ctx); err != nil {
		return err
	}
	p.start = Start{Starting: seconds(started.Sub(begun)), Settled: seconds(time.Since(started))}
	return p.manyCrashes(ctx)
}

// awaitActive waits until so many servers are active.
func (p *pool) awaitActive(ctx context.Context, n int) error {
	if n <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errors.New("the servers do not become active"))
	defer cancel()
	return lab.Await(ctx, func(ctx context.Context) error {
		answer, err := p.site.Admin().GetPool(ctx, &coordinatorv1.GetPoolRequest{Pool: lab.Pool})
		switch active := answer.GetPool().GetActive(); {
		case err != nil:
			return fmt.Errorf("look at the pool: %w", err)
		case int(active) < n:
			return fmt.Errorf("%d servers are active, not %d", active, n)
		}
		return nil
	})
}

// setting is where the experiment was made.
func (p *pool) setting() (Setting, error) {
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return Setting{}, err
	}
	return Setting{
		Date: time.Now().Format(time.DateOnly), Machine: machine(strings.TrimSpace(string(kernel))),
		Servers: len(p.servers), Routers: p.routers, Start: p.start,
	}, nil
}

func rack(i int) string { return "rack-" + strconv.Itoa(i%4+1) }

// manyCrashes lets servers crash as often as the experiment wants: without
// brake and floor, and back soon, whatever they come back from.
func (p *pool) manyCrashes(ctx context.Context) error {
	const off = 100
	_, err := p.site.Admin().UpdatePool(ctx, &coordinatorv1.UpdatePoolRequest{
		Pool: lab.Pool,
		Settings: &coordinatorv1.PoolSettings{
			HoldDown: durationpb.New(holdDown), HoldDownMax: durationpb.New(holdDown), HoldDownLoss: durationpb.New(holdDown),
			BrakePercent: new(uint32(off)), BrakeZonePercent: new(uint32(off)), FloorPercent: new(uint32(off)), HeldPercent: new(uint32(off)),
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{
			"hold_down", "hold_down_max", "hold_down_loss", "brake_percent", "brake_zone_percent", "floor_percent", "held_percent",
		}},
		Reason: "an experiment with many crashes",
	})
	if err != nil {
		return fmt.Errorf("prepare the pool for many crashes: %w", err)
	}
	return nil
}

func (p *pool) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, errors.New("the pool does not settle"))
	defer cancel()
	return p.site.AwaitSettled(ctx, p.servers)
}

// back brings a crashed server back.
func (p *pool) back(server, kind string) error {
	if err := p.site.Host(server).LinkUp(); err != nil {
		return err
	}
	if kind == KindLink {
		return nil
	}
	agent, err := p.site.StartAgent(lab.AgentConfig{Server: server, Boot: true})
	if err != nil {
		return err
	}
	p.agents[server] = agent
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
