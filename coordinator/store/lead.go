package store

import (
	"cmp"
	"context"
	"crypto/rand"
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

// Lead makes holder the leader, in an epoch above all earlier ones, and fences
// all pools against the leader before. advertise is the address at which others
// reach the holder. It asks nobody: whoever leads is overruled.
func (s *Store) Lead(ctx context.Context, holder, advertise string) (Leadership, error) {
	newStoreID := rand.Text()
	var l Leadership
	err := s.write(ctx, func(x tx) error {
		// A pool above the leader's epoch, after a repair by hand, must not stay
		// out of reach.
		var seen, highest member.Epoch
		var renewal uint64
		if err := x.QueryRowContext(ctx, "SELECT store_id, epoch, renewal FROM leader WHERE id = 1").
			Scan(&l.StoreID, &seen, &renewal); err != nil {
			return fmt.Errorf("read leader: %w", err)
		}
		if err := x.QueryRowContext(ctx, "SELECT COALESCE(MAX(epoch), 0) FROM pool").Scan(&highest); err != nil {
			return fmt.Errorf("read epochs: %w", err)
		}
		l.StoreID, l.Epoch = cmp.Or(l.StoreID, newStoreID), max(seen, highest)+1
		n, err := x.touch(ctx, "UPDATE leader SET store_id = ?, holder = ?, advertise = ?, epoch = ?, renewal = ?, since = ? "+
			"WHERE id = 1 AND epoch = ? AND renewal = ?",
			l.StoreID, holder, advertise, l.Epoch, renewal+1, timestamp(time.Now()), seen, renewal)
		if err != nil {
			return fmt.Errorf("write leader: %w", err)
		}
		if n != 1 {
			return errOvertaken
		}
		if _, err := x.ExecContext(ctx, "UPDATE pool SET epoch = ? WHERE epoch < ?", l.Epoch, l.Epoch); err != nil {
			return fmt.Errorf("fence pools: %w", err)
		}
		return nil
	})
	if err != nil {
		return Leadership{}, fmt.Errorf("take lead: %w", err)
	}
	return l, nil
}

// Renew shows that the leader of an epoch lives. It returns member.ErrFenced
// when there is a later leader.
func (s *Store) Renew(ctx context.Context, epoch member.Epoch) error {
	err := s.write(ctx, func(x tx) error { return renew(ctx, x, epoch) })
	if err != nil {
		return fmt.Errorf("renew lead: %w", err)
	}
	return nil
}

// renew writes the leader's row under its epoch: the fence of everything that
// has no pool to write yet. The row must change, because Galera certifies only
// rows that do.
func renew(ctx context.Context, x tx, epoch member.Epoch) error {
	n, err := x.touch(ctx, "UPDATE leader SET renewal = renewal + 1 WHERE id = 1 AND epoch = ?", epoch)
	if err != nil || n == 1 {
		return err
	}
	var present member.Epoch
	if err := x.QueryRowContext(ctx, "SELECT epoch FROM leader WHERE id = 1").Scan(&present); err != nil {
		return fmt.Errorf("read leader: %w", err)
	}
	if present > epoch {
		return fmt.Errorf("epoch %d is over, %d leads: %w", epoch, present, member.ErrFenced)
	}
	return fmt.Errorf("epoch %d instead of %d: %w", present, epoch, errBehind)
}
