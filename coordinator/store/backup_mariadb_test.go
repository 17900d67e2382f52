//go:build mariadb

package store_test

import (
	"path/filepath"
	"testing"
)

// TestFromSQLiteToMariaDBAndBack is the way from one coordinator to several, and
// home again: the rows are the same, byte by byte.
func TestFromSQLiteToMariaDBAndBack(t *testing.T) {
	t.Parallel()
	file := func(name string) string { return "sqlite:" + filepath.Join(t.TempDir(), name) }
	first, _ := fullStore(t, file("first.db"))
	saved := backup(t, first)
	onMariaDB := openStore(t, freshURL(t))
	restore(t, onMariaDB, saved, false)
	there := backup(t, onMariaDB)
	second := openStore(t, file("second.db"))
	restore(t, second, there, false)
	back := backup(t, second)
	for _, table := range []string{"server", "intent", "departed", "request"} {
		diff(t, table+" there", only(saved, table), only(there, table))
		diff(t, table+" back", only(saved, table), only(back, table))
	}
	diff(t, "events there", only(saved, "event"), only(there, "event")[:301])
	diff(t, "events back", only(saved, "event"), only(back, "event")[:301])
}
