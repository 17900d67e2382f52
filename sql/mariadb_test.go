//go:build mariadb

package sql_test

import (
	gosql "database/sql"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/testdb"
)

// TestMySQLSchemaIsWhatTheMigrationsMake compares what the server says of every
// table, comments included.
func TestMySQLSchemaIsWhatTheMigrationsMake(t *testing.T) {
	t.Parallel()
	a, b := testdb.MariaDB(t), testdb.MariaDB(t)
	if _, _, err := store.ApplySchema(t.Context(), store.Config{URL: a}); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("mysql/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	migrated, written := testdb.Shared(t).Open(t, path.Base(a)), testdb.Shared(t).Open(t, path.Base(b))
	list := statements(string(script))
	for _, statement := range append(list, list...) { // what it says can be said again
		if _, err := written.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if d := cmp.Diff(describe(t, migrated), describe(t, written)); d != "" {
		t.Errorf("-migrations +schema.sql:\n%s", d)
	}
	for table, text := range describe(t, written) {
		if !strings.Contains(text, "COLLATE=utf8mb4_bin") {
			t.Errorf("table %s does not compare byte by byte:\n%s", table, text)
		}
	}
}

func describe(t *testing.T, db *gosql.DB) map[string]string {
	t.Helper()
	out := map[string]string{}
	tables := pairs(t, db, "SELECT table_name, '' FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name NOT LIKE 'goose%'")
	for table := range tables {
		for _, text := range pairs(t, db, "SHOW CREATE TABLE "+table) {
			out[table] = text
		}
	}
	return out
}
