//go:build !mariadb && !galera && !tidb

package store_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
)

const backend = store.KindSQLite

// freshURL returns the URL of an empty database of the kind under test.
func freshURL(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "store.db")
}

// openRaw opens the database beside the store.
func openRaw(t testing.TB, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", strings.TrimPrefix(url, "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
