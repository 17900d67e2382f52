package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"
)

// errLeft: the statement waited for a server that is not used any more.
var errLeft = errors.New("the server has not answered another session and is left")

// session is a connection whose trouble is held against all others to the same
// server: each of them would cost its user a time-out too.
type session struct {
	mysqlConn

	failover *failover
	server   *dbServer
	// standing is the server's when the session began.
	standing *standing
	// committed is whether the present transaction has been, by a statement.
	committed bool
	// spoiled says that the session may have a transaction open that nobody knows of.
	spoiled bool
}

// transaction is one whose COMMIT is a statement.
type transaction struct {
	driver.Tx

	session *session
}

// Rollback implements driver.Tx. It spares the rollback that database/sql sends
// after a COMMIT, and waits for no other one longer than it may: database/sql gives it
// no deadline. A Galera node that has left its cluster refuses a ROLLBACK too: the
// session that was refused still has its transaction, and is not used again.
func (t transaction) Rollback() error {
	if t.session.committed {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := t.session.ExecContext(ctx, "ROLLBACK", nil)
	t.session.spoiled = t.session.spoiled || err != nil
	return err
}

// BeginTx implements driver.ConnBeginTx.
func (s *session) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	var t driver.Tx
	err := s.ask(ctx, blocksNever, func(ctx context.Context) (err error) {
		t, err = s.mysqlConn.BeginTx(ctx, opts)
		return err
	})
	if err != nil {
		s.spoiled = true
		return nil, err
	}
	s.committed = false
	return transaction{t, s}, nil
}

// ExecContext implements driver.ExecerContext.
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	blocks := blocksOnLocks
	if query == statementCommit {
		blocks = blocksNever
	}
	var r driver.Result
	err := s.ask(ctx, blocks, func(ctx context.Context) (err error) {
		r, err = s.mysqlConn.ExecContext(ctx, query, args)
		return err
	})
	if query == statementCommit && err == nil {
		s.committed = true
	}
	return r, err
}

// QueryContext implements driver.QueryerContext. Its context lives on in the rows.
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	asked := time.Now()
	r, err := s.mysqlConn.QueryContext(ctx, query, args)
	s.listen(asked, blocksNever, err)
	return r, s.named(err)
}

// named has a caller whose time is over know of which server it was.
func (s *session) named(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("at %s: %w", s.server.host.address, err)
}

// blocks says whether a well server may leave a statement without an answer.
type blocks bool

const (
	blocksNever blocks = false
	// blocksOnLocks: somebody else may have the row.
	blocksOnLocks blocks = true
)

// ask waits for a statement until its server is left: what hangs here would hang until
// its own deadline, and what it has locked with it. What changes a schema is left to its
// own time.
func (s *session) ask(ctx context.Context, b blocks, statement func(context.Context) error) error {
	asked, within := time.Now(), ctx
	if s.failover.limited {
		var cancel context.CancelFunc
		within, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.standing.left, cancel)() //nolint:contextcheck // a standing is nobody's call
	}
	err := statement(within)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return errLeft
	}
	s.listen(asked, b, err)
	return s.named(err)
}

// listen takes how a statement ended that was sent at a time. A caller's deadline
// is a network error too, and comes first. A server that is silent is left, for it may
// be so to statements only, and still let others connect; so is one without room, for
// another one of its cluster may have some. One whose connection has
// broken is asked again, and so is one that may have waited for a lock: on another node
// the lock would not be seen, and whoever has it would fail.
func (s *session) listen(asked time.Time, b blocks, err error) {
	var network net.Error
	late := time.Since(asked) >= patience
	switch {
	case err == nil, errors.Is(err, context.Canceled):
	case mysqlNumber(err) == notReady:
		s.failover.leave(s.server, s.standing)
	case isFull(err):
		s.failover.leaveFull(s.server, s.standing, asked)
	case isRefusal(err):
		// MariaDB looks up the rights to a database when a session begins, and goes on
		// refusing to it what was granted since.
		s.server.renew(s.standing)
	case errors.Is(err, context.DeadlineExceeded) && !late:
	case errors.Is(err, mysql.ErrInvalidConn), errors.As(err, &network):
		if late && b == blocksNever {
			s.failover.leave(s.server, s.standing)
		} else {
			s.server.renew(s.standing)
		}
	}
}

// ResetSession implements driver.SessionResetter: it ends a session of an earlier
// standing before its next use.
func (s *session) ResetSession(ctx context.Context) error {
	if s.server.standing.Load() != s.standing {
		return driver.ErrBadConn
	}
	return s.mysqlConn.ResetSession(ctx)
}

// IsValid implements driver.Validator.
func (s *session) IsValid() bool { return !s.spoiled && s.mysqlConn.IsValid() }
