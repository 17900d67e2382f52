package sql_test

import (
	gosql "database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite"

	"github.com/buddyring/buddyring/coordinator/store"
)

// TestSQLiteSchemaIsWhatTheMigrationsMake compares the text that SQLite keeps of
// every table and index, comments included.
func TestSQLiteSchemaIsWhatTheMigrationsMake(t *testing.T) {
	t.Parallel()
	migrated := filepath.Join(t.TempDir(), "migrated.db")
	if _, _, err := store.ApplySchema(t.Context(), store.Config{URL: "sqlite:" + migrated}); err != nil {
		t.Fatal(err)
	}
	written := filepath.Join(t.TempDir(), "written.db")
	script, err := os.ReadFile("sqlite/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	db := openSQLite(t, written)
	for range 2 { // what it says can be said again
		if _, err := db.ExecContext(t.Context(), string(script)); err != nil {
			t.Fatal(err)
		}
	}
	const describe = `SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'goose%' AND name NOT LIKE 'sqlite%'
		UNION ALL SELECT 'row of leader', id || store_id || holder || advertise || epoch || renewal FROM leader`
	if d := cmp.Diff(pairs(t, openSQLite(t, migrated), describe), pairs(t, db, describe)); d != "" {
		t.Errorf("-migrations +schema.sql:\n%s", d)
	}
}

func openSQLite(t *testing.T, path string) *gosql.DB {
	t.Helper()
	db, err := gosql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// pairs returns the rows of a query of two columns as a map.
func pairs(t *testing.T, db *gosql.DB, query string) map[string]string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	out := map[string]string{}
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			t.Fatal(err)
		}
		out[k] = v
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatal("the query found nothing")
	}
	return out
}
