//go:build tidb

package store_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/testdb"
)

const backend = store.KindMySQL

// freshURL returns the URL of an empty database of the kind under test.
func freshURL(t testing.TB) string {
	t.Helper()
	return testdb.TiDB(t)
}

// openRaw opens the database beside the store.
func openRaw(t testing.TB, url string) *sql.DB {
	t.Helper()
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net = "root", "tcp"
	cfg.Addr, cfg.DBName, _ = strings.Cut(strings.TrimPrefix(url, "mysql://root@"), "/")
	cfg.ClientFoundRows = true
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { _ = db.Close() })
	return db
}
