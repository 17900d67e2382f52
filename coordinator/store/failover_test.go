package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// scripted is a server in memory, a node of a Galera cluster.
type scripted struct {
	mu sync.Mutex
	// apart says that it is out of its cluster.
	apart bool
	// mute are the beginnings of statements that it does not answer; that of a
	// connection is "CONNECT".
	mute []string
	// refused is a statement that it does not carry out, or empty.
	refused string
	// done are the COMMITs that it has answered; sessions counts connections.
	done, sessions int
}

func (s *scripted) leave(apart bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apart = apart
}

// silence mutes it for statements with these beginnings, and no others.
func (s *scripted) silence(beginnings ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = beginnings
}

func (s *scripted) refuse(statement string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = statement
}

func (s *scripted) commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

func (s *scripted) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// hear takes a statement, and answers it, refuses it, or lets it hang.
func (s *scripted) hear(ctx context.Context, statement string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.mute {
		if strings.HasPrefix(statement, m) {
			s.mu.Unlock()
			<-ctx.Done()
			s.mu.Lock()
			return ctx.Err()
		}
	}
	asks := strings.HasPrefix(statement, "SHOW") || strings.HasPrefix(statement, "SET") || statement == "CONNECT"
	if s.apart && !asks {
		return &mysql.MySQLError{Number: 1047, Message: "WSREP has not yet prepared node for application use"}
	}
	if statement == s.refused {
		return &mysql.MySQLError{Number: 1317, Message: "Query execution was interrupted"}
	}
	if statement == "COMMIT" {
		s.done++
	}
	return ctx.Err()
}

func (s *scripted) Driver() driver.Driver { return nil }

func (s *scripted) Connect(ctx context.Context) (driver.Conn, error) {
	if err := s.hear(ctx, "CONNECT"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	return &scriptedConn{server: s}, nil
}

// scriptedConn is a session of it, which ends with a statement that was not answered,
// as one of the driver does.
type scriptedConn struct {
	server *scripted
	// open is whether it has a transaction.
	open, closed bool
}

func (c *scriptedConn) hear(ctx context.Context, statement string) error {
	if c.closed {
		return driver.ErrBadConn
	}
	err := c.server.hear(ctx, statement)
	if err != nil && ctx.Err() != nil {
		c.closed = true
	}
	if err == nil && (statement == "COMMIT" || statement == "ROLLBACK") {
		c.open = false
	}
	return err
}

func (c *scriptedConn) BeginTx(ctx context.Context, _ driver.TxOptions) (driver.Tx, error) {
	if c.open {
		return nil, &mysql.MySQLError{Number: 1568, Message: "Transaction characteristics can't be changed while a transaction is in progress"}
	}
	c.open = true // also where the answer is an error: nobody knows
	return scriptedTx{c}, c.hear(ctx, "START TRANSACTION")
}

func (c *scriptedConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), c.hear(ctx, query)
}

func (c *scriptedConn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if err := c.hear(ctx, query); err != nil {
		return nil, err
	}
	answer := map[string]string{}
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	switch {
	case strings.HasPrefix(query, "SHOW GLOBAL VARIABLES"):
		answer["wsrep_on"] = "ON"
	case c.server.apart:
		answer["wsrep_ready"], answer["wsrep_cluster_status"] = "OFF", "non-Primary"
	default:
		answer["wsrep_ready"], answer["wsrep_cluster_status"] = "ON", "Primary"
	}
	rows := &scriptedRows{}
	for name, value := range answer {
		rows.left = append(rows.left, [2]string{name, value})
	}
	return rows, nil
}

func (c *scriptedConn) Close() error                             { return nil }
func (c *scriptedConn) IsValid() bool                            { return !c.closed }
func (c *scriptedConn) ResetSession(context.Context) error       { return nil }
func (c *scriptedConn) Ping(ctx context.Context) error           { return c.hear(ctx, "PING") }
func (c *scriptedConn) CheckNamedValue(*driver.NamedValue) error { return nil }
func (c *scriptedConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *scriptedConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }

func (c *scriptedConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return nil, errors.ErrUnsupported
}

type scriptedTx struct{ conn *scriptedConn }

func (t scriptedTx) Commit() error   { return t.conn.hear(context.Background(), "COMMIT") }
func (t scriptedTx) Rollback() error { return t.conn.hear(context.Background(), "ROLLBACK") }

type scriptedRows struct{ left [][2]string }

func (r *scriptedRows) Columns() []string { return []string{"Variable_name", "Value"} }
func (r *scriptedRows) Close() error      { return nil }

func (r *scriptedRows) Next(dest []driver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	dest[0], dest[1] = []byte(r.left[0][0]), []byte(r.left[0][1])
	r.left = r.left[1:]
	return nil
}

// onScripted runs a test in virtual time, with a store on two servers.
func onScripted(t *testing.T, test func(t *testing.T, s *store.Store, first, second *scripted)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var first, second scripted
		s := store.OnServers(true, &first, &second)
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		test(t, s, &first, &second)
	})
}

// touch writes something within a time.
func touch(t *testing.T, s *store.Store, within time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return s.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE pool")
		return err
	})
}

