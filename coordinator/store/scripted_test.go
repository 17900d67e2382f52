package store_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
)

// scripted is a server in memory, a node of a Galera cluster.
type scripted struct {
	mu sync.Mutex
	// apart says that it is out of its cluster.
	apart bool
	// mute are the beginnings of statements that it does not answer; that of a
	// connection is "CONNECT".
	mute []string
	// full says that it has no room for what is written.
	full bool
	// former says that it was a node once, and has kept the settings.
	former bool
	// percona says that wsrep_on is not global.
	percona bool
	// nameless says that nobody answers who looks up its name.
	nameless bool
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

func (s *scripted) fill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = true
}

func (s *scripted) loseName() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nameless = true
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
	if s.full && strings.HasPrefix(statement, "UPDATE") {
		return &mysql.MySQLError{Number: 1114, Message: "The table 'event' is full"}
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
	s.mu.Lock()
	nameless := s.nameless
	s.mu.Unlock()
	if nameless {
		<-ctx.Done()
		return nil, &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
	}
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
	case strings.Contains(query, "VARIABLES") && c.server.former:
		answer["wsrep_on"], answer["wsrep_provider"] = "OFF", "/usr/lib/galera/libgalera_smm.so"
	case strings.HasPrefix(query, "SHOW GLOBAL VARIABLES") && c.server.percona:
		answer["wsrep_provider"] = "/usr/lib/galera4/libgalera_smm.so"
	case c.server.former:
		answer["wsrep_ready"], answer["wsrep_connected"], answer["wsrep_cluster_status"] = "OFF", "OFF", "Disconnected"
	case strings.Contains(query, "VARIABLES"):
		answer["wsrep_on"], answer["wsrep_provider"] = "ON", "/usr/lib/galera/libgalera_smm.so"
	case c.server.apart:
		answer["wsrep_ready"], answer["wsrep_cluster_status"] = "OFF", "non-Primary"
	default:
		answer["wsrep_ready"], answer["wsrep_connected"], answer["wsrep_cluster_status"] = "ON", "ON", "Primary"
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
