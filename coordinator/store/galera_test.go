//go:build galera

package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// onNodes returns a store on each node of the shared cluster, with the pool
// "web" and the first one leading, and the name of the database.
func onNodes(t *testing.T) (stores []*store.Store, at member.Position, database string) {
	t.Helper()
	cluster := testdb.SharedGalera(t)
	database = path.Base(cluster.Database(t))
	for node := range 3 {
		stores = append(stores, openStore(t, cluster.URL(database, node)))
	}
	pool, err := stores[0].CreatePool(t.Context(), lead(t, stores[0]).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	return stores, pool.Position, database
}

func connect(t *testing.T, s *testdb.Server, database string) *sql.Conn {
	t.Helper()
	conn, err := s.Open(t, database).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func run(t *testing.T, c *sql.Conn, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := c.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// TestReadingTheEpochIsNoFenceOnGalera: what a transaction has only read is not
// certified, so a leader of the past gets its change in.
func TestReadingTheEpochIsNoFenceOnGalera(t *testing.T) {
	t.Parallel()
	stores, at, database := onNodes(t)
	old := connect(t, testdb.SharedGalera(t).Node(0), database)
	run(t, old, "START TRANSACTION")
	var epoch member.Epoch
	if err := old.QueryRowContext(t.Context(), "SELECT epoch FROM pool WHERE name = 'web'").Scan(&epoch); err != nil || epoch != at.Epoch {
		t.Fatalf("epoch %d, %v", epoch, err)
	}
	lead(t, stores[1])
	run(t, old, "INSERT INTO departed (pool, server_id, incarnation, cause, boot_id, left_at, flap_score, hold_down_ms) "+
		"VALUES ('web', 'a', 1, 'crashed', '', '2026-01-01', 0, 0)")
	if _, err := old.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatalf("the stale write was refused (%v): the fence could be a read after all", err)
	}
}

// TestFenceIsCertified lets another node take over between the fence and the
// COMMIT of a change.
func TestFenceIsCertified(t *testing.T) {
	t.Parallel()
	stores, at, _ := onNodes(t)
	attempts := 0
	err := stores[0].Write(t.Context(), func(tx *sql.Tx) error {
		attempts++
		r, err := tx.ExecContext(t.Context(), "UPDATE pool SET revision = revision + 1, last_change_id = 'stale' WHERE name = 'web' AND epoch = ?", at.Epoch)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, member.ErrFenced)
		}
		lead(t, stores[1])
		return nil
	})
	if attempts != 2 || !errors.Is(err, member.ErrFenced) {
		t.Errorf("%d attempts, %v: want 2 and ErrFenced", attempts, err)
	}
}

// TestSettleIsCertified settles a change on another node than that on which it waits
// for its COMMIT: that one comes too late, although the row is what it was.
func TestSettleIsCertified(t *testing.T) {
	t.Parallel()
	stores, at, database := onNodes(t)
	c := joinOne(at)
	old := connect(t, testdb.SharedGalera(t).Node(0), database)
	run(t, old, "START TRANSACTION",
		fmt.Sprintf("UPDATE pool SET revision = revision + 1, last_change_id = '%s' WHERE name = 'web' AND revision = %d", c.ID, at.Revision))
	if isIn, err := stores[1].Settle(t.Context(), c); err != nil || isIn {
		t.Fatalf("settled: %t, %v", isIn, err)
	}
	if _, err := old.ExecContext(t.Context(), "COMMIT"); err == nil {
		t.Error("the change was committed after it was settled")
	}
	commit(t, stores[0], c)
	if isIn, err := stores[1].Settle(t.Context(), c); err != nil || !isIn {
		t.Errorf("settled after it was committed: %t, %v", isIn, err)
	}
}

// TestHarmedCluster has a cluster of its own, and one database per kind of harm.
func TestHarmedCluster(t *testing.T) {
	t.Parallel()
	cluster := testdb.StartGalera(t)
	t.Run("applier lag", func(t *testing.T) { underApplierLag(t, cluster) })
	t.Run("a node that shares nothing", func(t *testing.T) { shareNothing(t, cluster) })
	t.Run("a node that is cut off", func(t *testing.T) { cutOff(t, cluster) })
	t.Run("stopped and killed nodes", func(t *testing.T) { stopAndKill(t, cluster) })
}

// shareNothing turns the replication of a node off, for all sessions that begin from
// then on. Its cluster does not notice.
func shareNothing(t *testing.T, cluster *testdb.Cluster) {
	cluster.Node(0).Exec(t, "CREATE DATABASE unshared")
	cluster.Node(0).Exec(t, "SET GLOBAL wsrep_on = OFF")
	t.Cleanup(func() { cluster.Node(0).Exec(t, "SET GLOBAL wsrep_on = ON") })
	s := openStore(t, cluster.URL("unshared", 0, 1, 2))
	lead(t, s)
	var holders int
	if err := connect(t, cluster.Node(1), "unshared").QueryRowContext(t.Context(), "SELECT COUNT(*) FROM leader").Scan(&holders); err != nil || holders != 1 {
		t.Errorf("%d rows on another node, %v", holders, err)
	}
	cfg := store.Config{URL: cluster.URL("unshared", 0)}
	if _, err := store.Open(t.Context(), cfg); !errors.Is(err, member.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

// cutOff cuts the node in use off from the others in the midst of a transaction. The
// node goes on answering, if only that it is not ready, also to a ROLLBACK. The next
// write goes through another node at once, and none waits for what was begun here.
func cutOff(t *testing.T, cluster *testdb.Cluster) {
	cluster.Node(0).Exec(t, "CREATE DATABASE cut")
	s := openStore(t, cluster.URL("cut", 0, 1, 2))
	epoch := lead(t, s).Epoch
	there := connect(t, cluster.Node(1), "cut")
	t.Cleanup(cluster.Mend)
	err := s.Write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.Context(), "UPDATE leader SET renewal = renewal + 1 WHERE id = 1"); err != nil {
			return err
		}
		cluster.Isolate(0)
		await(t, tx, "wsrep_ready", "OFF")
		await(t, there, "wsrep_cluster_size", "2")
		var refused *mysql.MySQLError
		if _, err := tx.ExecContext(t.Context(), "ROLLBACK"); !errors.As(err, &refused) || refused.Number != 1047 {
			t.Errorf("a rollback on a node that is cut off: %v", err)
		}
		return member.ErrFenced // as a fence that does not match
	})
	if !errors.Is(err, member.ErrFenced) {
		t.Fatal(err)
	}
	if err := s.Renew(t.Context(), epoch); err != nil {
		t.Error(err)
	}
	cluster.Mend()
	cluster.Heal(t)
	alone := openStore(t, cluster.URL("cut", 0))
	if err := alone.Renew(t.Context(), epoch); err != nil {
		t.Errorf("on the node that was cut off: %v", err)
	}
}