// idle leaves so many idle sessions.
func idle(t *testing.T, s *store.Store, n int) {
	t.Helper()
	if n == 0 {
		return
	}
	err := s.Write(t.Context(), func(*sql.Tx) error {
		idle(t, s, n-1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNodeOutOfItsClusterIsLeft: it goes on answering, on all its sessions, that it is
// not ready.
func TestNodeOutOfItsClusterIsLeft(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
		idle(t, s, 10)
		first.leave(true)
		if err := touch(t, s, time.Second); err != nil {
			t.Fatal(err)
		}
		second.leave(true)
		if err := touch(t, s, time.Second); !errors.Is(err, member.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want ErrUnavailable in one line", err)
		}
		second.leave(false)
		if err := touch(t, s, time.Second); err != nil {
			t.Error(err)
		}
		first.leave(false)
		if err := touch(t, s, time.Second); err != nil || second.commits() != 3 {
			t.Errorf("%v; %d commits on the other node, want 3: it works", err, second.commits())
		}
	})
}

// TestSessionsWithAnOpenTransactionEnd: whoever got such a session next could begin
// nothing, and would not see what others commit.
func TestSessionsWithAnOpenTransactionEnd(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*scripted){
		"a rollback refused by a node out of its cluster": func(s *scripted) { s.leave(true) },
		"a rollback interrupted":                          func(s *scripted) { s.refuse("ROLLBACK") },
	} {
		t.Run(name, func(t *testing.T) {
			onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
				second.leave(true)
				err := s.Write(t.Context(), func(*sql.Tx) error {
					spoil(first)
					return member.ErrStale
				})
				if !errors.Is(err, member.ErrStale) {
					t.Fatal(err)
				}
				first.leave(false)
				if err := touch(t, s, time.Second); err != nil || first.commits() != 1 {
					t.Error(err)
				}
			})
		})
	}
	t.Run("a beginning interrupted", func(t *testing.T) {
		onScripted(t, func(t *testing.T, s *store.Store, first, _ *scripted) {
			first.refuse("START TRANSACTION")
			if err := touch(t, s, time.Second); !errors.Is(err, member.ErrUnavailable) {
				t.Fatalf("%v, want ErrUnavailable", err)
			}
			first.refuse("")
			if err := touch(t, s, time.Second); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestUnansweredRollbackEndsSoon: nobody who waits has a deadline for it.
func TestUnansweredRollbackEndsSoon(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, _ *scripted) {
		first.silence("ROLLBACK")
		begin := time.Now()
		err := s.Write(t.Context(), func(*sql.Tx) error { return member.ErrStale })
		if took := time.Since(begin); !errors.Is(err, member.ErrStale) || took > time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// TestSilentServerIsLeft: it may still accept connections, and even answer what does
// not touch its disk.
func TestSilentServerIsLeft(t *testing.T) {
	t.Parallel()
	for name, mute := range map[string][]string{
		"stopped":                  {""},
		"a cluster that is torn":   {"START TRANSACTION", "COMMIT"},
		"a disk that hangs":        {"COMMIT"},
		"stopped, without session": {"CONNECT"},
	} {
		t.Run(name, func(t *testing.T) {
			onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
				if mute[0] != "CONNECT" {
					idle(t, s, 3)
				}
				before := first.commits()
				first.silence(mute...)
				if err := touch(t, s, time.Second); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("%v, want DeadlineExceeded", err)
				}
				if err := touch(t, s, time.Second); err != nil || second.commits() != 1 || first.commits() != before {
					t.Errorf("%v; %d commits on the other server, want 1", err, second.commits())
				}
			})
		})
	}
}

// TestSilenceEndsWhatIsUnderWay: a change whose caller would wait longer is made
// through the other server.
func TestSilenceEndsWhatIsUnderWay(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
		idle(t, s, 2)
		first.silence("COMMIT")
		begin := time.Now()
		done := make(chan error)
		go func() { done <- touch(t, s, 10*time.Second) }()
		if err := touch(t, s, 2*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		err := <-done
		if took := time.Since(begin); err != nil || took > 3*time.Second || second.commits() != 1 {
			t.Errorf("%v after %v, and %d commits on the other server", err, took, second.commits())
		}
	})
}

// TestMigrationsAreNotLeft: a change of the schema takes as long as it takes, and
// holds up others meanwhile.
func TestMigrationsAreNotLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var first, second scripted
		s := store.OnServers(false, &first, &second)
		idle(t, s, 2)
		first.silence("ALTER", "COMMIT")
		done := make(chan error)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		go func() { done <- s.Exec(ctx, "ALTER TABLE pool") }()
		if err := touch(t, s, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		if err := <-done; time.Since(begin) < time.Minute {
			t.Errorf("the migration ended after %v: %v", time.Since(begin), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestServerIsKept where what happens says nothing about it: somebody else has the row,
// or the caller cannot wait, which says nothing about the other sessions either.
func TestServerIsKept(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mute   string
		within time.Duration
		idle   int
		// sessions are those that are opened in all.
		sessions int
	}{
		"a lock":                          {"UPDATE", 2 * time.Second, 2, 3},
		"a short deadline":                {"COMMIT", 300 * time.Millisecond, 2, 2},
		"a short deadline for connecting": {"CONNECT", 300 * time.Millisecond, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
				idle(t, s, c.idle)
				first.silence(c.mute)
				if err := touch(t, s, c.within); !errors.Is(err, context.DeadlineExceeded) || strings.Count(err.Error(), "connect to") > 1 {
					t.Fatalf("%v, want DeadlineExceeded, and at most one server that was tried", err)
				}
				first.silence()
				if err := touch(t, s, time.Second); err != nil || second.connections() != 0 || first.connections() != c.sessions {
					t.Errorf("%v; %d and %d sessions, want %d and none", err, first.connections(), second.connections(), c.sessions)
				}
			})
		})
	}
}
