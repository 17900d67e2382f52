package detect

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// fault is something that happens to some servers at once and that must not
// cost any of them its place.
type fault struct {
	name, text string
	// victims is how many of n servers it hits, lasts how long, times how often,
	// unless the experiment says otherwise.
	victims func(n int) int
	lasts   time.Duration
	times   int
	// begin lets it happen; end ends it.
	begin func(ctx context.Context, p *pool, victims []string) (end func() error, err error)
}

func one(int) int         { return 1 }
func quarter(n int) int   { return n / 4 }
func half(n int) int      { return n / 2 }
func everybody(n int) int { return n }

func faults() []fault {
	return []fault{
		{"stop", "agents stopped by SIGSTOP", quarter, 15 * time.Second, 1, stop},
		{"starve", "agents starved: stopped most of the time", quarter, 15 * time.Second, 1, starve},
		{"cut", "coordinator cut off from these hosts", half, 30 * time.Second, 1, cut},
		{"flap", "network of one host gone for a moment", one, 400 * time.Millisecond, 50, flap},
		{"suspend", "host suspended, with a removal grace of 5 s", one, 3 * time.Second, 5, suspend},
		{"icmp", "firewalls that drop ICMP, on all hosts", everybody, 15 * time.Second, 1, dropICMP},
	}
}

// FaultNames are the faults that Calm knows.
func FaultNames() []string {
	var names []string
	for _, f := range faults() {
		names = append(names, f.name)
	}
	return names
}

func findFault(name string) (fault, error) {
	for _, f := range faults() {
		if f.name == name {
			return f, nil
		}
	}
	return fault{}, fmt.Errorf("no fault is called %q; there are %v", name, FaultNames())
}

// all does the same to all victims.
func all(victims []string, do func(victim string) error) error {
	var errs []error
	for _, v := range victims {
		errs = append(errs, do(v))
	}
	return errors.Join(errs...)
}

func (p *pool) signal(victims []string, sig syscall.Signal) error {
	return all(victims, func(v string) error { return p.agents[v].Signal(sig) })
}

func stop(_ context.Context, p *pool, victims []string) (func() error, error) {
	return func() error { return p.signal(victims, syscall.SIGCONT) }, p.signal(victims, syscall.SIGSTOP)
}

// How long a starved agent waits for a processor, and how long it has it then,
// at most.
const (
	longestWait = 400 * time.Millisecond
	longestTurn = 20 * time.Millisecond
)

// starve gives the victims short turns after long waits, as a scheduler does
// that has too much to do. It takes the processors from nobody else.
func starve(ctx context.Context, p *pool, victims []string) (func() error, error) {
	ctx, cancel := context.WithCancel(ctx)
	var starving sync.WaitGroup
	for _, v := range victims {
		random := chance()
		starving.Go(func() {
			for ctx.Err() == nil {
				// An agent that has ended is found out at the end.
				_ = p.agents[v].Signal(syscall.SIGSTOP)
				_ = pause(ctx, time.Duration(random.Int64N(int64(longestWait))))
				_ = p.agents[v].Signal(syscall.SIGCONT)
				_ = pause(ctx, time.Duration(random.Int64N(int64(longestTurn))))
			}
		})
	}
	return func() error {
		cancel()
		starving.Wait()
		return p.signal(victims, syscall.SIGCONT)
	}, nil
}

func cut(_ context.Context, p *pool, victims []string) (func() error, error) {
	coordinator := p.site.CoordinatorHost()
	end := func() error {
		return all(victims, func(v string) error {
			return errors.Join(coordinator.Mend(p.site.Host(v).Addr()), p.site.Host(v).Mend(coordinator.Addr()))
		})
	}
	return end, all(victims, func(v string) error {
		return errors.Join(coordinator.Cut(p.site.Host(v).Addr()), p.site.Host(v).Cut(coordinator.Addr()))
	})
}

func flap(_ context.Context, p *pool, victims []string) (func() error, error) {
	return func() error { return all(victims, func(v string) error { return p.site.Host(v).Reconnect() }) },
		all(victims, func(v string) error { return p.site.Host(v).Isolate() })
}

// suspendGrace is what an operator of live-migrating hosts is advised to set.
const suspendGrace = 5 * time.Second

func suspend(ctx context.Context, p *pool, victims []string) (func() error, error) {
	if err := p.removalGrace(ctx, suspendGrace); err != nil {
		return nil, err
	}
	end := func() error {
		err := all(victims, func(v string) error {
			return errors.Join(p.site.Host(v).Reconnect(), p.agents[v].Signal(syscall.SIGCONT))
		})
		return errors.Join(err, p.settle(ctx), p.removalGrace(ctx, 0))
	}
	return end, all(victims, func(v string) error {
		return errors.Join(p.agents[v].Signal(syscall.SIGSTOP), p.site.Host(v).Isolate())
	})
}

func (p *pool) removalGrace(ctx context.Context, grace time.Duration) error {
	_, err := p.site.Admin().UpdatePool(ctx, &coordinatorv1.UpdatePoolRequest{
		Pool: lab.Pool, Settings: &coordinatorv1.PoolSettings{RemovalGrace: durationpb.New(grace)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"removal_grace"}}, Reason: "an experiment with suspended hosts",
	})
	if err != nil {
		return fmt.Errorf("set the removal grace: %w", err)
	}
	return nil
}

func dropICMP(_ context.Context, p *pool, victims []string) (func() error, error) {
	return func() error { return all(victims, func(v string) error { return p.site.Host(v).ShowPing() }) },
		all(victims, func(v string) error { return p.site.Host(v).HidePing() })
}