// await waits until a status of a node has a value.
func await(t *testing.T, node interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, status, want string,
) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var name, value string
		err := node.QueryRowContext(t.Context(), "SHOW STATUS LIKE '"+status+"'").Scan(&name, &value)
		if err == nil && value == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s (%v), want %s", status, value, err, want)
		}
	}
}

// underApplierLag holds up what a node applies: it does not know of the takeover
// that another node has acknowledged.
func underApplierLag(t *testing.T, cluster *testdb.Cluster) {
	cluster.Node(0).Exec(t, "CREATE DATABASE lag")
	old, next := openStore(t, cluster.URL("lag", 0)), openStore(t, cluster.URL("lag", 1))
	pool, err := old.CreatePool(t.Context(), lead(t, old).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	node := connect(t, cluster.Node(0), "lag")
	run(t, node, "FLUSH TABLES WITH READ LOCK")
	taken := lead(t, next)
	var seen member.Epoch
	if err := node.QueryRowContext(t.Context(), "SELECT epoch FROM pool WHERE name = 'web'").Scan(&seen); err != nil || seen >= taken.Epoch {
		t.Fatalf("the node knows of epoch %d already (%v): it does not lag", seen, err)
	}
	done := make(chan error)
	go func() { done <- old.Commit(t.Context(), joinOne(pool.Position)) }()
	run(t, node, "UNLOCK TABLES")
	if err := <-done; !errors.Is(err, member.ErrFenced) {
		t.Errorf("%v, want ErrFenced", err)
	}
	if got := servers(t, next); len(got) != 0 {
		t.Errorf("the stale leader's rows are in the table: %v", ids(got))
	}
}

// stopAndKill stops the node in use, lets it come back, kills the node after it, and
// starts that again; a leader commits all the while.
func stopAndKill(t *testing.T, cluster *testdb.Cluster) {
	cluster.Node(0).Exec(t, "CREATE DATABASE harm")
	s := openStore(t, cluster.URL("harm", 0, 1, 2))
	pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	at := pool.Position
	commitSome := func() {
		t.Helper()
		for range 10 {
			at = commitAtLast(t, s, joinOne(at))
		}
	}
	commitSome()
	cluster.Node(0).Signal(t, syscall.SIGSTOP)
	commitSome()
	cluster.Node(0).Signal(t, syscall.SIGCONT)
	commitSome()
	cluster.Heal(t)
	cluster.Node(1).Kill(t)
	commitSome()
	if err := cluster.Rejoin(1); err != nil {
		t.Fatal(err)
	}
	commitSome()
	for node := range 3 {
		checkHistory(t, openStore(t, cluster.URL("harm", node)), at.Revision)
	}
}

// commitAtLast commits as a leader does: with a deadline each time, and again
// while the database is away.
func commitAtLast(t *testing.T, s *store.Store, c member.Change) member.Position {
	t.Helper()
	end := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := s.Commit(ctx, c)
		cancel()
		if err == nil {
			return member.Position{Epoch: c.Base.Epoch, Revision: c.Revision()}
		}
		if !errors.Is(err, member.ErrUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestCommitsThroughAllNodesFromOneBase(t *testing.T) {
	t.Parallel()
	stores, at, _ := onNodes(t)
	for round := range 5 {
		var wg sync.WaitGroup
		errs := make([]error, len(stores))
		for i, s := range stores {
			wg.Go(func() {
				c := change(at)
				c.ID = fmt.Sprintf("round-%d-%d", round, i)
				c.Put = []member.Server{bare(member.ID(c.ID), member.Incarnation(c.Revision()))}
				errs[i] = s.Commit(t.Context(), c)
			})
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, member.ErrStale) {
				t.Errorf("%v, want nil or ErrStale", err)
			}
		}
		if n := len(servers(t, stores[2])); won != 1 || n != round+1 {
			t.Fatalf("round %d: %d won, %d rows", round, won, n)
		}
		at.Revision++
	}
}

// TestReadsSeeWhatOtherNodesHaveAcknowledged: without wsrep_sync_wait about one
// read in twelve does not.
func TestReadsSeeWhatOtherNodesHaveAcknowledged(t *testing.T) {
	t.Parallel()
	stores, at, _ := onNodes(t)
	for range 100 {
		at = commit(t, stores[0], change(at))
		seen, err := stores[1].Servers(t.Context(), "web")
		if err != nil || seen.At != at {
			t.Fatalf("another node shows %v (%v) after %v", seen.At, err, at)
		}
	}
}
