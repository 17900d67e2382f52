package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Leadership is what a coordinator wins by taking the lead.
type Leadership struct {
	// StoreID identifies the database; another one means another history.
	StoreID string
	// Epoch fences every write of this leader.
	Epoch member.Epoch
}

// Claim is a coordinator's claim to the lead.
type Claim struct {
	// Holder is who claims, and Instance the run of its program, which no other
	// run shares. Advertise is the address at which others reach it, or "".
	Holder    member.ID
	Instance  string
	Advertise string
	// Seen is the lease that is to be taken over, as Lease returned it.
	Seen member.Lease
	// Above is an epoch that the new one must exceed.
	Above member.Epoch
}

// Lease returns who leads, as the table stands.
func (s *Store) Lease(ctx context.Context) (member.Lease, error) {
	var l member.Lease
	err := s.repeat(ctx, func() (err error) {
		l, err = readLease(ctx, s.ro)
		return err
	})
	if err != nil {
		return member.Lease{}, fmt.Errorf("read lease: %w", err)
	}
	return l, nil
}

// queryer is a transaction or a database.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func readLease(ctx context.Context, q queryer) (l member.Lease, err error) {
	err = q.QueryRowContext(ctx,
		"SELECT l.store_id, l.holder, COALESCE(c.instance, ''), l.advertise, l.epoch, l.renewal "+
			"FROM leader l LEFT JOIN coordinator c ON c.coordinator_id = l.holder WHERE l.id = 1").
		Scan(&l.StoreID, &l.Holder, &l.Instance, &l.Advertise, &l.Epoch, &l.Renewal)
	return l, orNoLease(err)
}

// Lead makes the claimant the leader, in an epoch above all earlier ones, and
// fences all pools against the leader before. It returns member.ErrStale when
// the lease has been written since it was seen. Repeated after a lost answer it
// tells what the claimant has won.
func (s *Store) Lead(ctx context.Context, c Claim) (Leadership, error) {
	newStoreID := rand.Text()
	var l Leadership
	err := s.write(ctx, func(x tx) error {
		now, err := readLease(ctx, x)
		if err != nil {
			return fmt.Errorf("read leader: %w", err)
		}
		if now.Moved(c.Seen) {
			if now.Holder == c.Holder && now.Instance == c.Instance && now.Epoch > c.Seen.Epoch {
				l = Leadership{StoreID: now.StoreID, Epoch: now.Epoch}
				return flush(ctx, x, now.Epoch)
			}
			return fmt.Errorf("epoch %d renewal %d instead of %d and %d: %w",
				now.Epoch, now.Renewal, c.Seen.Epoch, c.Seen.Renewal, member.ErrStale)
		}
		// A pool above the leader's epoch, after a repair by hand, must not stay
		// out of reach.
		var highest member.Epoch
		if err := x.QueryRowContext(ctx, "SELECT COALESCE(MAX(epoch), 0) FROM pool").Scan(&highest); err != nil {
			return fmt.Errorf("read epochs: %w", err)
		}
		l = Leadership{StoreID: cmp.Or(now.StoreID, newStoreID), Epoch: max(now.Epoch, highest, c.Above) + 1}
		return x.lead(ctx, c, l)
	})
	if err != nil {
		return Leadership{}, fmt.Errorf("take lead: %w", err)
	}
	return l, nil
}

// errNoLease: somebody has deleted the row that says who leads. A new one gets an
// epoch above those of the pools with the next leader, and a new identity.
var errNoLease = errors.New("the table leader has lost its row; put it back: " +
	"INSERT INTO leader (id, store_id, holder, advertise, epoch, renewal) VALUES (1, '', '', '', 0, 0)")

func orNoLease(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return errNoLease
	}
	return err
}

// lead writes what is won by a claim.
func (x tx) lead(ctx context.Context, c Claim, l Leadership) error {
	now := timestamp(time.Now())
	n, err := x.touch(ctx, "UPDATE leader SET store_id = ?, holder = ?, advertise = ?, epoch = ?, renewal = renewal + 1, since = ? "+
		"WHERE id = 1 AND epoch = ? AND renewal = ?",
		l.StoreID, c.Holder, c.Advertise, l.Epoch, now, c.Seen.Epoch, c.Seen.Renewal)
	switch {
	case err != nil:
		return fmt.Errorf("write leader: %w", err)
	case n != 1:
		return fmt.Errorf("write leader: %w", member.ErrStale)
	}
	// A pool that a repair by hand has turned back behind its events could never
	// change again: their revisions are taken.
	newest := "(SELECT revision FROM event WHERE event.pool = pool.name ORDER BY revision DESC LIMIT 1)"
	if _, err := x.ExecContext(ctx, "UPDATE pool SET revision = "+newest+" WHERE revision < "+newest); err != nil {
		return fmt.Errorf("move pools on: %w", err)
	}
	if _, err := x.ExecContext(ctx, "UPDATE pool SET epoch = ? WHERE epoch < ?", l.Epoch, l.Epoch); err != nil {
		return fmt.Errorf("fence pools: %w", err)
	}
	err = x.write(ctx, table{"coordinator", "coordinator_id, instance, advertise, last_seen", "coordinator_id"},
		made([]any{c.Holder, c.Instance, c.Advertise, now}))
	if err != nil {
		return fmt.Errorf("write coordinator: %w", err)
	}
	return nil
}

