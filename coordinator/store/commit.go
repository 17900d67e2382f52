package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// Commit writes a change, whole or not at all; then the pool is at
// c.Revision(), or is gone where c deletes it. The Revision, Seq and Epoch of the events are those of their
// place in c. Times are kept to the microsecond and hold-downs to the
// millisecond. A change that is in the table already is a success, so the call
// can be repeated.
//
// It returns member.ErrFenced when a later epoch leads, member.ErrStale when
// the pool is no longer at c.Base or a row to remove is not there: then the
// caller's picture of the table is wrong and must be loaded anew;
// member.ErrNotFound without the pool; member.ErrAlreadyExists when a request
// id is taken. With ErrOutcomeUnknown the caller must repeat the call, or Settle the
// change, before it takes it for failed; until then every failure to reach the
// database is an ErrOutcomeUnknown. ErrBehind goes with a pool that has not come as
// far as c.Base.
func (s *Store) Commit(ctx context.Context, c member.Change) error {
	err := s.write(ctx, func(x tx) error {
		isIn, err := fence(ctx, x, c)
		switch {
		case err != nil:
			return err
		case isIn:
			return flush(ctx, x, c.Base.Epoch)
		case c.Delete != nil:
			return erase(ctx, x, c)
		}
		return apply(ctx, x, c)
	})
	if err = s.stayInDoubt(doubt{c.Pool, c.ID}, err); err != nil {
		return fmt.Errorf("commit change to %s: %w", c.Pool, err)
	}
	return nil
}

// flush makes what a transaction of this leader has found as durable as what it
// writes. InnoDB shows a transaction to others before the disk has it, so that an
// answer that rests on a row which was only read may be lost in a crash. The COMMIT
// of one that has written waits for the disk, with all that came before it in the log.
func flush(ctx context.Context, x tx, epoch member.Epoch) error {
	if err := renew(ctx, x, epoch); err != nil {
		return fmt.Errorf("make durable: %w", err)
	}
	return nil
}

// doubt names a change: ids are unique within a pool only.
type doubt struct {
	pool     member.Pool
	changeID string
}

