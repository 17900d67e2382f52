package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// reopenEvery is how often pools that are set aside are read again.
const reopenEvery = 10 * time.Second

// openPools starts those of the pools that can be read, and says of each other
// one that it is not served: it must not take the others with it.
func (t *term) openPools(states []member.PoolState) error {
	for _, state := range states {
		if err := t.pools.open(state); err != nil {
			return err
		}
	}
	now := time.Now()
	for name, why := range t.pools.setAside() {
		t.own.raise(member.Alarm{
			Name: alarmUnreadable, Pool: name, Since: now,
			Text: fmt.Sprintf("pool %s is not served: the table has rows of it that make no sense: %v", name, why),
		})
	}
	return nil
}

// reopen serves pools that were set aside once somebody has mended their rows,
// until ctx ends.
func (t *term) reopen(ctx context.Context) {
	tick := time.NewTicker(reopenEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if len(t.pools.setAside()) == 0 {
			continue
		}
		if err := t.reopenOnce(ctx); err != nil && ctx.Err() == nil {
			t.deps.Logger.WarnContext(ctx, "pools that are not served not read again", "error", err)
		}
	}
}

func (t *term) reopenOnce(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	release, err := t.pools.alone(within)
	if err != nil {
		return err
	}
	defer release()
	states, err := t.deps.Store.LoadPools(within)
	if err != nil {
		return err
	}
	before := t.pools.setAside()
	if err := t.missDeleted(within, before, states); err != nil {
		return err
	}
	states = slices.DeleteFunc(states, func(s member.PoolState) bool { return before[s.Name] == nil })
	for i, s := range states {
		if e := s.Position.Epoch; s.Unreadable == nil && e != t.lead.epoch {
			states[i].Unreadable = fmt.Errorf("it is of epoch %d, and the leader of %d", e, t.lead.epoch)
		}
	}
	t.pools.forget(func(name member.Pool) bool { return !has(states, name) })
	err = t.openPools(states)
	after := t.pools.setAside()
	for name := range before {
		if after[name] == nil {
			t.own.clear(member.AlarmKey{Name: alarmUnreadable, Pool: name}, time.Now())
		}
	}
	return err
}

func has(states []member.PoolState, name member.Pool) bool {
	return slices.ContainsFunc(states, func(s member.PoolState) bool { return s.Name == name })
}

// missDeleted finds out what became of pools that were aside and are not in the
// table any more: a deletion may have gone through without an answer.
func (t *term) missDeleted(ctx context.Context, aside map[member.Pool]error, states []member.PoolState) error {
	var gone []member.DeletedPool
	for name := range aside {
		if has(states, name) {
			continue
		}
		deleted, err := t.deps.Store.DeletedPools(ctx)
		if err != nil {
			return err
		}
		gone = slices.DeleteFunc(deleted, func(d member.DeletedPool) bool { return aside[d.Name] == nil || has(states, d.Name) })
		break
	}
	for _, d := range gone {
		t.forget(d)
	}
	return nil
}

// removal is the deletion of a pool that is not served.
type removal struct {
	pool  member.Pool
	call  pool.Call
	force bool
}

// deleteAside ends a pool that is not served, and returns its last revision. It has
// no machine, so that what is in it counts for nothing, and an operator must insist.
func (t *term) deleteAside(ctx context.Context, r removal) (member.Revision, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, errCallTime)
	defer cancel()
	release, err := t.pools.alone(ctx)
	if err != nil {
		return 0, fmt.Errorf("delete pool %s: %w", r.pool, err)
	}
	defer release()
	if d, done, err := t.pools.deletedBy(r.pool, r.call); done || err != nil {
		return d.Position.Revision, err
	}
	revision, err := t.removeAside(ctx, r)
	if errors.Is(err, member.ErrNotFound) {
		return t.hearDeletion(ctx, r, err)
	}
	return revision, err
}

