//go:build mariadb

package store_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
)

// behindProxy returns a store whose connections go through a proxy, with the
// pool "web", and a second store on the same database without it.
func behindProxy(t *testing.T) (s *store.Store, p *proxy, direct *store.Store, at member.Position) {
	t.Helper()
	server := testdb.Shared(t)
	address := server.Database(t)
	p = newProxy(t, server, path.Base(address))
	direct, s = openStore(t, address), openStore(t, p.URL)
	pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	return s, p, direct, pool.Position
}

func TestLostCommitsAreSettledWithinTheCall(t *testing.T) {
	t.Parallel()
	for name, fates := range map[string][]fate{
		"it did not arrive":               {lose},
		"its answer did not arrive":       {loseAnswer},
		"neither, then nothing, then all": {lose, lose, loseAnswer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p, direct, at := behindProxy(t)
			p.harm(fates...)
			commit(t, s, joinOne(at))
			checkHistory(t, direct, at.Revision+1)
			// The next change finds the table where the leader believes it.
			at.Revision++
			commit(t, s, joinOne(at))
		})
	}
}

func TestUnknownOutcomeStaysUnknownUntilSettled(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]fate{"it did not arrive": lose, "its answer did not arrive": loseAnswer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p, direct, at := behindProxy(t)
			p.harmAndCut(first)
			// The second call cannot even reach the database; that settles nothing.
			for range 2 {
				err := s.Commit(t.Context(), joinOne(at))
				if !errors.Is(err, member.ErrUnavailable) || !errors.Is(err, store.ErrOutcomeUnknown) {
					t.Fatalf("%v, want ErrUnavailable and ErrOutcomeUnknown", err)
				}
			}
			other := change(at)
			other.ID = "other"
			if err := s.Commit(t.Context(), other); !errors.Is(err, member.ErrUnavailable) || errors.Is(err, store.ErrOutcomeUnknown) {
				t.Errorf("a change that was never sent: %v", err)
			}
			p.mend()
			commit(t, s, joinOne(at))
			checkHistory(t, direct, at.Revision+1)
		})
	}
}

// TestNoRollbackFollowsACommit: database/sql sends one after a COMMIT that was a
// statement, and waits for its answer without a deadline.
func TestNoRollbackFollowsACommit(t *testing.T) {
	t.Parallel()
	s, p, _, at := behindProxy(t)
	before := p.rollbacks.Load()
	for range 3 {
		at = commit(t, s, joinOne(at))
	}
	if err := s.Renew(t.Context(), at.Epoch); err != nil {
		t.Error(err)
	}
	if n := p.rollbacks.Load() - before; n != 0 {
		t.Errorf("%d rollbacks after commits", n)
	}
	stale := joinOne(at)
	stale.Base.Revision--
	if err := s.Commit(t.Context(), stale); err == nil {
		t.Error("a stale change was taken")
	}
	if n := p.rollbacks.Load() - before; n != 1 {
		t.Errorf("%d rollbacks after a change that was refused, want 1", n)
	}
}

func TestTakeoverSettlesAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]fate{"it did not arrive": lose, "its answer did not arrive": loseAnswer} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, p, direct, at := behindProxy(t)
			p.harmAndCut(first)
			if err := s.Commit(t.Context(), joinOne(at)); !errors.Is(err, store.ErrOutcomeUnknown) {
				t.Fatalf("%v, want ErrOutcomeUnknown", err)
			}
			lead(t, direct)
			p.mend()
			if err := s.Commit(t.Context(), joinOne(at)); !errors.Is(err, member.ErrFenced) {
				t.Errorf("%v, want ErrFenced", err)
			}
		})
	}
}

func TestLostAnswersOfOtherWrites(t *testing.T) {
	t.Parallel()
	s, p, direct, at := behindProxy(t)
	n := store.NewPool{
		Name: "db", Settings: member.DefaultSettings(), Events: []member.Event{{Kind: member.EventPoolCreated, At: noon}},
	}
	if _, err := direct.CreatePool(t.Context(), at.Epoch, n); err != nil {
		t.Fatal(err)
	}
	alter(t, direct, "DELETE FROM pool WHERE name = 'db'") // its event is left
	p.harm(loseAnswer)
	created, err := s.CreatePool(t.Context(), at.Epoch, n)
	if err != nil || created.Position.Revision != 2 {
		t.Errorf("create pool: %v, %v", created.Position, err)
	}
	p.harm(loseAnswer)
	if err := s.PutRouter(t.Context(), at.Epoch, store.RouterRow{ID: "r", LastSeen: noon}); err != nil {
		t.Errorf("put router: %v", err)
	}
	p.harm(loseAnswer)
	if err := s.Renew(t.Context(), at.Epoch); err != nil {
		t.Errorf("renew: %v", err)
	}
	p.harm(loseAnswer)
	l := lead(t, s)
	if l.Epoch != at.Epoch+1 {
		t.Errorf("the lead was taken more than once: epoch %d after %d", l.Epoch, at.Epoch)
	}
	pools, err := direct.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pool := range pools {
		if pool.Position.Epoch != l.Epoch {
			t.Errorf("pool %s is in epoch %d, the leader in %d", pool.Name, pool.Position.Epoch, l.Epoch)
		}
	}
	if err := direct.Renew(t.Context(), l.Epoch); err != nil {
		t.Errorf("the epoch it was told is not the present one: %v", err)
	}
}

func TestHangingCommitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s, p, direct, at := behindProxy(t)
	ctx := p.hangs(t, 0)
	err := s.Commit(ctx, joinOne(at))
	if !errors.Is(err, store.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want ErrOutcomeUnknown and DeadlineExceeded", err)
	}
	if took := time.Since(ctx.at); took > 5*time.Second {
		t.Errorf("it went on for %v", took)
	}
	commit(t, s, joinOne(at))
	checkHistory(t, direct, at.Revision+1)
}

func TestStoppedDatabase(t *testing.T) {
	t.Parallel()
	server := testdb.Start(t)
	server.Exec(t, "CREATE DATABASE b")
	s := openStore(t, server.URL("b"))
	pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	c := joinOne(pool.Position)
	server.Signal(t, syscall.SIGSTOP)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := s.Commit(ctx, c); !errors.Is(err, member.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want ErrUnavailable and DeadlineExceeded", err)
		}
		cancel()
	}
	server.Signal(t, syscall.SIGCONT)
	commit(t, s, c)
	checkHistory(t, s, c.Revision())
}

// TestKilledDatabaseLosesNoAcknowledgedChange commits all the while the server
// is killed and started again.
func TestKilledDatabaseLosesNoAcknowledgedChange(t *testing.T) {
	t.Parallel()
	server := testdb.Start(t)
	server.Exec(t, "CREATE DATABASE b")
	s := openStore(t, server.URL("b"))
	pool, err := s.CreatePool(t.Context(), lead(t, s).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	const rounds, perRound = 3, 25
	progress := make(chan struct{})
	done := make(chan member.Revision)
	go func() {
		at := pool.Position
		for n := 1; n <= (rounds+1)*perRound; n++ {
			err := s.Commit(t.Context(), joinOne(at))
			for ; errors.Is(err, member.ErrUnavailable) && t.Context().Err() == nil; err = s.Commit(t.Context(), joinOne(at)) {
			}
			if err != nil {
				t.Error(err)
				break
			}
			at.Revision++
			if n%perRound == 0 && n <= rounds*perRound {
				progress <- struct{}{}
			}
		}
		close(progress)
		done <- at.Revision
	}()
	for range progress {
		server.Kill(t)
		server.Restart(t)
	}
	checkHistory(t, s, <-done)
}

// TestReadingTheEpochIsNoFence shows why Commit starts with a write: a leader
// that only looks whether it still leads gets its change in after another has
// taken over.
func TestReadingTheEpochIsNoFence(t *testing.T) {
	t.Parallel()
	address := testdb.MariaDB(t)
	old, next := openStore(t, address), openStore(t, address)
	pool, err := old.CreatePool(t.Context(), lead(t, old).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	var taken store.Leadership
	err = old.Write(t.Context(), func(tx *sql.Tx) error {
		var epoch member.Epoch
		if err := tx.QueryRowContext(t.Context(), "SELECT epoch FROM pool WHERE name = 'web'").Scan(&epoch); err != nil {
			return err
		}
		if epoch != pool.Position.Epoch {
			return member.ErrFenced
		}
		taken = lead(t, next)
		_, err := tx.ExecContext(t.Context(), "INSERT INTO departed "+
			"(pool, server_id, incarnation, cause, boot_id, left_at, flap_score, hold_down_ms) "+
			"VALUES ('web', 'a', 1, 'crashed', '', '2026-01-01', 0, 0)")
		return err
	})
	if err != nil {
		t.Fatalf("the stale write was refused (%v): the fence could be a read after all", err)
	}
	if taken.Epoch <= pool.Position.Epoch {
		t.Fatalf("epoch %d after %d", taken.Epoch, pool.Position.Epoch)
	}
	if err := old.Commit(t.Context(), joinOne(pool.Position)); !errors.Is(err, member.ErrFenced) {
		t.Errorf("the fence: %v, want ErrFenced", err)
	}
}

// TestTakeoverFromALeaderThatStopsInATransaction: it holds the pool's row, and
// its connection stays open. The server drops it before long.
func TestTakeoverFromALeaderThatStopsInATransaction(t *testing.T) {
	t.Parallel()
	address := testdb.MariaDB(t)
	old, next := openStore(t, address), openStore(t, address)
	pool, err := old.CreatePool(t.Context(), lead(t, old).Epoch, store.NewPool{Name: "web", Settings: member.DefaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	attempts := 0
	err = old.Write(t.Context(), func(tx *sql.Tx) error {
		if attempts++; attempts > 1 {
			return member.ErrFenced // as the fence would say
		}
		if _, err := tx.ExecContext(t.Context(), "UPDATE pool SET revision = revision + 1 WHERE name = 'web'"); err != nil {
			return err
		}
		// It does not go on before it has been succeeded.
		lead(t, next)
		return nil
	})
	if !errors.Is(err, member.ErrFenced) || attempts != 2 {
		t.Errorf("%d attempts, the last %v: the change of the stopped leader went through", attempts, err)
	}
	pools, err := next.LoadPools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := member.Position{Epoch: pool.Position.Epoch + 1, Revision: pool.Position.Revision}
	if len(pools) != 1 || pools[0].Position != want {
		t.Errorf("%v, want one pool at %v", pools, want)
	}
}

// TestFailover uses two servers as a primary and a replica that change places.
func TestFailover(t *testing.T) {
	t.Parallel()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("open sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var sockets []string
	servers := []*testdb.Server{testdb.Start(t), testdb.Start(t)}
	for _, server := range servers {
		server.Exec(t, "CREATE DATABASE b")
		server.Exec(t, "CREATE USER app@localhost IDENTIFIED BY 'open sesame'")
		server.Exec(t, "GRANT ALL ON b.* TO app@localhost")
		if _, _, err := store.ApplySchema(t.Context(), store.Config{URL: server.URL("b")}); err != nil {
			t.Fatal(err)
		}
		sockets = append(sockets, escape(server.Socket()))
	}
	servers[0].Exec(t, "SET GLOBAL read_only = 1")
	absent := escape(filepath.Join(t.TempDir(), "absent"))
	s, err := store.Open(t.Context(), store.Config{
		URL: "mysql://app@" + absent + "," + strings.Join(sockets, ",") + "/b", PasswordFile: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	first := lead(t, s)
	if again := lead(t, s); again.StoreID != first.StoreID {
		t.Errorf("two calls reached two servers")
	}
	servers[0].Exec(t, "SET GLOBAL read_only = 0")
	servers[1].Exec(t, "SET GLOBAL read_only = 1")
	// What was seen on the one says nothing about the other.
	if _, err := s.Lead(t.Context(), claim(t, s, "c1")); !errors.Is(err, member.ErrStale) {
		t.Errorf("a claim to the lease of another server: %v, want ErrStale", err)
	}
	if moved := lead(t, s); moved.StoreID == first.StoreID || moved.Epoch != 1 {
		t.Errorf("%v was not won on the other server; %v was the first", moved, first)
	}
}

func escape(path string) string { return strings.ReplaceAll(url.PathEscape(path), "/", "%2F") }

// Waiting does not mend a wrong password.
func TestWrongPasswordIsDenied(t *testing.T) {
	t.Parallel()
	address := strings.Replace(testdb.MariaDB(t), "root@", "nobody@", 1)
	_, err := store.Open(t.Context(), store.Config{URL: address})
	if _, denied := errors.AsType[*store.DeniedError](err); !denied || !strings.Contains(err.Error(), "Access denied") {
		t.Errorf("%v, want a DeniedError with the server's words", err)
	}
}

// TestSilenceIsHeldAgainstAllSessions: with a stopped server, or one behind a
// proxy that has found another, each idle session would cost its user a time-out.
// A caller that cannot wait is no silence: the sessions of the others stay.
func TestSilenceIsHeldAgainstAllSessions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		// waits is how long after its COMMIT was sent the caller still waits.
		waits  time.Duration
		silent bool
	}{
		"no answer for a second": {waits: 1100 * time.Millisecond, silent: true},
		"a short deadline":       {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			oneOfTwoSessionsHangs(t, c.waits, c.silent)
		})
	}
}

func oneOfTwoSessionsHangs(t *testing.T, waits time.Duration, silent bool) {
	t.Helper()
	s, p, _, at := behindProxy(t)
	session := func(use func()) (id int64) {
		err := s.Write(t.Context(), func(tx *sql.Tx) error {
			err := tx.QueryRowContext(t.Context(), "SELECT CONNECTION_ID()").Scan(&id)
			use()
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return id
	}
	var inner int64
	outer := session(func() { inner = session(func() {}) })
	if inner == outer {
		t.Fatal("two transactions at once shared a session")
	}
	if again := session(func() {}); again != inner && again != outer {
		t.Fatalf("session %d instead of the idle %d or %d", again, inner, outer)
	}
	if err := s.Commit(p.hangs(t, waits), change(at)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v, want DeadlineExceeded", err)
	}
	if again := session(func() {}); silent == (again == inner || again == outer) {
		t.Errorf("session %d after %d and %d; silent: %t", again, inner, outer, silent)
	}
}
