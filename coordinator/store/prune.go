package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Retention says what of a pool's past is kept. The zero value keeps all.
type Retention struct {
	// Revisions and EventsSince keep the events of that many newest revisions
	// and those from that time on, whichever is more. A zero EventsSince keeps
	// all.
	Revisions   member.Revision
	EventsSince time.Time
	// RequestsSince and DepartedSince keep the answers to request ids, and what
	// is remembered of departed servers, from that time on; zero keeps all.
	RequestsSince, DepartedSince time.Time
	// Limit is about how many rows of a table one call removes; it must be
	// positive. The transaction is short accordingly.
	Limit int
}

// Prune removes what is not kept, the oldest first, and returns how many rows
// went. While that is not 0, more may be left to remove. Events go by whole
// revisions. Of a deleted pool, also where there is one of that name again, all goes
// that is left. It returns member.ErrNotFound for a pool that is not known at all.
func (s *Store) Prune(ctx context.Context, pool member.Pool, r Retention) (int64, error) {
	var removed int64
	err := s.write(ctx, func(x tx) error {
		removed = 0
		for _, prune := range []func(context.Context, tx, member.Pool, Retention) (int64, error){
			pruneEvents, pruneRequests, pruneDeparted,
		} {
			n, err := prune(ctx, x, pool, r)
			if err != nil {
				return err
			}
			removed += n
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("prune %s: %w", pool, err)
	}
	return removed, nil
}

func pruneEvents(ctx context.Context, x tx, pool member.Pool, r Retention) (int64, error) {
	newest, compacted, err := x.history(ctx, pool)
	if err != nil {
		return 0, err
	}
	if n, err := x.deleteCompacted(ctx, pool, compacted, r.Limit); err != nil || n > 0 || r.EventsSince.IsZero() {
		return n, err
	}
	last, err := x.lastToPrune(ctx, pool, newest, r)
	if err != nil || last == 0 {
		return 0, err
	}
	// The pool's row comes first, as in Commit, so that the two cannot deadlock.
	if _, err := x.ExecContext(ctx, "UPDATE pool SET compacted_revision = ? WHERE name = ? AND compacted_revision < ?",
		last, pool, last); err != nil {
		return 0, fmt.Errorf("write compacted revision: %w", err)
	}
	return x.deleteEvents(ctx, pool, last)
}

// history returns how far a pool has come, and up to which revision nobody sees its
// events: those of a deleted pool are all of the past, and a new one begins above.
func (x tx) history(ctx context.Context, pool member.Pool) (newest, compacted member.Revision, err error) {
	err = x.QueryRowContext(ctx, "SELECT revision, compacted_revision FROM pool WHERE name = ?", pool).Scan(&newest, &compacted)
	if errors.Is(err, sql.ErrNoRows) {
		err = x.QueryRowContext(ctx, "SELECT revision FROM deleted_pool WHERE name = ?", pool).Scan(&newest)
		compacted = newest
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, 0, member.ErrNotFound
	case err != nil:
		return 0, 0, fmt.Errorf("read pool: %w", err)
	}
	return newest, compacted, nil
}

// deleteCompacted removes some of the events that nobody sees.
func (x tx) deleteCompacted(ctx context.Context, pool member.Pool, compacted member.Revision, limit int) (int64, error) {
	last := compacted
	err := x.QueryRowContext(ctx,
		"SELECT revision FROM event WHERE pool = ? AND revision <= ? ORDER BY revision, seq LIMIT 1 OFFSET ?",
		pool, compacted, limit-1).Scan(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read events: %w", err)
	}
	return x.deleteEvents(ctx, pool, last)
}

func (x tx) deleteEvents(ctx context.Context, pool member.Pool, last member.Revision) (int64, error) {
	n, err := x.touch(ctx, "DELETE FROM event WHERE pool = ? AND revision <= ?", pool, last)
	if err != nil {
		return 0, fmt.Errorf("delete events: %w", err)
	}
	return n, nil
}

// lastToPrune returns the last revision whose events, and all before, can go;
// 0 if there is none.
func (x tx) lastToPrune(ctx context.Context, pool member.Pool, newest member.Revision, r Retention) (last member.Revision, err error) {
	if newest <= r.Revisions {
		return 0, nil
	}
	kept := false
	err = x.each(ctx, func(rows *sql.Rows) error {
		var revision member.Revision
		var at time.Time
		if err := rows.Scan(&revision, instant{&at}); err != nil || kept {
			return err
		}
		if kept = !at.Before(r.EventsSince); !kept {
			last = revision
		} else if last == revision {
			// Part of a revision is to be kept: then all of it.
			last--
		}
		return nil
	}, "SELECT revision, at FROM event WHERE pool = ? AND revision <= ? ORDER BY revision, seq LIMIT ?",
		pool, newest-r.Revisions, r.Limit)
	if err != nil {
		return 0, fmt.Errorf("read events: %w", err)
	}
	return last, nil
}

func pruneRequests(ctx context.Context, x tx, pool member.Pool, r Retention) (int64, error) {
	if r.RequestsSince.IsZero() {
		return 0, nil
	}
	since := timestamp(r.RequestsSince)
	ids, err := oldIDs(ctx, x, "SELECT request_id FROM request WHERE pool = ? AND at < ? ORDER BY at LIMIT ?", pool, since, r.Limit)
	if err != nil {
		return 0, fmt.Errorf("read requests: %w", err)
	}
	if err := x.deleteIDs(ctx, "DELETE FROM request WHERE pool = ? AND request_id IN", pool, ids); err != nil {
		return 0, fmt.Errorf("delete requests: %w", err)
	}
	return int64(len(ids)), nil
}

func pruneDeparted(ctx context.Context, x tx, pool member.Pool, r Retention) (int64, error) {
	if r.DepartedSince.IsZero() {
		return 0, nil
	}
	since := timestamp(r.DepartedSince)
	ids, err := oldIDs(ctx, x, "SELECT server_id FROM departed WHERE pool = ? AND left_at < ? ORDER BY left_at LIMIT ?", pool, since, r.Limit)
	if err != nil {
		return 0, fmt.Errorf("read departed: %w", err)
	}
	if err := x.deleteIDs(ctx, "DELETE FROM departed WHERE pool = ? AND server_id IN", pool, ids); err != nil {
		return 0, fmt.Errorf("delete departed: %w", err)
	}
	return int64(len(ids)), nil
}

func oldIDs(ctx context.Context, x tx, statement string, args ...any) ([]string, error) {
	var ids []string
	err := x.each(ctx, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, statement, args...)
	return ids, err
}
