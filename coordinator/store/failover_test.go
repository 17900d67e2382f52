package store_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

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

// TestFormerNodeIsUsed: it shares nothing, and has nobody to share with.
func TestFormerNodeIsUsed(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, _ *scripted) {
		first.former = true
		if err := touch(t, s, time.Second); err != nil || first.commits() != 1 {
			t.Error(err)
		}
	})
}

// TestFullServerIsLeft: one write fails, and the next finds room on another server.
// Where none has any, the sessions stay, for what needs none; a minute later there may
// be some.
func TestFullServerIsLeft(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
		idle(t, s, 3)
		before := first.commits()
		first.fill()
		fails := func() {
			t.Helper()
			if err := touch(t, s, time.Second); !errors.Is(err, member.ErrUnavailable) {
				t.Fatalf("%v, want ErrUnavailable", err)
			}
		}
		fails()
		if err := touch(t, s, time.Second); err != nil || second.commits() != 1 || first.commits() != before {
			t.Errorf("%v; %d commits on the other server, want 1", err, second.commits())
		}
		second.fill()
		idle(t, s, 3)
		sessions := first.connections() + second.connections()
		for range 10 {
			fails()
		}
		if n := first.connections() + second.connections() - sessions; n != 0 {
			t.Errorf("%d sessions were begun on full servers", n)
		}
		time.Sleep(time.Minute)
		fails()
		fails()
		if first.connections()+second.connections() == sessions {
			t.Error("the other server was not tried again")
		}
	})
}

// TestNodeOfPerconaIsUsed while it is in its cluster: it tells of wsrep_on only what is so
// in a session.
func TestNodeOfPerconaIsUsed(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
		first.percona = true
		if err := touch(t, s, time.Second); err != nil || first.commits() != 1 {
			t.Errorf("%v, %d commits", err, first.commits())
		}
		first.leave(true)
		if err := touch(t, s, time.Second); err != nil || second.commits() != 1 {
			t.Errorf("out of its cluster: %v, %d commits on the other one", err, second.commits())
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
				if err := touch(t, s, time.Second); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "server 0: ") {
					t.Fatalf("%v, want DeadlineExceeded, and whose it is", err)
				}
				if err := touch(t, s, time.Second); err != nil || second.commits() != 1 || first.commits() != before {
					t.Errorf("%v; %d commits on the other server, want 1", err, second.commits())
				}
			})
		})
	}
}

// TestSilenceEndsWhatIsUnderWay: a change whose caller would wait longer is made
// through the other server, whoever notices: a session, or somebody who gets none.
func TestSilenceEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		idle int
		// mute is what it does not answer from then on, when a COMMIT hangs already.
		mute []string
		// others are the times of those who ask next, one after the other.
		others []time.Duration
	}{
		"to a session":                          {2, nil, []time.Duration{2 * time.Second}},
		"to whoever connects":                   {1, []string{""}, []time.Duration{2 * time.Second}},
		"to whoever connects, with little time": {1, []string{""}, []time.Duration{time.Second}},
		"to whoever connects, after a lock":     {2, []string{"UPDATE", "CONNECT"}, []time.Duration{time.Second, time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
				idle(t, s, c.idle)
				first.silence("COMMIT")
				begin := time.Now()
				done := make(chan error)
				go func() { done <- touch(t, s, 10*time.Second) }()
				synctest.Wait()
				first.silence(append(c.mute, "COMMIT")...)
				for _, within := range c.others {
					_ = touch(t, s, within)
				}
				err := <-done
				if took := time.Since(begin); err != nil || took > 3*time.Second || second.commits() == 0 {
					t.Errorf("%v after %v, and %d commits on the other server", err, took, second.commits())
				}
			})
		})
	}
}

// TestSessionsOutliveTheResolver: a name that nobody can look up says nothing about the
// server.
func TestSessionsOutliveTheResolver(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
		idle(t, s, 1)
		first.silence("COMMIT")
		first.loseName()
		done := make(chan error)
		go func() { done <- touch(t, s, 10*time.Second) }()
		synctest.Wait()
		second.leave(true)
		if err := touch(t, s, 5*time.Second); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("%v, want ErrUnavailable", err)
		}
		if err := <-done; !errors.Is(err, store.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "commit: ") {
			t.Errorf("%v, want that of the COMMIT, at its end", err)
		}
	})
}

// TestEachServerIsTriedOnce also when others connect at the same time: else one that is
// stopped takes all the time, and none is left for those that are well.
func TestEachServerIsTriedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var servers [3]scripted
		s := store.OnServers(true, &servers[0], &servers[1], &servers[2])
		servers[0].silence("CONNECT")
		servers[1].leave(true)
		servers[2].leave(true)
		all := make(chan error)
		for range 3 {
			go func() { all <- touch(t, s, 1600*time.Millisecond) }()
		}
		for range 3 {
			if err := <-all; err == nil || strings.Count(err.Error(), "deadline exceeded") > 1 {
				t.Errorf("%v, want what each server said, once", err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestOnlyServerIsWaitedFor as long as the caller waits: what hangs is in doubt, and
// could be made nowhere else.
func TestOnlyServerIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var only scripted
		s := store.OnServers(true, &only)
		idle(t, s, 2)
		only.silence("COMMIT")
		begin := time.Now()
		done := make(chan error)
		go func() { done <- touch(t, s, 10*time.Second) }()
		if err := touch(t, s, 2*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want DeadlineExceeded", err)
		}
		only.silence()
		if err := touch(t, s, time.Second); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) < 10*time.Second {
			t.Errorf("%v after %v, want DeadlineExceeded after 10 s", err, time.Since(begin))
		}
		if err := s.Close(); err != nil {
			t.Error(err)
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

// TestSessionsOutliveAFullServer: that nobody else gets in says nothing about those who
// are.
func TestSessionsOutliveAFullServer(t *testing.T) {
	onScripted(t, func(t *testing.T, s *store.Store, first, second *scripted) {
		second.leave(true)
		idle(t, s, 2)
		first.refuse("CONNECT")
		err := s.Write(t.Context(), func(tx *sql.Tx) error {
			idle(t, s, 1)
			if err := s.Write(t.Context(), func(*sql.Tx) error { return touch(t, s, time.Second) }); !errors.Is(err, member.ErrUnavailable) {
				t.Errorf("a third session: %v, want ErrUnavailable", err)
			}
			_, err := tx.ExecContext(t.Context(), "UPDATE pool")
			return err
		})
		if err == nil {
			err = touch(t, s, time.Second)
		}
		if err != nil || first.connections() != 2 {
			t.Errorf("%v, %d sessions", err, first.connections())
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