// Renew shows that the leader of an epoch lives. It returns member.ErrFenced
// when there is a later leader, and ErrBehind when the table has not come as far
// as this one.
func (s *Store) Renew(ctx context.Context, epoch member.Epoch) error {
	err := s.write(ctx, func(x tx) error { return renew(ctx, x, epoch) })
	if err != nil {
		return fmt.Errorf("renew lead: %w", err)
	}
	return nil
}

// renew writes the leader's row under its epoch: the fence of everything that
// has no pool to write. The row must change, because Galera certifies only
// rows that do, and only what changes goes to the log.
func renew(ctx context.Context, x tx, epoch member.Epoch) error {
	n, err := x.touch(ctx, "UPDATE leader SET renewal = renewal + 1 WHERE id = 1 AND epoch = ?", epoch)
	if err != nil || n == 1 {
		return err
	}
	return overtaken(ctx, x, epoch)
}

// overtaken says why the leader's row is not of an epoch.
func overtaken(ctx context.Context, x tx, epoch member.Epoch) error {
	var present member.Epoch
	if err := x.QueryRowContext(ctx, "SELECT epoch FROM leader WHERE id = 1").Scan(&present); err != nil {
		return fmt.Errorf("read leader: %w", orNoLease(err))
	}
	if present > epoch {
		return fmt.Errorf("epoch %d is over, %d leads: %w", epoch, present, member.ErrFenced)
	}
	return fmt.Errorf("epoch %d instead of %d: %w", present, epoch, ErrBehind)
}

// Release gives the lead of an epoch back, so that whoever looks next may take
// it at once. It is the leader's last write. It returns member.ErrFenced when
// there is a later leader.
func (s *Store) Release(ctx context.Context, epoch member.Epoch) error {
	err := s.write(ctx, func(x tx) error {
		n, err := x.touch(ctx, "UPDATE leader SET holder = '', advertise = '', renewal = renewal + 1 WHERE id = 1 AND epoch = ?", epoch)
		if err != nil || n == 1 {
			return err
		}
		return overtaken(ctx, x, epoch)
	})
	if err != nil {
		return fmt.Errorf("release lead: %w", err)
	}
	return nil
}

// PutCoordinator says that a coordinator is there.
func (s *Store) PutCoordinator(ctx context.Context, c member.Coordinator) error {
	err := s.write(ctx, func(x tx) error {
		n, err := x.touch(ctx, "UPDATE coordinator SET advertise = ?, last_seen = ? WHERE coordinator_id = ?",
			c.Advertise, timestamp(c.LastSeen), c.ID)
		if err != nil || n == 1 {
			return err
		}
		_, err = x.ExecContext(ctx, "INSERT INTO coordinator (coordinator_id, instance, advertise, last_seen) VALUES (?, '', ?, ?)",
			c.ID, c.Advertise, timestamp(c.LastSeen))
		if x.dialect.duplicate(err) {
			return errors.Join(errOvertaken, err)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("write coordinator %s: %w", c.ID, err)
	}
	return nil
}

// Coordinators returns those that were there at a time or later, by id.
func (s *Store) Coordinators(ctx context.Context, since time.Time) ([]member.Coordinator, error) {
	var all []member.Coordinator
	err := s.read(ctx, func(x tx) error {
		all = nil
		return x.each(ctx, func(rows *sql.Rows) error {
			var c member.Coordinator
			err := rows.Scan(&c.ID, &c.Advertise, instant{&c.LastSeen})
			all = append(all, c)
			return err
		}, "SELECT coordinator_id, advertise, last_seen FROM coordinator WHERE last_seen >= ? ORDER BY coordinator_id", timestamp(since))
	})
	if err != nil {
		return nil, fmt.Errorf("read coordinators: %w", err)
	}
	return all, nil
}
