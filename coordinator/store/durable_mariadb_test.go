//go:build mariadb

package store_test

import (
	"errors"
	"testing"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// TestWhatIsFoundIsDurable settles unknown outcomes in the moment in which the
// server shows a transaction and the disk does not have it yet. What was answered
// survives the server.
func TestWhatIsFoundIsDurable(t *testing.T) {
	t.Parallel()
	// The log goes to the disk with commits only, and with those only while
	// innodb_flush_log_at_trx_commit is 1.
	server := testdb.Start(t, "--innodb-flush-log-at-timeout=2700")
	type caller func(*store.Store) error
	for name, write := range map[string]func(*store.Store, member.Position) (call caller, there func() bool){
		"a change": func(s *store.Store, at member.Position) (caller, func() bool) {
			return func(s *store.Store) error { return s.Commit(t.Context(), joinOne(at)) },
				func() bool { return len(servers(t, s)) == 1 }
		},
		"a change that is settled": func(s *store.Store, at member.Position) (caller, func() bool) {
			settle := func(s *store.Store) error {
				if len(servers(t, s)) == 0 {
					return s.Commit(t.Context(), joinOne(at))
				}
				_, err := s.Settle(t.Context(), joinOne(at))
				return err
			}
			return settle, func() bool { return len(servers(t, s)) == 1 }
		},
		"a deletion": func(s *store.Store, at member.Position) (caller, func() bool) {
			return func(s *store.Store) error { return s.Commit(t.Context(), end(at)) },
				func() bool { _, there := stateOf(t, s, "web"); return !there }
		},
		"a new pool": func(s *store.Store, at member.Position) (caller, func() bool) {
			create := func(s *store.Store) error {
				_, err := s.CreatePool(t.Context(), at.Epoch, store.NewPool{Name: "games", Settings: member.DefaultSettings()})
				if errors.Is(err, member.ErrAlreadyExists) {
					return nil
				}
				return err
			}
			return create, func() bool { _, there := stateOf(t, s, "games"); return there }
		},
		"a claim": func(s *store.Store, at member.Position) (caller, func() bool) {
			c := claim(t, s, "c2")
			lead := func(s *store.Store) error { _, err := s.Lead(t.Context(), c); return err }
			return lead, func() bool { return leaseOf(t, s).Epoch == at.Epoch+1 }
		},
	} {
		t.Run(name, func(t *testing.T) {
			database := server.Database(t)
			s := openStore(t, database)
			pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
			if err != nil {
				t.Fatal(err)
			}
			call, there := write(s, pool.Position)
			// A session of its own, as after a connection that was lost.
			again := openStore(t, database)
			server.Exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit = 0")
			if err := call(s); err != nil {
				t.Fatal(err)
			}
			server.Exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit = 1")
			if err := call(again); err != nil {
				t.Fatalf("settled: %v", err)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			server.Kill(t)
			server.Restart(t)
			if !there() {
				t.Error("it was acknowledged, and is lost")
			}
		})
	}
}
