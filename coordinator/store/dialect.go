package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// dialect is what differs between the databases. The statements themselves are
// shared: the common part of both dialects, with parameters only.
type dialect struct {
	kind  string
	goose goose.Dialect
	// locker keeps two processes from migrating at once; nil where the database
	// does that by itself.
	locker func() (lock.Locker, error)
	// hasTable counts the tables of a name in the present database.
	hasTable string
	// conflict returns the clause of an INSERT that overwrites the row with the
	// same keys.
	conflict func(keys, columns []string) string
	// classify judges errors of the driver; others are fatal.
	classify func(error) class
	// denied returns nil for an error of opening that may pass.
	denied func(error, Migrate) *DeniedError
	// duplicate reports whether an INSERT hit a row with the same primary key.
	duplicate func(error) bool
	// commit ends a transaction, within the deadline of ctx also when the
	// database hangs. Its error is a commitError if the COMMIT may have taken
	// effect all the same.
	commit func(ctx context.Context, tx *sql.Tx) error
}

// class says what to do about an error.
type class uint8

const (
	// fatal errors are answers, such as ErrFenced, and defects: repeating the
	// transaction would not help.
	fatal class = iota
	// passing errors end if the whole transaction is repeated after a moment.
	passing
	// lasting errors need somebody to act: a full disk, a revoked right.
	lasting
)

func (d *dialect) class(ctx context.Context, err error) class {
	switch {
	case errors.Is(err, ErrBehind), errors.Is(err, errOvertaken):
		return passing
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone):
		return passing
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return lasting
	case errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil:
		// database/sql rolled back on its own when ctx ended.
		return lasting
	}
	return d.classify(err)
}

// assignments builds "a = f(a), b = f(b)" over the columns that are not keys.
func assignments(keys, columns []string, format func(column string) string) string {
	isKey := make(map[string]bool, len(keys))
	for _, k := range keys {
		isKey[k] = true
	}
	var list []string
	for _, c := range columns {
		if !isKey[c] {
			list = append(list, c+" = "+format(c))
		}
	}
	return strings.Join(list, ", ")
}