// stayInDoubt returns err, with ErrOutcomeUnknown if an earlier call for the
// change ended with it and this one could not settle it.
func (s *Store) stayInDoubt(change doubt, err error) error {
	if !errors.Is(err, member.ErrUnavailable) {
		s.doubts.Delete(change)
		return err
	}
	if errors.Is(err, ErrOutcomeUnknown) {
		s.doubts.Store(change, struct{}{})
		return err
	}
	if _, inDoubt := s.doubts.Load(change); inDoubt {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// fence takes the pool to the revision of c, if it is at the base of c. It
// reports whether c is in the table already.
func fence(ctx context.Context, x tx, c member.Change) (isIn bool, err error) {
	if c.ID == "" {
		return false, errors.New("the change has no id")
	}
	n, err := x.touch(ctx, "UPDATE pool SET revision = revision + 1, last_change_id = ? WHERE name = ? AND epoch = ? AND revision = ?",
		c.ID, c.Pool, c.Base.Epoch, c.Base.Revision)
	if err != nil {
		return false, fmt.Errorf("write fence: %w", err)
	}
	if n == 1 {
		return false, nil
	}
	return whyClosed(ctx, x, c)
}

// whyClosed says why the fence of c has touched no row: c is in the table, or the
// pool is elsewhere, which is an error.
func whyClosed(ctx context.Context, x tx, c member.Change) (isIn bool, err error) {
	var at member.Position
	var last string
	err = x.QueryRowContext(ctx, "SELECT epoch, revision, last_change_id FROM pool WHERE name = ?", c.Pool).
		Scan(&at.Epoch, &at.Revision, &last)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return isErased(ctx, x, c)
	case err != nil:
		return false, fmt.Errorf("read fence: %w", err)
	case at.Epoch > c.Base.Epoch:
		return false, fmt.Errorf("epoch %d is over, %d leads: %w", c.Base.Epoch, at.Epoch, member.ErrFenced)
	case at.Revision == c.Revision() && last == c.ID:
		return true, nil
	case at.Epoch < c.Base.Epoch || at.Revision <= c.Base.Revision:
		return false, fmt.Errorf("epoch %d revision %d instead of %d and %d: %w",
			at.Epoch, at.Revision, c.Base.Epoch, c.Base.Revision, ErrBehind)
	}
	return false, fmt.Errorf("the pool is at revision %d, not %d: %w", at.Revision, c.Base.Revision, member.ErrStale)
}

// apply writes everything of c but the fence.
func apply(ctx context.Context, x tx, c member.Change) error {
	steps := []struct {
		what string
		do   func(context.Context, tx, member.Change) error
	}{
		{"write pool", updatePool},
		{"remove servers", deleteServers},
		{"write servers", putServers},
		{"forget intents", forgetIntents},
		{"write intents", putIntents},
		{"write departed", putDeparted},
		{"write events", func(ctx context.Context, x tx, c member.Change) error {
			return x.insertEvents(ctx, c.Pool, member.Position{Epoch: c.Base.Epoch, Revision: c.Revision()}, c.Events)
		}},
		{"write requests", func(ctx context.Context, x tx, c member.Change) error {
			return insertRequests(ctx, x, c.Pool, c.Requests)
		}},
	}
	for _, step := range steps {
		if err := step.do(ctx, x, c); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

func updatePool(ctx context.Context, x tx, c member.Change) error {
	if c.Settings != nil {
		settings, err := jsonText(c.Settings)
		if err != nil {
			return fmt.Errorf("encode settings: %w", err)
		}
		if _, err := x.ExecContext(ctx, "UPDATE pool SET settings = ? WHERE name = ? AND epoch = ?",
			settings, c.Pool, c.Base.Epoch); err != nil {
			return err
		}
	}
	if c.ReferenceSize != nil {
		if _, err := x.ExecContext(ctx, "UPDATE pool SET reference_size = ? WHERE name = ? AND epoch = ?",
			*c.ReferenceSize, c.Pool, c.Base.Epoch); err != nil {
			return err
		}
	}
	return nil
}

func deleteServers(ctx context.Context, x tx, c member.Change) error {
	for part := range slices.Chunk(c.Remove, batch) {
		args := []any{c.Pool}
		for _, r := range part {
			args = append(args, r.ID, r.Incarnation)
		}
		n, err := x.touch(ctx, "DELETE FROM server WHERE pool = ? AND ("+
			list("(server_id = ? AND incarnation = ?)", " OR ", len(part))+")", args...)
		if err != nil {
			return err
		}
		if n != int64(len(part)) {
			return fmt.Errorf("the table has %d of the %d rows from %s (incarnation %d) on: %w",
				n, len(part), part[0].ID, part[0].Incarnation, member.ErrStale)
		}
	}
	return nil
}

func putServers(ctx context.Context, x tx, c member.Change) error {
	return x.write(ctx, table{"server", serverColumns, "pool, server_id"}, source{
		len(c.Put), func(i int) ([]any, error) { return serverRow(c.Pool, c.Put[i]) },
	})
}

func forgetIntents(ctx context.Context, x tx, c member.Change) error {
	ids := make([]string, len(c.Forget))
	for i, id := range c.Forget {
		ids[i] = string(id)
	}
	return x.deleteIDs(ctx, "DELETE FROM intent WHERE pool = ? AND server_id IN", c.Pool, ids)
}

func putIntents(ctx context.Context, x tx, c member.Change) error {
	return x.write(ctx, table{"intent", intentColumns, "pool, server_id"}, source{
		len(c.Intents), func(i int) ([]any, error) { return intentRow(c.Pool, c.Intents[i]), nil },
	})
}

func putDeparted(ctx context.Context, x tx, c member.Change) error {
	return x.write(ctx, table{"departed", departedColumns, "pool, server_id"}, source{
		len(c.Departed), func(i int) ([]any, error) { return departedRow(c.Pool, c.Departed[i]), nil },
	})
}

func (x tx) insertEvents(ctx context.Context, pool member.Pool, at member.Position, events []member.Event) error {
	return x.write(ctx, table{"event", eventColumns, ""}, source{
		len(events), func(i int) ([]any, error) { return eventRow(pool, at, i, events[i]) },
	})
}

// insertRequests refuses an id that is taken, unless its hour is over.
func insertRequests(ctx context.Context, x tx, pool member.Pool, requests []member.Request) error {
	for _, v := range requests {
		if _, err := x.ExecContext(ctx, "DELETE FROM request WHERE pool = ? AND request_id = ? AND at < ?",
			pool, v.ID, timestamp(v.At.Add(-RequestLife))); err != nil {
			return err
		}
	}
	err := x.write(ctx, table{"request", requestColumns, ""}, source{
		len(requests), func(i int) ([]any, error) { return requestRow(pool, requests[i]), nil },
	})
	if x.dialect.duplicate(err) {
		return fmt.Errorf("request id: %w", member.ErrAlreadyExists)
	}
	return err
}
