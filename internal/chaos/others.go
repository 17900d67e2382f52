package chaos

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/internal/process"
)

// bystander is a program beside the leader: a standby, a router or an agent.
type bystander struct {
	name string
	proc *process.Process
	// routers are those that go on meanwhile.
	routers []*realRouter
	// restart starts it again; back waits until it works as before.
	restart, back func(context.Context) error
}

// bystanders are one of each kind.
func (r *run) bystanders(leader *coordinator, epoch uint64) []bystander {
	standby := r.site.all[0]
	if standby == leader {
		standby = r.site.all[1]
	}
	all := []bystander{{
		name: standby.id + ", which stands by,", proc: standby.proc, routers: r.real.routers,
		restart: func(ctx context.Context) error { return r.site.start(ctx, standby) },
		back:    func(ctx context.Context) error { return r.standsBy(ctx, standby) },
	}}
	if len(r.real.routers) == 0 {
		return all
	}
	follow := func(ctx context.Context) error { return r.real.follow(ctx, epoch, r.real.routers...) }
	router, agent := r.real.routers[0], r.real.agents[0]
	return append(all, bystander{
		name: router.name, proc: router.Process, routers: r.real.routers[1:], back: follow,
		restart: func(context.Context) error { return r.real.restart(router) },
	}, bystander{
		name: "an agent", proc: agent.Process, routers: r.real.routers, back: follow,
		restart: func(context.Context) error { return r.real.start(&agent.realProgram) },
	})
}

// other kills a program beside the leader and starts it again, or stops it and lets
// it go on. The leader must lead on in its epoch, and the routers that go on have all
// the agents' servers without it.
func (r *run) other(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	if err := r.real.follow(ctx, epoch, r.real.routers...); err != nil {
		return err
	}
	all := r.bystanders(c, epoch)
	b := all[r.report.Others%len(all)]
	what, end, begin := "was killed", func() error { b.proc.Kill(); return nil }, b.restart
	if r.report.Others/len(all)%2 == 1 {
		what = "was stopped for " + r.cfg.StopFor.String()
		end = func() error { return b.proc.Signal(syscall.SIGSTOP) }
		begin = func(ctx context.Context) error { sleep(ctx, r.cfg.StopFor); return b.proc.Signal(syscall.SIGCONT) }
	}
	r.report.Others++
	if err := end(); err != nil {
		return err
	}
	sleep(ctx, time.Duration(r.rng.Int64N(int64(restTime))))
	err = errors.Join(r.real.follow(ctx, epoch, b.routers...), begin(ctx))
	if err == nil {
		err = b.back(ctx)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", b.name, what, err)
	}
	r.say("%s %s", b.name, what)
	return r.leadsOn(ctx, c, epoch, b.name+" "+what)
}
