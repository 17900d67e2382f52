package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

func TestWritesAreRepeatedWhileTheErrorPasses(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	for _, test := range []struct {
		failures, attempts int
		err                error
	}{
		{0, 1, nil},
		{3, 4, nil},
		{100, 6, member.ErrUnavailable},
	} {
		attempts := 0
		err := s.Write(t.Context(), func(*sql.Tx) error {
			if attempts++; attempts <= test.failures {
				return fmt.Errorf("attempt %d: %w", attempts, driver.ErrBadConn)
			}
			return nil
		})
		if attempts != test.attempts || !errors.Is(err, test.err) {
			t.Errorf("%d failures: %d attempts and %v, want %d and %v", test.failures, attempts, err, test.attempts, test.err)
		}
		if test.err != nil && !errors.Is(err, driver.ErrBadConn) {
			t.Errorf("%v hides its cause", err)
		}
	}
}

// TestDoubtsOfPoolsAreApart: change ids count from 1 in every pool, so two pools
// can have changes of one id under way.
func TestDoubtsOfPoolsAreApart(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	const id = "1-1"
	for _, pool := range []member.Pool{"web", "db"} {
		err := s.StayInDoubt(pool, id, errors.Join(member.ErrUnavailable, store.ErrOutcomeUnknown))
		if !errors.Is(err, store.ErrOutcomeUnknown) {
			t.Fatal(err)
		}
	}
	if err := s.StayInDoubt("db", id, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.StayInDoubt("web", id, member.ErrUnavailable); !errors.Is(err, store.ErrOutcomeUnknown) {
		t.Errorf("%v: the doubt of web ended with that of db", err)
	}
	if err := s.StayInDoubt("db", id, member.ErrUnavailable); errors.Is(err, store.ErrOutcomeUnknown) {
		t.Errorf("%v: db is settled", err)
	}
}

func TestAnswersAreNotRepeated(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	for _, answer := range []error{member.ErrFenced, member.ErrStale, member.ErrNotFound, errors.New("a defect")} {
		attempts := 0
		err := s.Write(t.Context(), func(*sql.Tx) error {
			attempts++
			return answer
		})
		if attempts != 1 || !errors.Is(err, answer) || errors.Is(err, member.ErrUnavailable) {
			t.Errorf("%d attempts and %v, want 1 and %v", attempts, err, answer)
		}
	}
}

func TestRepetitionEndsWithTheContext(t *testing.T) {
	t.Parallel()
	s := openStore(t, freshURL(t))
	ctx, cancel := context.WithCancel(t.Context())
	attempts := 0
	err := s.Write(ctx, func(*sql.Tx) error {
		attempts++
		cancel()
		return driver.ErrBadConn
	})
	if attempts != 1 || !errors.Is(err, member.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("%d attempts and %v, want 1, ErrUnavailable and Canceled", attempts, err)
	}
}

func TestClassesOfMySQLErrors(t *testing.T) {
	t.Parallel()
	server := func(number uint16, state string) error {
		e := &mysql.MySQLError{Number: number}
		copy(e.SQLState[:], state)
		return fmt.Errorf("write: %w", e)
	}
	for class, list := range map[string][]error{
		"passing": {
			server(1213, "40001"), server(1205, "HY000"), server(1047, "08S01"), server(1180, "HY000"),
			server(1290, "HY000"), server(1836, "HY000"), server(1040, "08004"),
			mysql.ErrInvalidConn, driver.ErrBadConn, io.ErrUnexpectedEOF,
			&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, errors.Join(&net.OpError{Op: "read", Err: syscall.ECONNRESET}),
		},
		"lasting": {
			server(1045, "28000"), server(1142, "42000"), server(1021, "HY000"), server(1114, "HY000"),
			context.DeadlineExceeded,
		},
		"fatal": {
			server(1064, "42000"), server(1146, "42S02"), server(1062, "23000"), server(1406, "22001"), server(4025, "23000"),
			server(3819, "HY000"), member.ErrFenced, sql.ErrNoRows,
		},
	} {
		for _, err := range list {
			if got := store.ClassOf(t.Context(), store.KindMySQL, err); got != class {
				t.Errorf("%v (%T) is %s, want %s", err, err, got, class)
			}
		}
	}
}
