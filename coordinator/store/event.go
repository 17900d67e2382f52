package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
)

// EventQuery selects events of one pool.
type EventQuery struct {
	Pool member.Pool
	// ID selects the events about one server; "" those about any, and the pool.
	ID member.ID
	// Kinds selects kinds; none selects all.
	Kinds []member.EventKind
	// Since leaves out events of earlier revisions.
	Since member.Revision
	// Before leaves out this event and what came after it; nil leaves out
	// nothing. It is the last event of the page before.
	Before *EventCursor
	// Limit is the size of a page; it must be positive.
	Limit int
}

// EventCursor names one event of a pool.
type EventCursor struct {
	Revision member.Revision
	Seq      int
}

// Events returns events, newest first. Without the pool there are none.
func (s *Store) Events(ctx context.Context, q EventQuery) ([]member.Event, error) {
	// What a deleted pool of that name has left is not shown.
	where := []string{"pool = ?", "revision >= ?", "revision > (SELECT compacted_revision FROM pool WHERE name = ?)"}
	args := []any{q.Pool, q.Since, q.Pool}
	if q.ID != "" {
		where, args = append(where, "server_id = ?"), append(args, q.ID)
	}
	if len(q.Kinds) > 0 {
		where = append(where, "kind IN ("+list("?", ", ", len(q.Kinds))+")")
		for _, k := range q.Kinds {
			args = append(args, string(k))
		}
	}
	if b := q.Before; b != nil {
		// The first term lets the index skip to the cursor.
		where = append(where, "revision <= ?", "(revision < ? OR seq < ?)")
		args = append(args, b.Revision, b.Revision, b.Seq)
	}
	args = append(args, q.Limit)
	var events []member.Event
	err := s.read(ctx, func(x tx) (err error) {
		events, err = selectEvents(ctx, x,
			" WHERE "+strings.Join(where, " AND ")+" ORDER BY revision DESC, seq DESC LIMIT ?", args...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", q.Pool, err)
	}
	return events, nil
}

// EventsFrom returns the events of revision from and later, oldest first: about
// limit of them, which must be positive, but all of each revision, so that the
// next page starts at the revision after the last. It returns
// member.ErrCompacted when events of from may have been pruned, and
// member.ErrNotFound without the pool.
func (s *Store) EventsFrom(ctx context.Context, pool member.Pool, from member.Revision, limit int) ([]member.Event, error) {
	var events []member.Event
	err := s.read(ctx, func(x tx) (err error) {
		events = nil
		var compacted member.Revision
		err = x.QueryRowContext(ctx, "SELECT compacted_revision FROM pool WHERE name = ?", pool).Scan(&compacted)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return member.ErrNotFound
		case err != nil:
			return fmt.Errorf("read pool: %w", err)
		case from <= compacted:
			return fmt.Errorf("history starts after revision %d: %w", compacted, member.ErrCompacted)
		}
		// The revision of the last event of the page, or none when it is not full.
		var last member.Revision
		err = x.QueryRowContext(ctx,
			"SELECT revision FROM event WHERE pool = ? AND revision >= ? ORDER BY revision, seq LIMIT 1 OFFSET ?",
			pool, from, limit-1).Scan(&last)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			events, err = selectEvents(ctx, x, " WHERE pool = ? AND revision >= ? ORDER BY revision, seq", pool, from)
		case err == nil:
			events, err = selectEvents(ctx, x,
				" WHERE pool = ? AND revision BETWEEN ? AND ? ORDER BY revision, seq", pool, from, last)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read events of %s from %d: %w", pool, from, err)
	}
	return events, nil
}

func selectEvents(ctx context.Context, x tx, clauses string, args ...any) ([]member.Event, error) {
	var events []member.Event
	err := x.each(ctx, func(rows *sql.Rows) error {
		e, err := scanEvent(rows)
		events = append(events, e)
		return err
	}, "SELECT "+eventColumns+" FROM event"+clauses, args...)
	return events, err
}
