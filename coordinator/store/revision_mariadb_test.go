//go:build mariadb && !galera

package store_test

import (
	"testing"

	"github.com/buddyring/buddyring/internal/testdb"
)

// The same on a server that counts by threes, as each node of a Galera cluster does.
func TestRevisionsOfAServerThatCountsByThrees(t *testing.T) {
	t.Parallel()
	revisionsCount(t, testdb.Start(t, "--auto-increment-increment=3", "--auto-increment-offset=2").Database(t))
}
