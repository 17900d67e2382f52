package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/lease"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// renewTime bounds one renewal of the lease, which also checks the database.
	renewTime = 2 * time.Second
	// rowTime bounds one write about a router.
	rowTime = 3 * time.Second
	// tendEvery is how often routers are looked after.
	tendEvery = time.Second
	// otherHistoryMemory is how long the alarms stay that a router brings from another
	// history: they tell of a moment.
	otherHistoryMemory = 10 * time.Minute

	pruneFirst = time.Minute
	pruneEvery = 10 * time.Minute
	pruneLimit = 1000
	prunePause = 100 * time.Millisecond
	// What is kept of the past, whichever is more.
	keepRevisions = 10_000
	keepEvents    = 7 * 24 * time.Hour
	keepDeparted  = 7 * 24 * time.Hour

	diskEvery = 10 * time.Second
	// diskReserve is how much room a database needs to go on for a while.
	diskReserve = 32 << 20
)

// keepLead renews the lease until ctx ends or another leader exists, which ends
// the term.
func (t *term) keepLead(ctx context.Context) {
	if err := t.keep(ctx, t.lead.epoch, t.tenure); err != nil {
		t.over.end(err)
	}
}

// keep renews the lease, at once and then regularly, until ctx ends, which is nil,
// another leader exists, or the table was put back.
func (s *Server) keep(ctx context.Context, epoch member.Epoch, tenure *tenure) error {
	tick := time.NewTicker(lease.RenewEvery)
	defer tick.Stop()
	var back lag
	for ctx.Err() == nil {
		err := s.renew(ctx, epoch, tenure)
		if errors.Is(err, member.ErrFenced) {
			return err
		}
		if err := back.lasts(err, time.Now()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	return nil
}

// lag is since when the table has been behind its leader, and when it was seen so
// last; zero while it is not. A node of a cluster may be for a moment. A table that
// stays so was put back: nothing that the leader knows is in it, and its epoch will
// come again.
type lag struct{ since, last time.Time }

// lagSight is how long what was seen of a lag holds without another look. It is
// longer than from one renewal to the answer of the next.
const lagSight = lease.RenewEvery + renewTime

// lasts takes the outcome of a write, and returns why the term is over if the
// table has been behind for as long as a lease lives. That it was behind twice does
// not say that it was in between, as where the database was not reached.
func (l *lag) lasts(err error, now time.Time) error {
	if !errors.Is(err, store.ErrBehind) {
		if err == nil {
			*l = lag{}
		}
		return nil
	}
	if l.since.IsZero() || now.Sub(l.last) > lagSight {
		l.since = now
	}
	l.last = now
	if now.Sub(l.since) < lease.Life {
		return nil
	}
	return fmt.Errorf("the table was put back, as by the restore of a backup: %w", err)
}

// renew is not cut off by the end of ctx: a renewal that hangs in the database
// would keep the row from whoever gives the lease back.
func (s *Server) renew(ctx context.Context, epoch member.Epoch, tenure *tenure) error {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTime)
	defer cancel()
	sent := time.Now()
	err := s.deps.Store.Renew(within, epoch)
	if err == nil {
		tenure.renewed(sent)
	}
	if ctx.Err() != nil {
		return nil
	}
	s.health.renewed(err, time.Now())
	return err
}

// tendRouters writes the routers' rows and raises the alarms of silent ones.
func (t *term) tendRouters(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, name := range []string{alarmWentBack, alarmStoreChanged} {
				t.own.expire(name, now.Add(-otherHistoryMemory), now)
			}
			due, left := t.routers.tend(now)
			if t.tenure.check(now) == nil {
				t.writeRouters(ctx, due, now)
				t.dropRouters(ctx, left)
			}
		}
	}
}

// writeRouters gives up at the first failure; all are tried again later.
func (t *term) writeRouters(ctx context.Context, due []routerInfo, now time.Time) {
	for _, r := range due {
		within, cancel := context.WithTimeout(ctx, rowTime)
		err := t.deps.Store.PutRouter(within, t.lead.epoch, r.row())
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				t.deps.Logger.WarnContext(ctx, "router not written", "router_id", r.id, "error", err)
			}
			return
		}
		t.routers.written(r, now)
	}
}

// dropRouters takes those that have said goodbye out of the table; as above.
func (t *term) dropRouters(ctx context.Context, left []member.ID) {
	for _, id := range left {
		within, cancel := context.WithTimeout(ctx, rowTime)
		err := t.deps.Store.DropRouter(within, t.lead.epoch, string(id))
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				t.deps.Logger.WarnContext(ctx, "router not taken out of the table", "router_id", id, "error", err)
			}
			return
		}
		t.routers.dropped(id)
	}
}

// prune removes what need not be kept of the past.
func (t *term) prune(ctx context.Context) {
	wait := time.NewTimer(pruneFirst)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		if err := t.pruneAll(ctx); err != nil && ctx.Err() == nil {
			t.deps.Logger.WarnContext(ctx, "past not pruned", "error", err)
		}
		wait.Reset(pruneEvery)
	}
}

// pruneAll prunes all pools that there are or were. What is wrong with one keeps no
// other one's past; where the database cannot be reached, all are tried again later.
func (t *term) pruneAll(ctx context.Context) error {
	if err := t.tenure.check(time.Now()); err != nil {
		return err
	}
	var failed error
	for _, name := range t.pools.present.Load().names() {
		err := t.prunePool(ctx, name)
		switch {
		case errors.Is(err, member.ErrUnavailable), ctx.Err() != nil:
			return errors.Join(failed, err)
		case !errors.Is(err, member.ErrNotFound): // the table remembers it no longer
			failed = errors.Join(failed, err)
		}
	}
	_, err := t.deps.Store.ForgetRouters(ctx, t.lead.epoch, time.Now().Add(-routerMemory))
	return errors.Join(failed, err)
}

func (t *term) prunePool(ctx context.Context, name member.Pool) error {
	now := time.Now()
	for {
		removed, err := t.deps.Store.Prune(ctx, name, store.Retention{
			Revisions: keepRevisions, EventsSince: now.Add(-keepEvents),
			RequestsSince: now.Add(-store.RequestLife), DepartedSince: now.Add(-keepDeparted), Limit: pruneLimit,
		})
		if err != nil || removed == 0 {
			return err
		}
		select {
		case <-time.After(prunePause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watchDisk raises an alarm while the database's disk has little room.
func (s *Server) watchDisk(ctx context.Context) {
	if s.deps.FreeBytes == nil {
		return
	}
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	for {
		s.lookAtDisk(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Server) lookAtDisk(ctx context.Context, now time.Time) {
	free, err := s.deps.FreeBytes()
	if err != nil {
		s.deps.Logger.WarnContext(ctx, "free disk space not known", "error", err)
		return
	}
	if free >= diskReserve {
		s.own.clear(member.AlarmKey{Name: alarmDiskLow}, now)
		return
	}
	s.own.raise(member.Alarm{
		Name: alarmDiskLow, Since: now,
		Text: fmt.Sprintf("the disk of the database has %d MiB left; below %d MiB changes may soon fail", free>>20, diskReserve>>20),
	})
}
