package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/wallclock"
)

// clockStep is by how much a clock is ahead or behind when it is wrong.
const clockStep = 10 * time.Minute

// ahead is how far a clock may be ahead.
func ahead() []time.Duration { return []time.Duration{-clockStep, 0, clockStep} }

// timepiece is the wall clock of a program, and how far it is ahead.
type timepiece struct {
	clock *wallclock.Clock
	ahead time.Duration
}

// program is one whose clock is set.
type program struct {
	name string
	pid  int
}

// programs are those whose clocks are set, in turns.
func (r *run) programs(leader *coordinator) []program {
	all := []program{{leader.id + ", which leads", leader.proc.Pid()}, {"the database", r.site.servers.Servers()[0].Pid()}}
	if len(r.real.routers) > 0 {
		all = append(all, program{"a router", r.real.routers[0].Pid()}, program{"an agent", r.real.agents[0].Pid()})
	}
	return all
}

// setClock sets the wall clock of one program forward or back, or right again. So it
// stays until it is set again or the program ends, through all other faults. The
// leader, which is well, must lead on in its epoch.
func (r *run) setClock(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	all := r.programs(c)
	p := all[r.report.Clocks%len(all)]
	r.report.Clocks++
	its := r.clocks[p.pid]
	if its == nil {
		its = &timepiece{}
		if its.clock, err = wallclock.Of(p.pid); err != nil {
			return err
		}
		r.clocks[p.pid] = its
	}
	others := slices.DeleteFunc(ahead(), func(d time.Duration) bool { return d == its.ahead })
	before := its.ahead
	its.ahead = others[r.rng.IntN(len(others))]
	if err := its.clock.Set(its.ahead); err != nil {
		return err
	}
	what := fmt.Sprintf("the clock of %s was set from %s ahead to %s", p.name, before, its.ahead)
	r.say("%s", what)
	return r.leadsOn(ctx, c, epoch, what)
}

// excuses reports whether a removal was right that a leader's clock has stamped, which
// may have been set. A wrong one is taken for right only if its server was dead at
// one of three times, which of a hundred servers less than one is.
func (r *run) excuses(id string, at time.Time) bool {
	if r.report.Clocks == 0 {
		return r.mortality.excuses(id, at)
	}
	return slices.ContainsFunc(ahead(), func(d time.Duration) bool { return r.mortality.excuses(id, at.Add(-d)) })
}
