//go:build mariadb && !galera

package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// lateCommit is a change whose COMMIT is on its way when its sender loses the
// connection, and which is in doubt. Then the database is back.
func lateCommit(t *testing.T) (s *store.Store, p *proxy, c member.Change) {
	t.Helper()
	s, p, _, at := behindProxy(t)
	p.harmAndCut(late)
	c = joinOne(at)
	if err := s.Commit(t.Context(), c); !errors.Is(err, store.ErrOutcomeUnknown) {
		t.Fatalf("%v, want ErrOutcomeUnknown", err)
	}
	if _, err := s.Settle(t.Context(), c); !errors.Is(err, store.ErrOutcomeUnknown) {
		t.Fatalf("settled without the database: %v, want ErrOutcomeUnknown", err)
	}
	p.mend()
	return s, p, c
}

// TestSettleWaitsForALateCommit: while it may still arrive nothing is settled.
func TestSettleWaitsForALateCommit(t *testing.T) {
	t.Parallel()
	db := openRaw(t, testdb.MariaDB(t))
	s, p, c := lateCommit(t)
	settled := make(chan bool, 1)
	go func() {
		isIn, err := s.Settle(t.Context(), c)
		if err != nil {
			t.Error(err)
		}
		settled <- isIn
	}()
	for waiting := 0; waiting == 0; time.Sleep(time.Millisecond) {
		if len(settled) > 0 {
			t.Fatal("settled while the transaction is open")
		}
		if err := db.QueryRowContext(t.Context(), "SELECT variable_value FROM information_schema.global_status "+
			"WHERE variable_name = 'innodb_row_lock_current_waits'").Scan(&waiting); err != nil {
			t.Fatal(err)
		}
	}
	p.deliver()
	if !<-settled {
		t.Error("it is said not to be in the table")
	}
	checkHistory(t, s, c.Revision())
}

// TestWhatIsSettledComesNoMore: the server ends the session whose COMMIT does not
// come, and what comes later finds nothing.
func TestWhatIsSettledComesNoMore(t *testing.T) {
	t.Parallel()
	s, p, c := lateCommit(t)
	if isIn, err := s.Settle(t.Context(), c); err != nil || isIn {
		t.Fatalf("settled: %t, %v", isIn, err)
	}
	p.deliver()
	other := change(c.Base)
	other.ID = "other"
	commit(t, s, other)
	if got := servers(t, s); len(got) != 0 {
		t.Errorf("%v are in the table", ids(got))
	}
}
