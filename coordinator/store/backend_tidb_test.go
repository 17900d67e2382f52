//go:build tidb

package store_test

import (
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/testdb"
)

const backend = store.KindMySQL

// freshURL returns the URL of an empty database of the kind under test.
func freshURL(t testing.TB) string {
	t.Helper()
	return testdb.TiDB(t)
}