// removeAside makes the deletion. Others must be kept from the pools, as in
// hearDeletion.
func (t *term) removeAside(ctx context.Context, r removal) (member.Revision, error) {
	change, err := t.prepareRemoval(ctx, r)
	if err != nil || r.call.ValidateOnly {
		return change.Base.Revision, err
	}
	err = t.commitAlone(ctx, change)
	if errors.Is(err, member.ErrFenced) {
		t.over.end(err)
		return 0, t.notLeader()
	}
	if err != nil {
		return 0, fmt.Errorf("delete pool %s: %w", r.pool, err)
	}
	d := deletionOf(change)
	t.letGo(r.pool)
	t.forget(d)
	return d.Position.Revision, nil
}

// hearDeletion answers for a pool that was aside and is not in the table any more:
// an earlier call with the same request id may have deleted it without an answer.
func (t *term) hearDeletion(ctx context.Context, r removal, missing error) (member.Revision, error) {
	if err := t.missDeleted(ctx, map[member.Pool]error{r.pool: missing}, nil); err != nil {
		return 0, fmt.Errorf("delete pool %s: %w", r.pool, err)
	}
	t.letGo(r.pool)
	if d, done, err := t.pools.deletedBy(r.pool, r.call); done || err != nil {
		return d.Position.Revision, err
	}
	return 0, missing
}

// letGo ends that a pool is aside: it is gone.
func (t *term) letGo(name member.Pool) {
	t.pools.forget(func(n member.Pool) bool { return n == name })
	t.own.clear(member.AlarmKey{Name: alarmUnreadable, Pool: name}, time.Now())
}

// prepareRemoval makes the change, from where the pool stands in the table.
func (t *term) prepareRemoval(ctx context.Context, r removal) (member.Change, error) {
	if !r.force {
		return member.Change{}, &member.RefusedError{Rule: "unreadable", Reason: fmt.Sprintf(
			"pool %s is not served, and nobody knows who is in it; mend its rows, or delete it by force", r.pool)}
	}
	if err := t.pools.whyAside(r.pool); err == nil {
		return member.Change{}, fmt.Errorf("delete pool %s: %w: it is served again, or gone; ask again", r.pool, member.ErrUnavailable)
	}
	state, err := t.pools.stored(ctx, r.pool)
	if err != nil {
		return member.Change{}, fmt.Errorf("delete pool %s: %w", r.pool, err)
	}
	change := member.Change{
		ID: rand.Text(), Pool: r.pool, Base: state.Position,
		Delete: &member.Deletion{At: time.Now(), Actor: r.call.Actor, Reason: r.call.Reason},
	}
	switch used, err := t.pools.answers().of(ctx, r.pool, r.call.RequestID); {
	case err != nil:
		return change, err
	case used != nil:
		return change, usedBefore(r.call.RequestID)
	}
	if r.call.RequestID != "" {
		change.Requests = []member.Request{{
			ID: r.call.RequestID, Hash: r.call.Hash, Revision: change.Revision(), At: change.Delete.At,
		}}
	}
	switch expected := r.call.ExpectedRevision; {
	case state.Position.Epoch != t.lead.epoch:
		return change, &member.RefusedError{Rule: "unreadable", Reason: fmt.Sprintf(
			"pool %s is of epoch %d, and the leader of %d; mend its row first", r.pool, state.Position.Epoch, t.lead.epoch)}
	case expected != nil && *expected != state.Position.Revision:
		return change, fmt.Errorf("delete pool %s: it is at revision %d and not %d: %w", r.pool, state.Position.Revision, *expected, member.ErrStale)
	}
	return change, t.tenure.check(time.Now())
}

// commitAlone commits a change of a pool that has no host, until its outcome is
// known or ctx ends.
func (t *term) commitAlone(ctx context.Context, change member.Change) error {
	for {
		err := t.deps.Store.Commit(ctx, change)
		if !errors.Is(err, store.ErrOutcomeUnknown) {
			return err
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// deletionOf is what is remembered of the pool that a change deletes.
func deletionOf(c member.Change) member.DeletedPool {
	d := member.DeletedPool{
		Name: c.Pool, Position: member.Position{Epoch: c.Base.Epoch, Revision: c.Revision()}, Deletion: *c.Delete,
	}
	if len(c.Requests) > 0 {
		d.Request = c.Requests[0]
	}
	return d
}
