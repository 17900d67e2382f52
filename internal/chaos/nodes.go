package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// slowLink is by how much each message between nodes is late when links are slow.
const slowLink = 50 * time.Millisecond

// harm is what is done to a node of the cluster, and how it ends.
type harm struct {
	name     string
	do, undo func(*run, *coordinator, int) error
}

// harms are the kinds of harm, which are done in turns: to the node that the leader
// writes to, and then each to another one.
func harms() []harm {
	return []harm{
		{
			"killed",
			func(r *run, _ *coordinator, node int) error { return r.site.cluster.Node(node).Crash() },
			func(r *run, _ *coordinator, node int) error { return r.site.cluster.Rejoin(node) },
		},
		{
			"stopped",
			func(r *run, _ *coordinator, node int) error { return r.site.cluster.Node(node).Pause() },
			func(r *run, _ *coordinator, node int) error { return r.site.cluster.Node(node).Continue() },
		},
		{
			"cut off from the other nodes",
			func(r *run, _ *coordinator, node int) error { r.site.cluster.Isolate(node); return nil },
			mend,
		},
		{
			"cut off from the leader",
			func(_ *run, leader *coordinator, node int) error { leader.gates[node].Shut(); return nil },
			func(_ *run, leader *coordinator, node int) error { leader.gates[node].Open(); return nil },
		},
		{
			"cut off from one other node",
			func(r *run, _ *coordinator, node int) error { r.site.cluster.Sever(node, r.another(node)); return nil },
			mend,
		},
		{
			"among slow links",
			func(r *run, _ *coordinator, _ int) error { r.site.cluster.Slow(slowLink); return nil },
			mend,
		},
	}
}

func mend(r *run, _ *coordinator, _ int) error { r.site.cluster.Mend(); return nil }

// another is a node beside this one.
func (r *run) another(node int) int {
	all := len(r.site.cluster.Servers())
	return (node + 1 + r.rng.IntN(all-1)) % all
}

// node harms one node of the cluster for a while. Suspects reach the routers
// meanwhile, changes go on through the other nodes, and the leader leads on in its
// epoch.
func (r *run) node(ctx context.Context) error {
	if err := r.site.whole(ctx); err != nil {
		return err
	}
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	if err := r.real.follow(ctx, epoch, r.real.routers...); err != nil {
		return err
	}
	h, at, which := harms()[r.report.Nodes%len(harms())], c.gates.inUse(), ", in use,"
	if r.report.Nodes/len(harms())%2 == 1 {
		at, which = r.another(at), ""
	}
	r.report.Nodes++
	what := fmt.Sprintf("node %d%s was %s", at, which, h.name)
	begin := time.Now()
	if err := h.do(r, c, at); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	went, err := r.goesOn(ctx, what, r.changes)
	sleep(ctx, r.cfg.StopFor-time.Since(begin))
	err = errors.Join(err, h.undo(r, c, at), r.site.whole(ctx))
	r.mortality.revive(went.victim, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	r.report.Steered, r.report.Resumed = append(r.report.Steered, went.steered), append(r.report.Resumed, went.resumed)
	return r.leadsOn(ctx, c, epoch, what)
}

// host kills the leader together with the node that it writes to, and starts both
// again once another leads.
func (r *run) host(ctx context.Context) error {
	if err := r.site.whole(ctx); err != nil {
		return err
	}
	at := 0
	err := r.replace(ctx, "was killed with the node that it wrote to", &r.report.Host, func(c *coordinator) error {
		at = c.gates.inUse()
		c.proc.Kill()
		return r.site.cluster.Node(at).Crash()
	})
	if err != nil {
		return err
	}
	return r.site.cluster.Rejoin(at) //nolint:contextcheck // it has a time-out of its own
}

// course is how things went on beside a fault: which server crashed, how long it took
// until no router sent anybody there, and from the fault until a change was
// acknowledged that was asked for after it.
type course struct {
	victim           string
	steered, resumed time.Duration
}

// goesOn crashes a server, which stays dead, and waits until all routers avoid it and
// a change is acknowledged.
func (r *run) goesOn(ctx context.Context, what string, change func(context.Context) error) (went course, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it takes too long"))
	defer cancel()
	begin := time.Now()
	var changes errgroup.Group
	changes.Go(func() error {
		err := change(ctx)
		went.resumed = time.Since(begin)
		return err
	})
	victim, crash, err := r.strike(ctx)
	if err == nil {
		err = r.avoided(ctx, victim)
	}
	went.victim, went.steered = victim, time.Since(crash)
	if err := errors.Join(err, changes.Wait()); err != nil {
		return went, err
	}
	r.say("%s: the routers avoided a server %s after its crash, changes went on after %s",
		what, went.steered.Round(time.Millisecond), went.resumed.Round(time.Millisecond))
	return went, nil
}

// changes waits until a change is acknowledged that was asked for after it was called.
func (r *run) changes(ctx context.Context) error {
	// One may have been under way.
	for enough := r.ledger.changes() + 2; r.ledger.changes() < enough; sleep(ctx, time.Millisecond) {
		if ctx.Err() != nil {
			return fmt.Errorf("no change is acknowledged: %w", context.Cause(ctx))
		}
	}
	return nil
}

// strike crashes a server that all routers serve.
func (r *run) strike(ctx context.Context) (id string, at time.Time, err error) {
	for ; ctx.Err() == nil; sleep(ctx, 5*time.Millisecond) {
		id, _, ok := r.ledger.anyMember(r.rng)
		unknown := func(router *realRouter) bool { return router.avoids(ctx, chaosPool, id) }
		if at := time.Now(); ok && !slices.ContainsFunc(r.real.routers, unknown) && r.mortality.kill(id, at) {
			return id, at, nil
		}
	}
	return "", time.Time{}, fmt.Errorf("crash a server: %w", context.Cause(ctx))
}

// avoided waits until all routers avoid a server.
func (r *run) avoided(ctx context.Context, id string) error {
	for _, router := range r.real.routers {
		for ; !router.avoids(ctx, chaosPool, id); sleep(ctx, 5*time.Millisecond) {
			if ctx.Err() != nil {
				return fmt.Errorf("%s sends clients to %s, which is dead: %w", router.name, id, context.Cause(ctx))
			}
		}
	}
	return nil
}
