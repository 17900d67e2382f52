//go:build !mariadb && !galera && !tidb

package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestSQLiteFileIsForItsOwner(t *testing.T) {
	t.Parallel()
	// A name with everything that a URI would take for something else.
	path := filepath.Join(t.TempDir(), "a b?c#d%41&e.db")
	s := openStore(t, "sqlite:"+path)
	lead(t, s)
	for _, file := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o, want 600", filepath.Base(file), mode)
		}
	}
}

func TestSQLiteFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]store.Config{
		"no such directory":           {URL: "sqlite:" + filepath.Join(dir, "absent", "store.db")},
		"a directory":                 {URL: "sqlite:" + dir},
		"no database":                 {URL: "sqlite:" + text},
		"no file, and none to create": {URL: "sqlite:" + filepath.Join(dir, "absent.db"), Migrate: store.MigrateCheck},
	} {
		if s, err := store.Open(t.Context(), cfg); err == nil {
			_ = s.Close()
			t.Errorf("%s was opened", name)
		} else if !strings.Contains(err.Error(), strings.TrimPrefix(cfg.URL, "sqlite:")) {
			t.Errorf("%s: %q does not name the file", name, err)
		}
	}
	if left, err := os.ReadFile(text); err != nil || !strings.HasPrefix(string(left), "not a database") {
		t.Errorf("the file that is no database was changed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "absent.db")); err == nil {
		t.Error("a check has created the file")
	}
}

// A file that is no database is said so at once, and is not waited for.
func TestNoSQLiteFileIsDenied(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, opening := store.Open(t.Context(), store.Config{URL: "sqlite:" + path})
	_, _, migrating := store.ApplySchema(t.Context(), store.Config{URL: "sqlite:" + path})
	for _, err := range []error{opening, migrating} {
		var denied *store.DeniedError
		if !errors.As(err, &denied) || errors.Is(err, member.ErrUnavailable) {
			t.Errorf("%v, want a DeniedError", err)
		}
	}
}

// A damaged file is not waited for either, and is left as it is.
func TestDamagedSQLiteFileIsDenied(t *testing.T) {
	t.Parallel()
	cfg := store.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "table.db")}
	if _, _, err := store.ApplySchema(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimPrefix(cfg.URL, "sqlite:")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const header = 100 // bytes, which say that it is a database
	clear(data[header:])
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, opening := store.Open(t.Context(), cfg)
	_, _, migrating := store.ApplySchema(t.Context(), cfg)
	for _, err := range []error{opening, migrating} {
		var denied *store.DeniedError
		if !errors.As(err, &denied) || denied.Problem != "the SQLite file is damaged" || errors.Is(err, member.ErrUnavailable) {
			t.Errorf("%v, want a DeniedError", err)
		}
	}
	if left, err := os.ReadFile(path); err != nil || !bytes.Equal(left, data) {
		t.Errorf("the damaged file was changed: %v", err)
	}
}

// TestFullSQLiteFileAcknowledgesNothing limits the file to its present size.
func TestFullSQLiteFileAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	s, at := newPool(t)
	at = commit(t, s, joinOne(at))
	alter(t, s, "PRAGMA max_page_count = 1") // SQLite takes this for the present size
	big := joins(at, 300)
	for range 3 {
		if err := s.Commit(t.Context(), big); !errors.Is(err, member.ErrUnavailable) || errors.Is(err, store.ErrOutcomeUnknown) {
			t.Fatalf("%v, want ErrUnavailable with a known outcome", err)
		}
	}
	checkHistory(t, s, at.Revision)
	alter(t, s, "PRAGMA max_page_count = 1000000")
	commit(t, s, big)
	if n := len(servers(t, s)); n != 301 {
		t.Errorf("%d rows, want 301", n)
	}
}
