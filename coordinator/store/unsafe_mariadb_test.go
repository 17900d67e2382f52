//go:build mariadb

package store_test

import (
	"database/sql"
	"errors"
	"log/slog"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// refused checks that a database is refused because of a setting.
func refused(t *testing.T, cfg store.Config, setting string) {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err == nil {
		_ = s.Close()
	}
	var unsafe *store.UnsafeError
	if !errors.As(err, &unsafe) || unsafe.Setting != setting || errors.Is(err, member.ErrUnavailable) {
		t.Errorf("%v, want an UnsafeError about %s", err, setting)
	}
}

func TestServersThatCanLoseChangesAreRefused(t *testing.T) {
	t.Parallel()
	server := testdb.Start(t, "--log-bin", "--server-id=1")
	server.Exec(t, "CREATE DATABASE b")
	counter := warnings{slog.DiscardHandler, new(atomic.Int64)}
	cfg := store.Config{URL: server.URL("b"), Migrate: store.MigrateAuto, Logger: slog.New(counter)}

	server.Exec(t, "SET GLOBAL sync_binlog = 0")
	refused(t, cfg, "sync_binlog")
	server.Exec(t, "SET GLOBAL sync_binlog = 1, GLOBAL innodb_flush_log_at_trx_commit = 2")
	refused(t, cfg, "innodb_flush_log_at_trx_commit")
	other := cfg
	other.AcceptUnsafe = []string{"sync_binlog"}
	refused(t, other, "innodb_flush_log_at_trx_commit")

	// A server that is only the second is looked at too.
	safe := testdb.Shared(t)
	both, name := cfg, path.Base(safe.Database(t))
	server.Exec(t, "CREATE DATABASE "+name)
	both.URL = "mysql://root@" + escape(safe.Socket()) + "," + escape(server.Socket()) + "/" + name
	refused(t, both, "innodb_flush_log_at_trx_commit")

	cfg.AcceptUnsafe = []string{"innodb_flush_log_at_trx_commit"}
	if before := counter.n.Load(); before != 0 {
		t.Errorf("%d warnings about servers that were refused", before)
	}
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if counter.n.Load() != 1 {
		t.Errorf("%d warnings about what was accepted, want 1", counter.n.Load())
	}
	lead(t, s)
}

// TestSafetyLostLaterIsAWarning: a coordinator that runs goes on.
func TestSafetyLostLaterIsAWarning(t *testing.T) {
	t.Parallel()
	server := testdb.Start(t)
	server.Exec(t, "CREATE DATABASE b")
	counter := warnings{slog.DiscardHandler, new(atomic.Int64)}
	s, err := store.Open(t.Context(), store.Config{URL: server.URL("b"), Migrate: store.MigrateAuto, Logger: slog.New(counter)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	server.Exec(t, "SET GLOBAL innodb_flush_log_at_trx_commit = 2")
	for range 2 {
		_ = s.Exec(t.Context(), "KILL CONNECTION_ID()")
		lead(t, s)
	}
	if counter.n.Load() != 1 {
		t.Errorf("%d warnings, want 1 for two sessions", counter.n.Load())
	}
}

func TestReadOnlyServerIsUnavailable(t *testing.T) {
	t.Parallel()
	server := testdb.Start(t)
	server.Exec(t, "CREATE DATABASE b")
	if _, _, err := store.ApplySchema(t.Context(), store.Config{URL: server.URL("b")}); err != nil {
		t.Fatal(err)
	}
	server.Exec(t, "SET GLOBAL read_only = 1")
	_, err := store.Open(t.Context(), store.Config{URL: server.URL("b")})
	if !errors.Is(err, member.ErrUnavailable) || !strings.Contains(err.Error(), "read_only") {
		t.Errorf("%v, want ErrUnavailable that names read_only", err)
	}
}

func TestAlteredTablesAreRefused(t *testing.T) {
	t.Parallel()
	for statement, setting := range map[string]string{
		"ALTER TABLE server CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci": "the collation of server.",
		"ALTER TABLE intent MODIFY server_id VARCHAR(253) CHARACTER SET latin1 NOT NULL": "the collation of intent.server_id",
		"ALTER TABLE leader ENGINE = MyISAM":                                             "the engine of table leader",
		"DROP TABLE departed":                                                            "table departed",
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			cfg := store.Config{URL: freshURL(t)}
			if _, _, err := store.ApplySchema(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			alter(t, s, statement)
			_ = s.Close()
			_, err = store.Open(t.Context(), cfg)
			var unsafe *store.UnsafeError
			if !errors.As(err, &unsafe) || !strings.HasPrefix(unsafe.Setting, setting) {
				t.Errorf("%v, want an UnsafeError about %s", err, setting)
			}
		})
	}
}

// TestLocksOfADeadHostEnd: a coordinator whose host dies in the middle of a
// transaction says no goodbye, and its successor needs the same rows.
func TestLocksOfADeadHostEnd(t *testing.T) {
	t.Parallel()
	address := testdb.MariaDB(t)
	dead, next := openStore(t, address), openStore(t, address)
	at := lead(t, dead)
	attempts := 0
	err := dead.Write(t.Context(), func(tx *sql.Tx) error {
		if attempts++; attempts > 1 {
			return member.ErrFenced
		}
		if _, err := tx.ExecContext(t.Context(), "UPDATE leader SET renewal = renewal + 1"); err != nil {
			return err
		}
		start := time.Now()
		if l := lead(t, next); l.Epoch != at.Epoch+1 {
			t.Errorf("epoch %d after %d", l.Epoch, at.Epoch)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("the lock held for %v", took)
		}
		return nil
	})
	if attempts != 2 || !errors.Is(err, member.ErrFenced) {
		t.Errorf("%d attempts, %v: the dead coordinator's transaction was committed", attempts, err)
	}
}
