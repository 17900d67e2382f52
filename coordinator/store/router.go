package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// RouterRow is what is kept of a router.
type RouterRow struct {
	ID      string
	Version string
	// LastSeen is when it was last heard, by the coordinator's clock.
	LastSeen time.Time
	// Applied is what it has applied, per pool.
	Applied []Applied
}

// Applied is the point up to which a router has applied a pool's history.
type Applied struct {
	Pool     member.Pool     `json:"pool"`
	Epoch    member.Epoch    `json:"epoch"`
	Revision member.Revision `json:"revision"`
}

// PutRouter writes a router's row, unless the table has a later one. It returns
// member.ErrFenced when epoch is over.
func (s *Store) PutRouter(ctx context.Context, epoch member.Epoch, r RouterRow) error {
	list := r.Applied
	if list == nil {
		list = []Applied{}
	}
	applied, err := jsonText(list)
	if err != nil {
		return fmt.Errorf("write router %s: %w", r.ID, err)
	}
	err = s.write(ctx, func(x tx) error {
		if err := renew(ctx, x, epoch); err != nil {
			return err
		}
		n, err := x.touch(ctx, "UPDATE router SET version = ?, last_seen = ?, applied = ? WHERE router_id = ? AND last_seen <= ?",
			r.Version, timestamp(r.LastSeen), applied, r.ID, timestamp(r.LastSeen))
		if err != nil || n == 1 {
			return err
		}
		_, err = x.ExecContext(ctx, "INSERT INTO router (router_id, version, last_seen, applied) VALUES (?, ?, ?, ?)",
			r.ID, r.Version, timestamp(r.LastSeen), applied)
		if x.dialect.duplicate(err) {
			return nil // the row there is later
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write router %s: %w", r.ID, err)
	}
	return nil
}

// Routers returns all routers by id.
func (s *Store) Routers(ctx context.Context) ([]RouterRow, error) {
	var routers []RouterRow
	err := s.read(ctx, func(x tx) error {
		routers = nil
		return x.each(ctx, func(rows *sql.Rows) error {
			var r RouterRow
			err := rows.Scan(&r.ID, &r.Version, instant{&r.LastSeen}, document{&r.Applied})
			if len(r.Applied) == 0 {
				r.Applied = nil
			}
			routers = append(routers, r)
			return err
		}, "SELECT router_id, version, last_seen, applied FROM router ORDER BY router_id")
	})
	if err != nil {
		return nil, fmt.Errorf("read routers: %w", err)
	}
	return routers, nil
}

// DropRouter removes a router's row, if there is one. It returns
// member.ErrFenced when epoch is over.
func (s *Store) DropRouter(ctx context.Context, epoch member.Epoch, id string) error {
	err := s.write(ctx, func(x tx) error {
		if err := renew(ctx, x, epoch); err != nil {
			return err
		}
		_, err := x.touch(ctx, "DELETE FROM router WHERE router_id = ?", id)
		return err
	})
	if err != nil {
		return fmt.Errorf("drop router %s: %w", id, err)
	}
	return nil
}

// ForgetRouters removes routers that have not been heard since a time, and
// returns how many. It returns member.ErrFenced when epoch is over.
func (s *Store) ForgetRouters(ctx context.Context, epoch member.Epoch, since time.Time) (removed int64, err error) {
	err = s.write(ctx, func(x tx) (err error) {
		if err := renew(ctx, x, epoch); err != nil {
			return err
		}
		removed, err = x.touch(ctx, "DELETE FROM router WHERE last_seen < ?", timestamp(since))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("forget routers: %w", err)
	}
	return removed, nil
}
