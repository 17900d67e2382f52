package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/buddyring/buddyring/coordinator/lease"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// lookTime bounds one look at the lease: one that is lost leaves time for
	// another before the watch begins anew. claimTime bounds one claim.
	lookTime  = lease.Blind / 2
	claimTime = 3 * time.Second / 2
	// startTime bounds what is asked of the database before a term begins.
	startTime = 30 * time.Second
	// releaseTime bounds the giving back of the lease: after that it is over.
	releaseTime = lease.Life
	// glanceTime bounds the look for who leads now.
	glanceTime = 300 * time.Millisecond
	// startOver is how long a coordinator whose term failed leaves the lead to
	// others.
	startOver = time.Second
	// meetEvery is how often a coordinator says that it is there; otherMemory, for
	// how long agents are told of one that does not.
	meetEvery   = 10 * time.Second
	otherMemory = time.Hour
)

// compete stands by and leads in turns until ctx ends or nothing but a person
// can help.
func (s *Server) compete(ctx context.Context) error {
	var notBefore time.Time
	for ctx.Err() == nil {
		won, err := s.standBy(ctx, notBefore)
		if err != nil || ctx.Err() != nil {
			return err
		}
		if notBefore, err = s.hold(ctx, won); err != nil {
			return err
		}
	}
	return nil
}

// won is the lead as it was won.
type won struct {
	store.Leadership
	// sent is when the claim was sent.
	sent time.Time
}

// standBy watches the lease until it is won or ctx ends.
func (s *Server) standBy(ctx context.Context, notBefore time.Time) (won, error) {
	watch := lease.NewWatch(lease.Self{
		ID: member.ID(s.cfg.ID), Instance: s.cfg.Instance, Predecessor: s.cfg.Predecessor, Known: s.known,
	}, notBefore)
	defer func() { s.known = watch.Known() }()
	said := false
	for {
		switch s.look(ctx, watch) {
		case lease.Take:
			w, err := s.claim(ctx, watch)
			if ctx.Err() == nil {
				s.health.committed(err, time.Now())
			}
			if err == nil {
				return w, nil
			}
			lost := errors.Is(err, member.ErrStale) || errors.Is(err, member.ErrFenced)
			if !lost && !errors.Is(err, member.ErrUnavailable) && ctx.Err() == nil {
				return won{}, err
			}
			if errors.Is(err, member.ErrUnavailable) {
				s.deps.Logger.WarnContext(ctx, "lead not taken", "error", err)
				watch.Tried(time.Now())
			} else {
				s.deps.Logger.InfoContext(ctx, "lead not taken", "error", err)
			}
		case lease.GiveWay:
			return won{}, fmt.Errorf("another live coordinator has the id %s and leads: %w; give each coordinator an --id of its own",
				s.cfg.ID, member.ErrAlreadyExists)
		case lease.Wait:
		}
		if !said {
			said = true
			s.deps.Logger.InfoContext(ctx, "standing by", "coordinator_id", s.cfg.ID, "leader_id", watch.Sight().Lease.Holder,
				"epoch", watch.Sight().Lease.Epoch)
		}
		s.settled.end(nil)
		select {
		case <-time.After(time.Until(watch.NextLook(time.Now()))):
		case <-s.asked:
		case <-ctx.Done():
			return won{}, nil
		}
	}
}

