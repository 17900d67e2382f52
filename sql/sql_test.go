package sql_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/sql"
)

// names returns the migrations of a dialect by their number and name.
func names(t *testing.T, dialect string) []string {
	t.Helper()
	files, err := sql.Migrations(dialect)
	if err != nil {
		t.Fatal(err)
	}
	list, err := fs.Glob(files, "*")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestBothDialectsHaveTheSameMigrations(t *testing.T) {
	t.Parallel()
	mysql := names(t, "mysql")
	if d := cmp.Diff(mysql, names(t, "sqlite")); d != "" {
		t.Errorf("-mysql +sqlite:\n%s", d)
	}
	if len(mysql) == 0 {
		t.Error("there are none")
	}
	if _, err := sql.Migrations("oracle"); err == nil {
		t.Error("an unknown dialect has migrations")
	}
}

// statements returns the statements of a script without its comments.
func statements(script string) []string {
	bare := regexp.MustCompile(`(?m)^\s*--.*$`).ReplaceAllString(script, "")
	var list []string
	for _, s := range strings.SplitAfter(bare, ";\n") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}

func TestMigrationsOfMySQLAreOneStatementThatCanBeRepeated(t *testing.T) {
	t.Parallel()
	files, err := sql.Migrations("mysql")
	if err != nil {
		t.Fatal(err)
	}
	repeatable := regexp.MustCompile(`^(CREATE TABLE IF NOT EXISTS|INSERT IGNORE INTO) `)
	for _, name := range names(t, "mysql") {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			t.Fatal(err)
		}
		list := statements(string(text))
		if len(list) != 1 || !repeatable.MatchString(list[0]) {
			t.Errorf("%s: %d statements, the first %q", name, len(list), list[0])
		}
		if strings.HasPrefix(list[0], "CREATE") && !strings.Contains(list[0], "DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin") {
			t.Errorf("%s leaves the character set to the server", name)
		}
	}
}

// TestNoServerWideLocksNorNumbers: two nodes of a Galera cluster grant the same one at
// once, so nothing may rest on it; and numbers that a server hands out are no
// order of commits.
func TestNoServerWideLocksNorNumbers(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`(?i)GET_LOCK\s*\(|\bLOCK TABLES|AUTO_INCREMENT`)
	for _, pattern := range []string{"*/*.sql", "../coordinator/store/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue // a test may look for them
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if hit := forbidden.Find(text); hit != nil {
				t.Errorf("%s uses %s", file, hit)
			}
		}
	}
}
