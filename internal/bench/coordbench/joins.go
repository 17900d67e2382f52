package coordbench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/bench"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// joinTarget is how many servers are to join in a second.
	joinTarget = 5000
	// joinRounds is how often all join, each time an empty pool.
	joinRounds = 3
	// patience is how long whatever must happen may take.
	patience = 2 * time.Minute
)

// joined is one round.
type joined struct {
	perSecond, seconds, activeSeconds float64
	// work is until all are active.
	work    work
	watched *watched
}

// joins has all agents join an empty pool at once, a few times.
func joins(ctx context.Context, o Options) ([]bench.Row, error) {
	if err := files(o.Agents); err != nil {
		return nil, err
	}
	alone, err := machineJoins(ctx, o)
	if err != nil {
		return nil, err
	}
	var rounds []joined
	for range joinRounds {
		j, err := joinOnce(ctx, o)
		if err != nil {
			return []bench.Row{alone}, err
		}
		rounds = append(rounds, j)
	}
	slices.SortFunc(rounds, func(a, b joined) int { return int(a.perSecond - b.perSecond) })
	worst, middle := rounds[0], rounds[len(rounds)/2]
	revisions, coalesced, valid := 0, 0, true
	for _, r := range rounds {
		revisions, coalesced, valid = revisions+r.watched.revisions, coalesced+r.watched.coalesced, valid && r.watched.broken == ""
	}
	return []bench.Row{alone, {
		ID: "S5", Experiment: fmt.Sprintf("the same by agents with connections made before, which share the processors, %d rounds", joinRounds),
		Target: "ring valid at every revision",
		Met:    valid && coalesced == 0,
		Measured: fmt.Sprintf("%.0f joins a second (slowest round %.0f): all welcomed after %.2f s, all active after %.2f s; until then "+
			"%.2f s of processor by the coordinator, %.2f by the database, %.2f by the %d agents, on %d processors; "+
			"%d revisions, each seen by a subscriber (%d coalesced), ring %s",
			middle.perSecond, worst.perSecond, middle.seconds, middle.activeSeconds, middle.work.coordinator.Seconds(), middle.work.database.Seconds(),
			middle.work.driver.Seconds(), o.Agents, runtime.NumCPU(), revisions, coalesced, validity(valid)),
		Figures: map[string]float64{
			"joins_per_second": middle.perSecond, "slowest_joins_per_second": worst.perSecond, "welcomed_seconds": middle.seconds,
			"active_seconds": middle.activeSeconds, "processor_seconds": middle.work.coordinator.Seconds(), "database_seconds": middle.work.database.Seconds(),
			"driver_seconds": middle.work.driver.Seconds(), "revisions": float64(revisions),
			"coalesced": float64(coalesced),
		},
	}}, nil
}

func validity(ok bool) string {
	if ok {
		return "valid at all of them"
	}
	return "BROKEN"
}

// joinOnce has all agents join a new pool in a new database.
func joinOnce(ctx context.Context, o Options) (j joined, err error) {
	s, err := startSite(ctx, o)
	if err != nil {
		return joined{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	gate := make(chan struct{})
	f := startFleet(ctx, s.address, o.Agents, gate)
	defer f.stop()
	if err := s.until(ctx, patience, "all agents are connected", func(context.Context) (bool, error) {
		return int(f.connected.Load()) == o.Agents, nil
	}); err != nil {
		return joined{}, err
	}
	t, err := startTape(ctx, s.address)
	if err != nil {
		return joined{}, err
	}
	before, err := s.work()
	if err != nil {
		return joined{}, err
	}
	began := time.Now()
	close(gate)
	last, err := f.await(ctx, o.Agents)
	if err != nil {
		return joined{}, err
	}
	if err := s.allActive(ctx, o.Agents, patience); err != nil {
		return joined{}, err
	}
	active := time.Now()
	after, err := s.work()
	if err != nil {
		return joined{}, err
	}
	if j.watched, err = settled(ctx, s, t, f); err != nil {
		return joined{}, err
	}
	j.seconds, j.activeSeconds, j.work = last.Sub(began).Seconds(), active.Sub(began).Seconds(), after.since(before)
	j.perSecond = float64(o.Agents) / j.seconds
	return j, nil
}

// settled checks what has come of the joins: table, memory and agents agree, and
// a subscriber has seen it come about.
func settled(ctx context.Context, s *site, t *tape, f *fleet) (*watched, error) {
	var problems []string
	if err := s.until(ctx, patience, "the ring is consistent", func(ctx context.Context) (bool, error) {
		res, err := s.client.CheckRing(ctx, &pb.CheckRingRequest{})
		problems = nil
		for _, p := range res.GetProblems() {
			problems = append(problems, p.String())
		}
		return res.GetConsistent(), err
	}); err != nil {
		return nil, fmt.Errorf("%w; %d problems, such as %v", err, len(problems), problems[:min(3, len(problems))])
	}
	p, err := s.pool(ctx)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, time.Second); err != nil { // the subscriber's newest
		return nil, err
	}
	w, err := watch(t.stop())
	switch {
	case err != nil:
		return nil, err
	case w.broken != "":
		return w, fmt.Errorf("the ring is broken at %s", w.broken)
	case w.revision != p.GetRevision():
		return w, fmt.Errorf("a subscriber is at revision %d and the pool at %d", w.revision, p.GetRevision())
	case f.wrong() > 0:
		return w, fmt.Errorf("%d agents were removed or moved", f.wrong())
	}
	return w, nil
}
