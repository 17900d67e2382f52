package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

// handshake bounds how long one of several servers may take until a session is
// ready. A stopped server accepts connections and says nothing.
const handshake = 1500 * time.Millisecond

// patience is how long a session may leave a statement without an answer before
// its server counts as silent. A caller's deadline that comes sooner says nothing
// about the server.
const patience = time.Second

// failover connects to the first of several servers that can be written to,
// and stays with it until it fails: writers of a Galera cluster should share a
// node. Safe for concurrent use.
type failover struct {
	servers []*dbServer
	// limited sessions end statements that take too long.
	limited bool
	log     *slog.Logger
	// checked is whether the start has looked at the settings of all servers.
	checked atomic.Bool
	// next is the server to try first. It moves on at every failure, so that a
	// caller with a short deadline gets past a server that swallows packets.
	next atomic.Uint64
}

// dbServer is one of the servers.
type dbServer struct {
	host      host
	connector driver.Connector
	// silences counts the sessions on which it fell silent. A session from before
	// the last one is not used again.
	silences atomic.Uint64
	// warned is whether its unsafe settings have been logged.
	warned atomic.Bool
}

// Connect implements driver.Connector.
func (f *failover) Connect(ctx context.Context) (driver.Conn, error) {
	var errs []error
	for range f.servers {
		at := f.next.Load()
		s := f.servers[at%uint64(len(f.servers))]
		conn, err := f.session(ctx, s)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", s.host.address, err))
		f.next.CompareAndSwap(at, at+1)
	}
	return nil, &connectError{errs}
}

// connectError wraps why no server could be connected to: never a defect of
// ours, whatever it is.
type connectError struct {
	// causes are one for each server that was tried.
	causes []error
}

func (e *connectError) Error() string { return errors.Join(e.causes...).Error() }

func (e *connectError) Unwrap() []error { return e.causes }

// session opens a session that can write.
func (f *failover) session(ctx context.Context, s *dbServer) (driver.Conn, error) {
	if len(f.servers) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshake)
		defer cancel()
	}
	silences := s.silences.Load()
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.tune(ctx, s, c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &session{mysqlConn: c, server: s, silences: silences}, nil
}

func (s *dbServer) connect(ctx context.Context) (mysqlConn, error) {
	conn, err := s.connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	c, ok := conn.(mysqlConn)
	if !ok {
		return nil, errors.Join(errors.New("the driver's connection lacks a method"), conn.Close())
	}
	return c, nil
}

// Driver implements driver.Connector.
func (f *failover) Driver() driver.Driver { return &mysql.MySQLDriver{} }

// mysqlConn is all that database/sql asks of a connection of the driver.
type mysqlConn interface { //nolint:interfacebloat // database/sql looks for each
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.NamedValueChecker
}

// session is a connection whose silence is held against all others to the same
// server: each of them would cost its user a time-out too.
type session struct {
	mysqlConn

	server *dbServer
	// silences is the server's count when the session began.
	silences uint64
	// committed is whether the present transaction has been, by a statement.
	committed bool
}

// transaction spares the rollback that database/sql sends after a COMMIT that was
// a statement: it would wait for the server without a deadline.
type transaction struct {
	driver.Tx

	session *session
}

// Rollback implements driver.Tx.
func (t transaction) Rollback() error {
	if t.session.committed {
		return nil
	}
	return t.Tx.Rollback()
}

// BeginTx implements driver.ConnBeginTx.
func (s *session) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	asked := time.Now()
	t, err := s.mysqlConn.BeginTx(ctx, opts)
	s.listen(asked, err)
	if err != nil {
		return nil, err
	}
	s.committed = false
	return transaction{t, s}, nil
}

// ExecContext implements driver.ExecerContext.
func (s *session) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	asked := time.Now()
	r, err := s.mysqlConn.ExecContext(ctx, query, args)
	s.listen(asked, err)
	if query == statementCommit && err == nil {
		s.committed = true
	}
	return r, err
}

// QueryContext implements driver.QueryerContext.
func (s *session) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	asked := time.Now()
	r, err := s.mysqlConn.QueryContext(ctx, query, args)
	s.listen(asked, err)
	return r, err
}

// listen takes how a statement ended that was sent at a time. A caller's deadline
// is a network error too, and comes first.
func (s *session) listen(asked time.Time, err error) {
	var network net.Error
	silent := errors.Is(err, mysql.ErrInvalidConn) || errors.As(err, &network)
	if errors.Is(err, context.DeadlineExceeded) {
		silent = time.Since(asked) >= patience
	}
	if silent {
		s.server.silences.Add(1)
	}
}

// ResetSession implements driver.SessionResetter: it ends a session to a server
// that has fallen silent before its next use.
func (s *session) ResetSession(ctx context.Context) error {
	if s.server.silences.Load() != s.silences {
		return driver.ErrBadConn
	}
	return s.mysqlConn.ResetSession(ctx)
}
