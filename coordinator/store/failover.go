package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

// handshake bounds how long one of several servers may take until a session is
// ready. A stopped server accepts connections and says nothing.
const handshake = 1500 * time.Millisecond

// patience is how long a server may take to answer before it counts as silent. A
// caller whose deadline comes sooner says nothing about the server. Whoever asks
// with a deadline of a second, as a standby does, must be able to tell.
const patience = 750 * time.Millisecond

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
	// present is whose turn it is. Sessions of an earlier turn are not used again.
	present atomic.Pointer[turn]
}

// turn is the time in which one server is used. It ends when the server fails, for
// whoever notices first, on behalf of all.
type turn struct {
	// at is the number of the server.
	at int
	// left ends when it is another server's turn.
	left  context.Context //nolint:containedctx // it is the life of a turn and of nobody's call
	leave context.CancelFunc
}

func newTurn(at int) *turn {
	t := &turn{at: at}
	t.left, t.leave = context.WithCancel(context.Background())
	return t
}

func newFailover(servers []*dbServer, limited bool, log *slog.Logger) *failover {
	f := &failover{servers: servers, limited: limited, log: log}
	f.present.Store(newTurn(0))
	return f
}

// next ends a turn, if it is the present one: it is the next server's.
func (f *failover) next(t *turn) { f.pass(t, (t.at+1)%len(f.servers)) }

// renew ends a turn, if it is the present one: the server may go on with new sessions.
func (f *failover) renew(t *turn) { f.pass(t, t.at) }

func (f *failover) pass(t *turn, to int) {
	if f.present.CompareAndSwap(t, newTurn(to)) && to != t.at {
		t.leave()
	}
}

// dbServer is one of the servers.
type dbServer struct {
	host      host
	connector driver.Connector
	// warned is whether its unsafe settings have been logged.
	warned atomic.Bool
}

// Connect implements driver.Connector.
func (f *failover) Connect(ctx context.Context) (driver.Conn, error) {
	var errs []error
	for range f.servers {
		t, asked := f.present.Load(), time.Now()
		s := f.servers[t.at]
		conn, err := f.session(ctx, t)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", s.host.address, err))
		if ctx.Err() == nil || time.Since(asked) >= patience {
			f.next(t)
		}
		if ctx.Err() != nil {
			break // no other server has had the time to answer
		}
	}
	return nil, &connectError{errs}
}

// connectError wraps why no server could be connected to: never a defect of
// ours, whatever it is.
type connectError struct{ causes []error }

func (e *connectError) Error() string {
	texts := make([]string, len(e.causes))
	for i, cause := range e.causes {
		texts[i] = cause.Error()
	}
	return strings.Join(texts, "; ") // it is shown in one line
}

func (e *connectError) Unwrap() []error { return e.causes }

// session opens a session that can write, to the server whose turn it is.
func (f *failover) session(ctx context.Context, t *turn) (driver.Conn, error) {
	if len(f.servers) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshake)
		defer cancel()
	}
	s := f.servers[t.at]
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.tune(ctx, s, c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &session{mysqlConn: c, failover: f, turn: t}, nil
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
