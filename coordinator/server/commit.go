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

// propose has a change committed, unless the host is to stop.
func (h *host) propose(ctx context.Context, change member.Change) {
	if h.stopping {
		return
	}
	done := make(chan struct{})
	h.committing = done
	h.helpers.Go(func() {
		defer close(done)
		h.commit(ctx, change)
	})
}

// commit hands a change to the store until its outcome is known, and the outcome
// to the machine. Once the host stops, it does not insist. Without the lease
// nothing is tried; what was tried before is still settled, under the fence.
func (h *host) commit(ctx context.Context, change member.Change) {
	if err := h.tenure.check(time.Now()); err != nil {
		o := settle(change, err)
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
		err := h.attempt(within, change)
		if back := h.back.lasts(err, time.Now()); back != nil {
			h.outcomes <- outcome{name: "fenced", input: pool.Fenced{}, fatal: back}
			return
		}
		doubt = doubt || errors.Is(err, store.ErrOutcomeUnknown)
		if doubt && errors.Is(err, member.ErrUnavailable) {
			// Not being able to ask again does not undo what may have happened.
			err = fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, err)
		}
		o := settle(change, err)
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

func (h *host) attempt(ctx context.Context, change member.Change) error {
	ctx, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	err := h.table.Commit(ctx, change)
	h.health.committed(err, time.Now())
	if err != nil {
		h.log.Warn("change not committed", "pool", h.pool, "change_id", change.ID,
			"revision", change.Revision(), "error", err)
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

func settle(change member.Change, err error) outcome {
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
