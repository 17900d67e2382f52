package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
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

// fullFor is how long a server that has said that it has no room counts as full.
const fullFor = time.Minute

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
	// next is the server to try first. It moves on when a server cannot be connected to
	// or is left, so that a caller with a short deadline gets past a server that swallows
	// packets.
	next atomic.Uint64
	// used is the server of the newest session, for the log.
	used atomic.Pointer[dbServer]
}

func newFailover(servers []*dbServer, limited bool, log *slog.Logger) *failover {
	for _, s := range servers {
		s.standing.Store(newStanding())
	}
	return &failover{servers: servers, limited: limited, log: log}
}

// dbServer is one of the servers.
type dbServer struct {
	host      host
	connector driver.Connector
	// standing is that of its sessions. One with an earlier standing is not used again.
	standing atomic.Pointer[standing]
	// full is when it has said last that it has no room; nil for never.
	full atomic.Pointer[time.Time]
	// warned is whether its unsafe settings have been logged.
	warned atomic.Bool
}

// standing is the time in which nothing speaks against the sessions of a server.
type standing struct {
	// left ends when another server is used instead.
	left  context.Context //nolint:containedctx // it is nobody's call
	leave context.CancelFunc
}

func newStanding() *standing {
	s := &standing{}
	s.left, s.leave = context.WithCancel(context.Background())
	return s
}

// renew ends a standing, if it is the present one: the server may go on with new
// sessions. What waits for it is given up no sooner than what begins with those.
func (s *dbServer) renew(of *standing) {
	s.standing.CompareAndSwap(of, &standing{left: of.left, leave: of.leave})
}

// leave ends a standing, if it is the present one: the next server is used, and what
// waits for this one is given up.
func (f *failover) leave(s *dbServer, of *standing) {
	if len(f.servers) == 1 {
		s.renew(of)
		return
	}
	if !s.standing.CompareAndSwap(of, newStanding()) {
		return
	}
	if at := f.next.Load(); f.server(at) == s {
		f.next.CompareAndSwap(at, at+1)
	}
	of.leave()
}

// leaveFull leaves a server without room, unless all are: then they go on refusing what
// needs some, and what needs none is not disturbed.
func (f *failover) leaveFull(s *dbServer, of *standing, now time.Time) {
	s.full.Store(&now)
	if slices.ContainsFunc(f.servers, func(s *dbServer) bool {
		at := s.full.Load()
		return at == nil || now.Sub(*at) >= fullFor
	}) {
		f.leave(s, of)
	}
}

// Connect implements driver.Connector. It tries each server once, wherever others that
// connect at the same time have come to.
func (f *failover) Connect(ctx context.Context) (driver.Conn, error) {
	var errs []error
	tried := make(map[*dbServer]bool, len(f.servers))
	for range f.servers {
		at, asked := f.next.Load(), time.Now()
		for tried[f.server(at)] {
			at++
		}
		s := f.server(at)
		tried[s] = true
		of := s.standing.Load()
		conn, err := f.session(ctx, s)
		if err == nil {
			f.note(ctx, s)
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", s.host.address, err))
		late := time.Since(asked) >= patience
		if late && isSilence(err) {
			f.leave(s, of)
		}
		if late || ctx.Err() == nil {
			f.next.CompareAndSwap(at, at+1)
		}
		if ctx.Err() != nil {
			break // no other server has had the time to answer
		}
	}
	return nil, &connectError{errs}
}

// note says where the sessions go now: nothing else tells an operator which of several
// servers it is.
func (f *failover) note(ctx context.Context, s *dbServer) {
	if before := f.used.Swap(s); before != nil && before != s {
		f.log.InfoContext(ctx, "another database server is used", "server", s.host.address, "before", before.host.address)
	}
}

func (f *failover) server(at uint64) *dbServer { return f.servers[at%uint64(len(f.servers))] }

// isSilence is whether a server has said nothing to who connects. One whose name nobody
// can look up may well be there for the sessions that it has.
func isSilence(err error) bool {
	var network net.Error
	var name *net.DNSError
	return errors.As(err, &network) && network.Timeout() && !errors.As(err, &name)
}

// connectError wraps why no server could be connected to: never a defect of
// ours, whatever it is.
type connectError struct {
	// causes are one for each server that was tried.
	causes []error
}

func (e *connectError) Error() string {
	texts := make([]string, len(e.causes))
	for i, cause := range e.causes {
		texts[i] = cause.Error()
	}
	return strings.Join(texts, "; ") // it is shown in one line
}

func (e *connectError) Unwrap() []error { return e.causes }

// session opens a session that can write.
func (f *failover) session(ctx context.Context, s *dbServer) (driver.Conn, error) {
	if len(f.servers) > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, handshake)
		defer cancel()
	}
	of := s.standing.Load()
	c, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.tune(ctx, s, c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &session{mysqlConn: c, failover: f, server: s, standing: of}, nil
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
