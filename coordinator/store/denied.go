package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/buddyring/buddyring/internal/member"
)

// DeniedError says why a database cannot be opened before somebody acts, so that
// waiting is of no use. Its text says what to do. It is no member.ErrUnavailable,
// which the same is to a Store that is open: that one goes on until it is mended.
type DeniedError struct {
	// Problem and Remedy are plain sentences.
	Problem, Remedy string

	cause error
}

func (e *DeniedError) Error() string {
	return fmt.Sprintf("%s: %s (%v)", e.Problem, e.Remedy, e.cause)
}

// Unwrap returns what the database said.
func (e *DeniedError) Unwrap() error { return e.cause }

// atStart makes a DeniedError of an error of opening that waiting does not mend.
func (s *Store) atStart(err error, mode Migrate) error {
	if !errors.Is(err, member.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err // in what time there was, not every server may have been asked
	}
	if denied := s.dialect.denied(err, mode); denied != nil {
		return denied
	}
	return err
}

func deniedBySQLite(err error, _ Migrate) *DeniedError {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return nil
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_NOTADB:
		return &DeniedError{"the file is no SQLite database", "give the right one in --store, or move it away", e}
	case sqlite3.SQLITE_CORRUPT:
		return &DeniedError{"the SQLite file is damaged", "move it away, and restore a backup in its place (docs/database.md)", e}
	}
	return nil
}

func deniedByMySQL(err error, mode Migrate) *DeniedError {
	if c, connecting := errors.AsType[*connectError](err); connecting {
		return c.denied()
	}
	e, _ := errors.AsType[*mysql.MySQLError](err)
	switch {
	case e == nil || !lacksRight(e):
		return nil
	case mode == MigrateAuto:
		return &DeniedError{
			"this user may not change the schema",
			`run "buddyring-coordinator migrate" as the user that may (buddyring-migrate in docs/database.md), with --store and --store-password-file`, e,
		}
	}
	return &DeniedError{"this user lacks a right", "grant it what docs/database.md says", e}
}

// denied says why no server can be used before somebody acts, or nil: one that cannot
// be asked may be.
func (e *connectError) denied() *DeniedError {
	absent := false
	for _, cause := range e.causes {
		refusal, ok := errors.AsType[*mysql.MySQLError](cause)
		if !ok || !lacksRight(refusal) && refusal.Number != unknownDatabase {
			return nil
		}
		absent = absent || refusal.Number == unknownDatabase
	}
	if absent {
		return &DeniedError{"there is no such database", "create it (docs/database.md), or give the right name in --store", e}
	}
	return &DeniedError{
		"the database does not let this user in",
		"look at the user in --store, its password in --store-password-file, its grants (docs/database.md), " +
			"and --store-tls-ca if it must come by TLS", e,
	}
}

// unknownDatabase is ER_BAD_DB_ERROR.
const unknownDatabase = 1049

// lacksRight reports whether a server has refused what this user asked for: a wrong
// name or password (1045, 1698), no right to the database (1044), a table (1142), a
// column (1143) or a command (1227).
func lacksRight(e *mysql.MySQLError) bool {
	switch e.Number {
	case 1044, 1045, 1142, 1143, 1227, 1698:
		return true
	}
	return false
}
