//go:build !mariadb && !galera

package store_test

import (
	"path/filepath"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
)

const backend = store.KindSQLite

// freshURL returns the URL of an empty database of the kind under test.
func freshURL(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "store.db")
}
