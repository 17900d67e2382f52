package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Transactions are repeated at most maxRepeats times, after pauses of minPause
// to maxPause with full jitter.
const (
	maxRepeats = 5
	minPause   = 10 * time.Millisecond
	maxPause   = 200 * time.Millisecond
)

// ErrBehind goes with member.ErrUnavailable when a row is older than what this
// leader has written already: the connection reaches a database that lags, or
// the table was put back.
var ErrBehind = errors.New("the database is behind this coordinator")

// errOvertaken: another coordinator wrote the row at the same moment.
var errOvertaken = errors.New("another coordinator wrote the row at the same moment")

// commitError wraps the error of a COMMIT that may have taken effect.
type commitError struct{ cause error }

func (e *commitError) Error() string { return "commit: " + e.cause.Error() }

func (e *commitError) Unwrap() error { return e.cause }

// write runs f in a transaction and commits it, all of it again when an error
// passes. f must use its transaction only and hold no effect of its own.
func (s *Store) write(ctx context.Context, f func(tx) error) error {
	return s.repeat(ctx, func() error {
		// Each statement sees what is committed, above all the one that asks what
		// became of a fence that touched no row.
		begun, err := s.rw.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		defer func() { _ = begun.Rollback() }() // after a commit it does nothing
		if err := f(tx{begun, s.dialect}); err != nil {
			return err
		}
		return s.dialect.commit(ctx, begun)
	})
}

// read runs f in a transaction that sees one state of all tables.
func (s *Store) read(ctx context.Context, f func(tx) error) error {
	return s.repeat(ctx, func() error {
		begun, err := s.ro.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
		if err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		defer func() { _ = begun.Rollback() }()
		return f(tx{begun, s.dialect})
	})
}

// repeat calls f until it returns nil or an error that does not pass.
func (s *Store) repeat(ctx context.Context, f func() error) error {
	unknown := false
	for attempt := 0; ; attempt++ {
		err := f()
		if err == nil {
			return nil
		}
		class := s.dialect.class(ctx, err)
		if class == fatal {
			return err
		}
		var commit *commitError
		unknown = unknown || errors.As(err, &commit)
		if class == passing && attempt < maxRepeats && pause(ctx, attempt) {
			continue
		}
		if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
			err = fmt.Errorf("%w: %w", ended, err)
		}
		if unknown {
			err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return fmt.Errorf("%w: %w", member.ErrUnavailable, err)
	}
}

// pause waits before the next attempt and reports whether there is time for one.
func pause(ctx context.Context, attempt int) bool {
	limit := min(maxPause, 2*minPause<<attempt)
	timer := time.NewTimer(minPause + rand.N(limit-minPause)) //nolint:gosec // jitter is no secret
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
