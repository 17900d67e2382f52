package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// sqliteReaders bounds the connections that read; there is one that writes.
const sqliteReaders = 4

func sqliteDialect() *dialect {
	return &dialect{
		kind:     KindSQLite,
		goose:    goose.DialectSQLite3,
		hasTable: "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?",
		conflict: func(keys, columns []string) string {
			return " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO UPDATE SET " +
				assignments(keys, columns, func(c string) string { return "excluded." + c })
		},
		classify:  classifySQLite,
		denied:    deniedBySQLite,
		duplicate: isSQLiteDuplicate,
		// A COMMIT that fails is undone for every process that has the file open.
		commit: func(_ context.Context, tx *sql.Tx) error { return tx.Commit() },
	}
}

// openSQLite opens the file, and creates it, for its owner only, if create is
// set. Commits wait for the disk. One connection writes, so that writers queue
// in this process rather than at the file's lock.
func openSQLite(t target, create bool) (rw, ro *sql.DB, err error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(t.path, flags, 0o600)
	if errors.Is(err, fs.ErrNotExist) && !create {
		return nil, nil, errors.New(`there is no such file: run "buddyring-coordinator migrate"`)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open file: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, nil, fmt.Errorf("open file: %w", err)
	}
	rw, err = openSQLitePool(t.path, 1)
	if err != nil {
		return nil, nil, err
	}
	ro, err = openSQLitePool(t.path, sqliteReaders, "query_only(1)")
	if err != nil {
		return nil, nil, errors.Join(err, rw.Close())
	}
	return rw, ro, nil
}

func openSQLitePool(path string, size int, pragmas ...string) (*sql.DB, error) {
	query := url.Values{
		"_txlock": {"immediate"},
		"_pragma": append([]string{
			"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)",
			// The log is cut back to this after a large transaction.
			"journal_size_limit(16777216)",
		}, pragmas...),
	}
	name := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	c, err := sqlite.NewConnector(name.String())
	if err != nil {
		return nil, fmt.Errorf("configure sqlite: %w", err)
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return db, nil
}

func classifySQLite(err error) class {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return fatal
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return passing
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
		sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return lasting
	}
	return fatal
}

func isSQLiteDuplicate(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) &&
		(e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE)
}
