package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// commitTime bounds one attempt to commit, so that a hanging database is
	// noticed.
	commitTime = 10 * time.Second
	// settlePause is the pause before a commit of unknown outcome is asked about
	// again.
	settlePause = 250 * time.Millisecond
	// commitGrace is how long a commit may still take once the host stops.
	commitGrace = 2 * time.Second
)

// errNotMade is the outcome of a change that was settled and is not in the table.
var errNotMade = fmt.Errorf("%w: the database did not confirm the change in time, and it was not made", member.ErrUnavailable)

// propose has a change committed, unless the host is to stop.
func (h *host) propose(ctx context.Context, p pool.Propose) {
	if h.stopping {
		return
	}
	done := make(chan struct{})
	h.committing = done
	h.helpers.Go(func() {
		defer close(done)
		h.commit(ctx, p)
	})
}

// commit hands a change to the store until its outcome is known, and the outcome
// to the machine. Once the host stops, it does not insist. Without the lease
// nothing is tried; what was tried before is still settled, under the fence.
func (h *host) commit(ctx context.Context, p pool.Propose) {
	if err := h.tenure.check(time.Now()); err != nil {
		o := outcomeOf(p.Change, err)
		h.metrics.commits.WithLabelValues(o.name).Inc()
		h.outcomes <- o
		return
	}
	within, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(commitGrace, cancel) })
	defer stop()

	start, doubt := time.Now(), false
	for {
		err := h.attempt(within, p, doubt)
		if back := h.back.lasts(err, time.Now()); back != nil {
			h.outcomes <- outcome{name: "fenced", input: pool.Fenced{}, fatal: back}
			return
		}
		doubt = doubt || errors.Is(err, store.ErrOutcomeUnknown)
		if doubt && errors.Is(err, member.ErrUnavailable) && !errors.Is(err, errNotMade) {
			// Not being able to ask again does not undo what may have happened.
			err = fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, err)
		}
		o := outcomeOf(p.Change, err)
		h.metrics.commits.WithLabelValues(o.name).Inc()
		if o.input != nil {
			h.metrics.commitSeconds.Observe(time.Since(start).Seconds())
			h.outcomes <- o
			return
		}
		select {
		case <-time.After(settlePause):
		case <-ctx.Done():
			return
		}
	}
}

// attempt commits a change; one in doubt is made after all, or only settled where it
// rests on evidence.
func (h *host) attempt(ctx context.Context, p pool.Propose, doubt bool) error {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	var err error
	isIn := true
	switch {
	case p.Until.IsZero():
		err = h.table.Commit(ctx, p.Change)
	case doubt:
		isIn, err = h.table.Settle(ctx, p.Change)
	default:
		inTime, cancel := context.WithDeadline(ctx, p.Until)
		defer cancel()
		err = h.table.Commit(inTime, p.Change)
	}
	h.health.committed(err, time.Now())
	if err == nil && !isIn {
		err = errNotMade
	}
	if err != nil {
		h.log.Warn("change not committed", "pool", h.pool, "change_id", p.Change.ID,
			"revision", p.Change.Revision(), "error", err)
	}
	return err
}

// outcome is what came of a commit. The input is nil while that is unknown;
// fatal ends the host.
type outcome struct {
	name  string
	input pool.Input
	fatal error
}

// outcomeOf says what an error means to a change.
func outcomeOf(change member.Change, err error) outcome {
	switch {
	case err == nil:
		return outcome{name: "committed", input: pool.Committed{ChangeID: change.ID}}
	case errors.Is(err, member.ErrFenced):
		return outcome{
			name: "fenced", input: pool.Fenced{},
			fatal: fmt.Errorf("lead pool %s: %w; another coordinator has started", change.Pool, member.ErrFenced),
		}
	case errors.Is(err, member.ErrStale), errors.Is(err, member.ErrNotFound):
		// The table was changed by nobody we know. The machine no longer knows what is
		// in it, and only another term reads it again.
		return outcome{
			name: "fenced", input: pool.Fenced{},
			fatal: fmt.Errorf("lead pool %s: the table is not as this leader has left it: %w", change.Pool, err),
		}
	case errors.Is(err, store.ErrOutcomeUnknown):
		return outcome{name: "unknown"}
	}
	return outcome{name: "rejected", input: pool.Rejected{ChangeID: change.ID, Err: err}}
}
