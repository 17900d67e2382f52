package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// RestoreStep is added to the revisions of a restored pool, so that they are
// above all that anybody has seen since the backup.
const RestoreStep = 1_000_000_000

// RestoreOptions say how to restore.
type RestoreOptions struct {
	// Replace lets go of what the database has.
	Replace bool
	// CheckOnly changes nothing.
	CheckOnly bool
	// Actor and Reason are for the events.
	Actor, Reason string
}

// Restored says what a database has become.
type Restored struct {
	// StoreID is its new identity, empty with CheckOnly.
	StoreID string
	// Epoch is that of no leader; the next one is above.
	Epoch          member.Epoch
	Pools, Servers int
	// Backup says what it was restored from.
	Backup BackupInfo
}

// errCheckOnly undoes a restore that was to be checked only.
var errCheckOnly = errors.New("only checked")

// Restore makes the database what a backup says, whole or not at all: with a new
// identity, with revisions a billion above those of the backup, and in an epoch
// above all that the database or the backup has seen, so that whoever leads is
// fenced. It returns a member.FieldError for a bad backup, and an ErrRefused
// with the rule "not_empty" if there are servers, wishes or departed servers, or
// pools besides the default one, unless they are to be replaced.
func (s *Store) Restore(ctx context.Context, r io.ReadSeeker, o RestoreOptions) (Restored, error) {
	restored, err := s.restore(ctx, r, o)
	if err != nil {
		return Restored{}, fmt.Errorf("restore: %w", err)
	}
	return restored, nil
}

func (s *Store) restore(ctx context.Context, r io.ReadSeeker, o RestoreOptions) (Restored, error) {
	info, err := fromStart(r, CheckBackup)
	if err != nil {
		return Restored{}, err
	}
	latest, err := s.latestSchema()
	if err != nil {
		return Restored{}, err
	}
	if info.Schema > latest {
		return Restored{}, member.Invalid("backup", "is of schema %d, which is newer than schema %d of this program", info.Schema, latest)
	}
	restored := Restored{StoreID: rand.Text(), Backup: info}
	err = s.write(ctx, func(x tx) error {
		isIn, err := x.become(ctx, &restored)
		if err != nil || isIn {
			return err
		}
		if err := x.makeEmpty(ctx, o.Replace); err != nil {
			return err
		}
		if _, err := fromStart(r, func(r io.Reader) (BackupInfo, error) { return x.fill(ctx, r) }); err != nil {
			return err
		}
		if err := x.moveOn(ctx, &restored, o); err != nil {
			return err
		}
		if o.CheckOnly {
			return errCheckOnly
		}
		return nil
	})
	if o.CheckOnly && errors.Is(err, errCheckOnly) {
		restored.StoreID = ""
		return restored, nil
	}
	return restored, err
}

func fromStart[T any](r io.ReadSeeker, read func(io.Reader) (T, error)) (T, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		var zero T
		return zero, fmt.Errorf("read backup: %w", err)
	}
	return read(r)
}

// become gives the database its new identity and epoch, which fences every
// leader. It reports whether an earlier attempt, whose COMMIT was not answered,
// has done all of it.
func (x tx) become(ctx context.Context, to *Restored) (isIn bool, err error) {
	var id string
	var epoch, highest member.Epoch
	var renewal uint64
	if err := x.QueryRowContext(ctx, "SELECT store_id, epoch, renewal FROM leader WHERE id = 1").Scan(&id, &epoch, &renewal); err != nil {
		return false, fmt.Errorf("read leader: %w", orNoLease(err))
	}
	if id == to.StoreID {
		// As in flush, what was found must be durable.
		_, err := x.touch(ctx, "UPDATE leader SET renewal = renewal + 1 WHERE id = 1 AND store_id = ?", id)
		return true, err
	}
	if err := x.QueryRowContext(ctx, "SELECT COALESCE(MAX(epoch), 0) FROM pool").Scan(&highest); err != nil {
		return false, fmt.Errorf("read epochs: %w", err)
	}
	to.Epoch = max(epoch, highest, to.Backup.Epoch) + 1
	n, err := x.touch(ctx, "UPDATE leader SET store_id = ?, holder = '', advertise = '', epoch = ?, renewal = ?, since = ? "+
		"WHERE id = 1 AND epoch = ? AND renewal = ?", to.StoreID, to.Epoch, renewal+1, timestamp(time.Now()), epoch, renewal)
	if err != nil {
		return false, fmt.Errorf("write leader: %w", err)
	}
	if n != 1 {
		return false, errOvertaken
	}
	return false, nil
}

