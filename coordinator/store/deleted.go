package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// deletedLife is how long a deleted pool is remembered. Whoever has seen it and
// comes back later is told by the ids of changes that it was another one.
const deletedLife = 30 * 24 * time.Hour

// ofPool are the tables that have rows of pools, besides pool itself, event and
// request.
var ofPool = []string{"server", "intent", "departed"} //nolint:gochecknoglobals // a constant list

// erase takes a pool out, which the fence has moved to the revision of c, with all
// that belongs to it but its events and requests. The former may be millions, more
// than a transaction can take out in time: nobody sees them any more, and Prune
// removes them. The latter are kept for their hour: a late repeat of one must not be
// taken for a new request, neither without the pool nor in the next one of its name.
func erase(ctx context.Context, x tx, c member.Change) error {
	if err := x.eraseRows(ctx, c.Pool); err != nil {
		return err
	}
	n, err := x.touch(ctx, "DELETE FROM pool WHERE name = ? AND epoch = ? AND revision = ?", c.Pool, c.Base.Epoch, c.Revision())
	if err != nil {
		return fmt.Errorf("delete pool: %w", err)
	}
	if n != 1 {
		return fmt.Errorf("delete pool: %w", member.ErrStale)
	}
	// While events of it are left, a pool must be known for one of the past.
	if _, err := x.ExecContext(ctx, "DELETE FROM deleted_pool WHERE deleted_at < ? "+
		"AND NOT EXISTS (SELECT 1 FROM event WHERE event.pool = deleted_pool.name)", timestamp(c.Delete.At.Add(-deletedLife))); err != nil {
		return fmt.Errorf("forget deleted pools: %w", err)
	}
	row := []any{c.Pool, c.Base.Epoch, c.Revision(), c.ID, timestamp(c.Delete.At), c.Delete.Actor, c.Delete.Reason, "", ""}
	if len(c.Requests) > 0 {
		row[7], row[8] = c.Requests[0].ID, c.Requests[0].Hash
	}
	if err := x.write(ctx, table{"deleted_pool", deletedColumns, "name"}, made(row)); err != nil {
		return fmt.Errorf("remember deleted pool: %w", err)
	}
	if err := insertRequests(ctx, x, c.Pool, c.Requests); err != nil {
		return fmt.Errorf("write requests: %w", err)
	}
	return nil
}

// eraseRows takes out what belongs to a pool, besides its own row, its events and its
// requests.
func (x tx) eraseRows(ctx context.Context, pool member.Pool) error {
	for _, name := range ofPool {
		if _, err := x.ExecContext(ctx, "DELETE FROM "+name+" WHERE pool = ?", pool); err != nil {
			return fmt.Errorf("delete %s: %w", name, err)
		}
	}
	return nil
}

// isErased reports whether a change has deleted its pool, which is not there. It
// is member.ErrNotFound where another one has.
func isErased(ctx context.Context, x tx, c member.Change) (bool, error) {
	var last string
	err := x.QueryRowContext(ctx, "SELECT last_change_id FROM deleted_pool WHERE name = ?", c.Pool).Scan(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, fmt.Errorf("read deleted pool: %w", err)
	}
	if c.Delete != nil && last == c.ID {
		return true, nil
	}
	return false, member.ErrNotFound
}

// revisionAfter is the first revision of a new pool: one that nobody has seen of
// an earlier pool of its name, which was deleted, or whose row was by hand.
func (x tx) revisionAfter(ctx context.Context, name member.Pool) (member.Revision, error) {
	var last member.Revision
	err := x.QueryRowContext(ctx, "SELECT revision FROM deleted_pool WHERE name = ?", name).Scan(&last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read deleted pool: %w", err)
	}
	var told member.Revision
	err = x.QueryRowContext(ctx, "SELECT revision FROM event WHERE pool = ? ORDER BY revision DESC LIMIT 1", name).Scan(&told)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read events: %w", err)
	}
	return max(last, told) + firstRevision, nil
}

// DeletedPools returns the pools that were deleted not long ago, by name, also
// where there is one of that name again.
func (s *Store) DeletedPools(ctx context.Context) ([]member.DeletedPool, error) {
	var all []member.DeletedPool
	err := s.read(ctx, func(x tx) error {
		all = nil
		return x.each(ctx, func(rows *sql.Rows) error {
			var d member.DeletedPool
			var change string
			err := rows.Scan(&d.Name, &d.Position.Epoch, &d.Position.Revision, &change, instant{&d.At}, &d.Actor, &d.Reason,
				&d.Request.ID, &d.Request.Hash)
			d.Request.Revision, d.Request.At = d.Position.Revision, d.At
			all = append(all, d)
			return err
		}, "SELECT "+deletedColumns+" FROM deleted_pool ORDER BY name")
	})
	if err != nil {
		return nil, fmt.Errorf("read deleted pools: %w", err)
	}
	return all, nil
}
