package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// CalmConfig is an experiment with faults that must not remove anybody.
type CalmConfig struct {
	PoolConfig
	// Faults are names of FaultNames; they are played one after the other.
	Faults []string
	// Victims, Lasts and Times replace a fault's own if they are not 0.
	Victims, Times int
	Lasts          time.Duration
	// Progress is told of every fault.
	Progress io.Writer
}

// between is the longest pause before a fault is repeated.
const between = time.Second

// Calm makes the experiment. It must run inside netlab.Enter.
func Calm(ctx context.Context, cfg CalmConfig) (r CalmReport, err error) {
	var chosen []fault
	for _, name := range cfg.Faults {
		f, err := findFault(name)
		if err != nil {
			return CalmReport{}, err
		}
		chosen = append(chosen, f.adapted(cfg))
	}
	pool, err := newPool(ctx, cfg.PoolConfig)
	if err != nil {
		return CalmReport{}, err
	}
	defer func() { err = errors.Join(err, pool.close()) }()
	if r.Setting, err = pool.setting(); err != nil {
		return CalmReport{}, err
	}
	for _, f := range chosen {
		_, _ = fmt.Fprintf(cfg.Progress, "%-8s %s: %d of %d, %d times %v\n", f.name, f.text, f.victims(cfg.Servers), cfg.Servers, f.times, f.lasts)
		outcome, err := pool.endure(ctx, f)
		if err != nil {
			return CalmReport{}, fmt.Errorf("%s: %w", f.name, err)
		}
		r.Faults = append(r.Faults, outcome)
	}
	return r, nil
}

// adapted is the fault as the experiment wants it.
func (f fault) adapted(cfg CalmConfig) fault {
	if cfg.Victims != 0 {
		f.victims = func(n int) int { return min(n, cfg.Victims) }
	}
	if cfg.Lasts != 0 {
		f.lasts = cfg.Lasts
	}
	if cfg.Times != 0 {
		f.times = cfg.Times
	}
	return f
}

// endure plays a fault while the pool is looked at.
func (p *pool) endure(ctx context.Context, f fault) (FaultReport, error) {
	before, err := p.site.Removals(ctx)
	if err != nil {
		return FaultReport{}, err
	}
	o := newOnlooker(p)
	lookCtx, stop := context.WithCancel(ctx)
	defer stop()
	var looking sync.WaitGroup
	var strain monitor
	var strainErr error
	looking.Go(func() { strainErr = strain.watch(lookCtx) })
	looking.Go(func() { o.look(lookCtx) })
	r := FaultReport{
		Fault: f.name, Text: f.text, Victims: f.victims(len(p.servers)), Times: f.times,
		Removed: []string{}, Alarms: []AlarmCount{},
	}
	for range f.times {
		if err := p.play(ctx, f, &r); err != nil {
			return FaultReport{}, err
		}
	}
	stop()
	looking.Wait()
	o.report(&r)
	r.Strain = strain.strain()
	after, err := p.site.Removals(ctx)
	for _, e := range after[:max(0, len(after)-len(before))] { // newest first
		r.Removed = append(r.Removed, e.GetServerId()+": "+e.GetText())
	}
	return r, errors.Join(err, strainErr)
}

// play plays a fault once and waits until all is well again.
func (p *pool) play(ctx context.Context, f fault, r *FaultReport) error {
	if err := pause(ctx, time.Duration(p.random.Int64N(int64(between)))); err != nil {
		return err
	}
	begun := time.Now()
	end, err := f.begin(ctx, p, p.draw(f.victims(len(p.servers))))
	if err != nil {
		return err
	}
	err = pause(ctx, f.lasts-time.Since(begun))
	r.Lasted = max(r.Lasted, seconds(time.Since(begun)))
	ended := time.Now()
	if err := errors.Join(err, end()); err != nil {
		return err
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	r.Normal = max(r.Normal, seconds(time.Since(ended)))
	return nil
}

// draw draws servers at random.
func (p *pool) draw(n int) []string {
	var ids []string
	for _, i := range p.random.Perm(len(p.servers))[:n] {
		ids = append(ids, p.servers[i])
	}
	return ids
}