// makeEmpty refuses, or removes, what is there. A coordinator that has run on
// the database once has made the default pool.
func (x tx) makeEmpty(ctx context.Context, replace bool) error {
	for _, q := range []struct{ what, count string }{
		{"servers", "SELECT COUNT(*) FROM server"},
		{"intents", "SELECT COUNT(*) FROM intent"},
		{"departed servers", "SELECT COUNT(*) FROM departed"},
		{"pools besides " + string(member.DefaultPool), "SELECT COUNT(*) FROM pool WHERE name <> '" + string(member.DefaultPool) + "'"},
	} {
		var n int
		if err := x.QueryRowContext(ctx, q.count).Scan(&n); err != nil {
			return fmt.Errorf("count %s: %w", q.what, err)
		}
		if n > 0 && !replace {
			return &member.RefusedError{
				Rule:   "not_empty",
				Reason: fmt.Sprintf("the database has %d %s; restore into another one, or replace all that it has (--replace)", n, q.what),
			}
		}
	}
	for _, name := range []string{"router", "deleted_pool", "request", "event", "departed", "intent", "server", "pool"} {
		if _, err := x.ExecContext(ctx, "DELETE FROM "+name); err != nil {
			return fmt.Errorf("empty table %s: %w", name, err)
		}
	}
	return nil
}

// fill writes the rows of a backup.
func (x tx) fill(ctx context.Context, r io.Reader) (BackupInfo, error) {
	var to table
	var rows [][]any
	flush := func() error {
		if err := x.write(ctx, to, made(rows...)); err != nil {
			return fmt.Errorf("write table %s: %w", to.name, err)
		}
		rows = rows[:0]
		return nil
	}
	info, err := newBackupReader(r).read(func(t table, row []any) error {
		if t != to || len(rows) == batch {
			if err := flush(); err != nil {
				return err
			}
			to = t
		}
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return BackupInfo{}, err
	}
	return info, flush()
}

// moveOn takes the pools to their new place, with an event each, and checks that
// everything can be read.
func (x tx) moveOn(ctx context.Context, to *Restored, o RestoreOptions) error {
	if _, err := x.ExecContext(ctx, "UPDATE pool SET epoch = ?, revision = revision + ?, last_change_id = ?",
		to.Epoch, RestoreStep, to.StoreID); err != nil {
		return fmt.Errorf("move pools on: %w", err)
	}
	if _, err := x.ExecContext(ctx, "UPDATE deleted_pool SET epoch = ?, revision = revision + ?", to.Epoch, RestoreStep); err != nil {
		return fmt.Errorf("move deleted pools on: %w", err)
	}
	for _, t := range backupTables {
		if !t.isOfPool() {
			continue
		}
		var strays int
		if err := x.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+t.name+" WHERE pool NOT IN (SELECT name FROM pool)").Scan(&strays); err != nil {
			return fmt.Errorf("check table %s: %w", t.name, err)
		}
		if strays > 0 {
			return member.Invalid("backup", "%d rows of table %s are of no pool", strays, t.name)
		}
	}
	pools, err := loadPools(ctx, x)
	if err != nil {
		return err
	}
	to.Pools, to.Servers = len(pools), 0
	for _, p := range pools {
		if p.Unreadable != nil {
			return errors.Join(member.Invalid("backup", "pool %s has rows that cannot be read", p.Name), p.Unreadable)
		}
		to.Servers += len(p.Servers)
		if err := x.insertEvents(ctx, p.Name, p.Position, []member.Event{to.event(o)}); err != nil {
			return fmt.Errorf("write events: %w", err)
		}
	}
	return nil
}

func (r *Restored) event(o RestoreOptions) member.Event {
	text := fmt.Sprintf("restored from a backup of %s (store %s)", r.Backup.At.UTC().Format(time.RFC3339), r.Backup.StoreID)
	if o.Reason != "" {
		text += ": " + o.Reason
	}
	return member.Event{At: time.Now(), Kind: member.EventRestored, Actor: o.Actor, Text: text}
}
