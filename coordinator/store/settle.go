package store

import (
	"context"
	"fmt"

	"github.com/buddyring/buddyring/internal/member"
)

// Settle ends the doubt about a change whose Commit has returned ErrOutcomeUnknown,
// without making it. It reports whether the change is in the table, durably; if it
// is not, no earlier attempt of it can get in any more. The errors are those of
// Commit. With ErrUnavailable nothing is settled. No Commit of the change may run
// meanwhile.
func (s *Store) Settle(ctx context.Context, c member.Change) (isIn bool, err error) {
	err = s.write(ctx, func(x tx) error {
		free, err := bar(ctx, x, c)
		if err != nil || free {
			isIn = false
			return err
		}
		if isIn, err = whyClosed(ctx, x, c); err != nil {
			return err
		}
		return flush(ctx, x, c.Base.Epoch)
	})
	if err = s.stayInDoubt(doubt{c.Pool, c.ID}, err); err != nil {
		return false, fmt.Errorf("settle change to %s: %w", c.Pool, err)
	}
	return isIn, nil
}

// bar keeps earlier attempts of c out of the table, if the pool is at the base of c,
// which it reports. An attempt that still runs has the pool's row locked, and is
// waited for. On another node of a Galera cluster it is not seen: there it fails the
// certification, because the row changes, although in the end it is what it was.
func bar(ctx context.Context, x tx, c member.Change) (free bool, err error) {
	for _, step := range []struct {
		statement string
		at        member.Revision
	}{
		{"UPDATE pool SET revision = revision + 1 WHERE name = ? AND epoch = ? AND revision = ?", c.Base.Revision},
		{"UPDATE pool SET revision = revision - 1 WHERE name = ? AND epoch = ? AND revision = ?", c.Revision()},
	} {
		n, err := x.touch(ctx, step.statement, c.Pool, c.Base.Epoch, step.at)
		if err != nil {
			return false, fmt.Errorf("bar the fence: %w", err)
		}
		if n != 1 {
			return false, nil
		}
	}
	return true, nil
}
