package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/go-sql-driver/mysql"
)

// failover connects to the first of several servers that can be written to,
// and stays with it until it fails: writers of a Galera cluster should share a
// node. Safe for concurrent use.
type failover struct {
	hosts      []host
	connectors []driver.Connector
	// next is the server to try first. It moves on at every failure, so that a
	// caller with a short deadline gets past a server that swallows packets.
	next atomic.Uint64
}

// Connect implements driver.Connector.
func (f *failover) Connect(ctx context.Context) (driver.Conn, error) {
	var errs []error
	for range f.connectors {
		at := f.next.Load()
		i := at % uint64(len(f.connectors))
		conn, err := f.connect(ctx, f.connectors[i])
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", f.hosts[i].address, err))
		f.next.CompareAndSwap(at, at+1)
	}
	return nil, &connectError{errors.Join(errs...)}
}

// connectError wraps why no server could be connected to: never a defect of
// ours, whatever it is.
type connectError struct{ cause error }

func (e *connectError) Error() string { return e.cause.Error() }

func (e *connectError) Unwrap() error { return e.cause }

func (f *failover) connect(ctx context.Context, c driver.Connector) (driver.Conn, error) {
	conn, err := c.Connect(ctx)
	if err != nil || len(f.connectors) == 1 {
		return conn, err
	}
	if err := checkWritable(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Driver implements driver.Connector.
func (f *failover) Driver() driver.Driver { return &mysql.MySQLDriver{} }

var errReadOnly = errors.New("the server is read-only")

// checkWritable passes by replicas, and Galera nodes that have lost their
// cluster: those refuse any query.
func checkWritable(ctx context.Context, conn driver.Conn) (err error) {
	q, ok := conn.(driver.QueryerContext)
	if !ok {
		return errors.New("the driver cannot query")
	}
	rows, err := q.QueryContext(ctx, "SELECT @@GLOBAL.read_only", nil)
	if err != nil {
		return fmt.Errorf("read read_only: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	value := make([]driver.Value, 1)
	if err := rows.Next(value); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read read_only: %w", err)
	}
	switch v := value[0].(type) {
	case []byte:
		ok = string(v) == "0" || string(v) == "OFF"
	case int64:
		ok = v == 0
	}
	if !ok {
		return errReadOnly
	}
	return nil
}
