package chaos

import (
	"context"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/relay"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// slowness says which links are slow, and by how much, each way.
type slowness struct {
	name          string
	links         func(*run, *coordinator) []*relay.Path
	delay, jitter time.Duration
	// bearable says that the leader, which is well, must lead on in its epoch.
	bearable bool
	// commits says that changes come late, too: there is a round trip in each at least.
	commits bool
	// steered is the time in the report from the crash of a server until no router
	// sent anybody there.
	steered func(*Report) *Times
}

// slownesses are made in turns. A renewal of the lease takes four round trips and a new
// connection five or six, and both together may take 2 s: ten round trips of 200 ms.
func slownesses() []slowness {
	database, clients := slowness{
		name: "the leader's link to the database", bearable: true, commits: true,
		links: func(_ *run, leader *coordinator) (all []*relay.Path) {
			for _, g := range leader.gates {
				all = append(all, g.Path)
			}
			return all
		},
		steered: func(r *Report) *Times { return &r.SlowDatabase },
	}, slowness{
		name: "the links to those who are far from the coordinators", bearable: true,
		links: func(r *run, _ *coordinator) (all []*relay.Path) {
			for _, c := range r.site.all {
				all = append(all, c.front.Path)
			}
			return all
		},
		steered: func(r *Report) *Times { return &r.SlowClients },
	}
	late := func(s slowness, delay, jitter time.Duration) slowness {
		s.delay, s.jitter = delay, jitter
		return s
	}
	unbearable := late(database, 300*time.Millisecond, 0)
	unbearable.bearable = false
	return []slowness{
		late(database, 50*time.Millisecond, 0),
		late(clients, 20*time.Millisecond, 280*time.Millisecond),
		unbearable,
		late(database, 75*time.Millisecond, 0),
		late(clients, 100*time.Millisecond, 50*time.Millisecond),
		late(database, 20*time.Millisecond, 80*time.Millisecond),
	}
}

// slow makes links slow for a while. Suspects reach the routers meanwhile, and changes
// are made.
func (r *run) slow(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	if err := r.real.follow(ctx, epoch, r.real.routers...); err != nil {
		return err
	}
	s := slownesses()[r.report.Slows%len(slownesses())]
	r.report.Slows++
	what := fmt.Sprintf("%s: late by %s", s.name, s.delay)
	if s.jitter > 0 {
		what += fmt.Sprintf(" to %s", s.delay+s.jitter)
	}
	begin, links := time.Now(), s.links(r, c)
	for _, link := range links {
		link.Slow(s.delay, s.jitter)
	}
	went, err := r.goesOn(ctx, what, r.patiently)
	sleep(ctx, r.cfg.StopFor-time.Since(begin))
	for _, link := range links {
		link.Slow(0, 0)
	}
	r.mortality.revive(went.victim, time.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if s.commits && went.resumed < 2*s.delay {
		return fmt.Errorf("%s: a change was acknowledged after %s: the link is not slow", what, went.resumed)
	}
	steered := s.steered(&r.report)
	*steered, r.report.SlowChanges = append(*steered, went.steered), append(r.report.SlowChanges, went.resumed)
	if !s.bearable {
		return nil
	}
	return r.leadsOn(ctx, c, epoch, what)
}

// patiently makes a change as somebody who waits for the answer: the operators ask
// again after askTime, which may be less than a commit takes.
func (r *run) patiently(ctx context.Context) error {
	reason := fmt.Sprintf("%sslow %d.", reasonPrefix, r.report.Slows)
	request := &pb.SetIntentRequest{
		Pool: chaosPool, ServerId: "planned-slow", Wish: pb.Wish_WISH_MAINTENANCE, Reason: reason,
		RequestId: fmt.Sprint("chaos-slow-", r.report.Slows),
	}
	what := history.Operation{
		Kind: history.Intend, Pool: chaosPool, Server: request.GetServerId(), Client: "patient",
		Intent: history.Intent{Wish: "maintenance", Reason: reason},
	}
	r.ledger.ordered(what, reason)
	call := r.history.Call(what, time.Now())
	for ; ; sleep(ctx, 20*time.Millisecond) {
		c, _, err := r.site.leader(ctx)
		if err != nil {
			return err
		}
		res, err := c.client.SetIntent(ctx, request)
		if err == nil {
			call.Return(history.Result{Revision: res.GetRevision()}, time.Now())
			break
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no change is acknowledged: %w", err)
		}
		call.Retry()
	}
	r.ledger.done(what, reason)
	return nil
}