// hasten has a standby look at the lease at once, but in the long run no more often
// than it does anyway, whoever asks how often.
func (s *Server) hasten() {
	if !s.asking.Allow() {
		return
	}
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// look reads the lease. What it cannot read it has not seen.
func (s *Server) look(ctx context.Context, watch *lease.Watch) lease.Step {
	within, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	asked := time.Now()
	l, err := s.deps.Store.Lease(within)
	if ctx.Err() != nil {
		return lease.Wait
	}
	s.health.renewed(err, time.Now())
	if err != nil {
		return lease.Wait
	}
	before := watch.Sight().MovedAt
	step := watch.See(lease.Look{Asked: asked, Answered: time.Now(), Lease: l})
	if !before.IsZero() && !watch.Sight().MovedAt.Equal(before) {
		s.health.committed(nil, time.Now()) // by another one
	}
	s.see(watch.Sight())
	return step
}

func (s *Server) see(sight lease.Sight) {
	s.sight.Store(&sight)
	s.metrics.epoch.Set(float64(sight.Lease.Epoch))
}

// claim tries to take the lease over that was seen last, in an epoch above all
// that were seen: those who have heard of one listen to no lower one, also when
// the table has gone back behind it.
func (s *Server) claim(ctx context.Context, watch *lease.Watch) (won, error) {
	seen := watch.Sight().Lease
	within, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	if seen.Instance == s.cfg.Instance && seen.Epoch > s.led {
		// An earlier claim went through, and its answer did not come in time. What is
		// seen may be lost in a crash of the database, until something written after it
		// is on the disk; then another one would lead in the same epoch.
		err := s.deps.Store.Renew(within, seen.Epoch)
		return won{store.Leadership{StoreID: seen.StoreID, Epoch: seen.Epoch}, s.claimed}, err
	}
	s.claimed = time.Now()
	l, err := s.deps.Store.Lead(within, store.Claim{
		Holder: member.ID(s.cfg.ID), Instance: s.cfg.Instance, Advertise: s.cfg.Advertise,
		Seen: seen, Above: watch.Known().Epoch(),
	})
	return won{l, s.claimed}, err
}

// hold leads until ctx ends, which is nil, or the lead is lost or given back. It
// returns until when to leave the lead to others.
func (s *Server) hold(ctx context.Context, w won) (notBefore time.Time, err error) {
	s.known.See(w.StoreID, w.Epoch)
	s.led = w.Epoch
	// Whoever asks while the term loads is told that the leader before is one of the
	// past.
	own := member.Lease{
		StoreID: w.StoreID, Holder: member.ID(s.cfg.ID), Instance: s.cfg.Instance, Advertise: s.cfg.Advertise, Epoch: w.Epoch,
	}
	s.see(lease.Sight{Lease: own, MovedAt: w.sent})
	s.loading.Store(&own)
	t, err := s.load(ctx, w)
	s.loading.Store(nil)
	if err != nil {
		_ = s.giveBack(ctx, w.Epoch) // it is in the log
		if ctx.Err() == nil && !errors.Is(err, member.ErrUnavailable) && !errors.Is(err, member.ErrFenced) {
			return notBefore, err
		}
		s.deps.Logger.WarnContext(ctx, "cannot lead", "epoch", w.Epoch, "error", err)
		return time.Now().Add(startOver), nil
	}
	why := t.run(ctx)
	s.deps.Logger.InfoContext(ctx, "leads no longer", "epoch", w.Epoch, "reason", why)
	switch {
	case errors.Is(why, errSteppedDown):
		// Whoever takes the lead is seen by then.
		return time.Now().Add(lease.Life), nil
	case errors.Is(why, member.ErrFenced), errors.Is(why, errStopping):
		return notBefore, nil
	}
	return time.Now().Add(startOver), nil
}

// load starts a term, and renews the lease meanwhile: a large table, or a slow
// database, must not cost the lead that has just been won.
func (s *Server) load(ctx context.Context, w won) (*term, error) {
	tenure := &tenure{}
	tenure.renewed(w.sent)
	loading, fenced := context.WithCancelCause(ctx)
	defer fenced(nil)
	renewing, stop := context.WithCancel(loading)
	var loop sync.WaitGroup
	loop.Go(func() {
		if err := s.keep(renewing, w.Epoch, tenure); err != nil {
			fenced(err)
		}
	})
	t, err := s.start(loading, w, tenure)
	stop()
	loop.Wait()
	if cause := context.Cause(loading); err != nil && cause != nil && ctx.Err() == nil {
		return nil, cause
	}
	return t, err
}

// giveBack releases the lease, so that nobody has to wait until it is over.
func (s *Server) giveBack(ctx context.Context, epoch member.Epoch) error {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	err := s.deps.Store.Release(within, epoch)
	if err != nil {
		s.deps.Logger.WarnContext(ctx, "lease not given back", "epoch", epoch, "error", err)
	}
	return err
}

// glance looks who has the lease now, for those who ask for the leader.
func (s *Server) glance(ctx context.Context) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), glanceTime)
	defer cancel()
	if l, err := s.deps.Store.Lease(within); err == nil {
		s.see(lease.Sight{Lease: l, MovedAt: time.Now()})
	}
}

// meet says in the table that this coordinator is there, and learns which others
// are, until ctx ends. One that nobody can be told of does neither.
func (s *Server) meet(ctx context.Context) {
	if s.cfg.Advertise == "" {
		return
	}
	select {
	case <-s.settled.done():
	case <-ctx.Done():
	}
	tick := time.NewTicker(meetEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if err := s.meetOnce(ctx); err != nil && ctx.Err() == nil {
			s.deps.Logger.WarnContext(ctx, "other coordinators not known", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (s *Server) meetOnce(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	now := time.Now()
	me := member.Coordinator{ID: member.ID(s.cfg.ID), Advertise: s.cfg.Advertise, LastSeen: now}
	if err := s.deps.Store.PutCoordinator(within, me); err != nil {
		return err
	}
	all, err := s.deps.Store.Coordinators(within, now.Add(-otherMemory))
	if err != nil {
		return err
	}
	others := []string{}
	for _, c := range all {
		if c.ID != me.ID && c.Advertise != "" && c.Advertise != me.Advertise {
			others = append(others, c.Advertise)
		}
	}
	s.others.Store(&others)
	return nil
}

// addresses are those of all coordinators, as agents are told, this one's first.
func (s *Server) addresses() []string {
	if s.cfg.Advertise == "" {
		return nil
	}
	return slices.Concat([]string{s.cfg.Advertise}, *s.others.Load())
}
