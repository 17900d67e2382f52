package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func apply(t *testing.T, url string) (before, after int64) {
	t.Helper()
	before, after, err := store.ApplySchema(t.Context(), store.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	return before, after
}

func TestApplySchema(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	before, after := apply(t, url)
	if before != 0 || after < 1 {
		t.Errorf("from %d to %d, want from 0 to the newest", before, after)
	}
	if b, a := apply(t, url); b != after || a != after {
		t.Errorf("again: from %d to %d, want %d both times", b, a, after)
	}
	s, err := store.Open(t.Context(), store.Config{URL: url, Migrate: store.MigrateCheck})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestMigrationsCanBeRepeated(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	s := openStore(t, url)
	l := lead(t, s)
	if _, err := s.CreatePool(t.Context(), l.Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()}); err != nil {
		t.Fatal(err)
	}
	_, latest := apply(t, url)
	for v := latest; v >= 0; v-- {
		// As if each was cut short before it was noted as done; 0 is the first row of
		// goose's own table.
		alter(t, s, fmt.Sprintf("DELETE FROM goose_db_version WHERE version_id >= %d", v))
		if before, after := apply(t, url); before != max(v-1, 0) || after != latest {
			t.Errorf("from %d to %d, want from %d to %d", before, after, v-1, latest)
		}
	}
	if again := lead(t, s); again.StoreID != l.StoreID || again.Epoch != l.Epoch+1 {
		t.Errorf("the data did not survive: %v after %v", again, l)
	}
}

func TestConcurrentMigrations(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, after, err := store.ApplySchema(t.Context(), store.Config{URL: url}); err != nil || after < 1 {
				t.Errorf("schema %d, %v", after, err)
			}
		})
	}
	wg.Wait()
	lead(t, openStore(t, url))
}

func TestOtherSchemasAreRefused(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	s := openStore(t, url)
	_, latest := apply(t, url)

	refused := func(mode store.Migrate, have int64) {
		t.Helper()
		opened, err := store.Open(t.Context(), store.Config{URL: url, Migrate: mode})
		var wrong *store.SchemaError
		if !errors.As(err, &wrong) || *wrong != (store.SchemaError{Have: have, Want: latest}) {
			t.Errorf("with %s: %v, want a SchemaError from %d to %d", mode, err, have, latest)
		}
		if err == nil {
			_ = opened.Close()
		}
	}
	alter(t, s, fmt.Sprintf("INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, 1)", latest+1))
	refused(store.MigrateCheck, latest+1)
	refused(store.MigrateAuto, latest+1)
	if _, _, err := store.ApplySchema(t.Context(), store.Config{URL: url}); err == nil {
		t.Error("a newer schema was migrated")
	}
	alter(t, s, fmt.Sprintf("DELETE FROM goose_db_version WHERE version_id >= %d", latest))
	refused(store.MigrateCheck, latest-1)
	alter(t, s, "DROP TABLE goose_db_version")
	refused(store.MigrateCheck, 0)
}

func TestCheckOfAnEmptyDatabaseChangesNothing(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	for range 2 {
		if s, err := store.Open(t.Context(), store.Config{URL: url, Migrate: store.MigrateCheck}); err == nil {
			_ = s.Close()
			t.Fatal("an empty database was taken for a store")
		}
	}
	if before, _ := apply(t, url); before != 0 {
		t.Errorf("schema %d before the first migration", before)
	}
}
