package store

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Settings of MySQL connections. mysqlRead is longer than the server's own
// limits in session.go, so that the server's answer is heard. mysqlIdle is
// shorter than idleSession, so that the pool and not the server ends a session.
const (
	mysqlDial     = 3 * time.Second
	mysqlRead     = 10 * time.Second
	mysqlWrite    = 5 * time.Second
	mysqlPool     = 16
	mysqlLifetime = 3 * time.Minute
	mysqlIdle     = 2 * time.Second
)

func mysqlDialect() *dialect {
	return &dialect{
		kind:  KindMySQL,
		goose: goose.DialectMySQL,
		locker: func() (lock.Locker, error) {
			return lock.NewMySQLTableLocker(lock.WithTableLockTimeout(500*time.Millisecond, 600))
		},
		hasTable: "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
		conflict: func(keys, columns []string) string {
			return " ON DUPLICATE KEY UPDATE " +
				assignments(keys, columns, func(c string) string { return "VALUES(" + c + ")" })
		},
		classify:  classifyMySQL,
		denied:    deniedByMySQL,
		duplicate: func(err error) bool { return mysqlNumber(err) == 1062 },
		commit:    commitMySQL,
	}
}

// mysqlHosts makes what connects to the servers of t, without connecting.
// Statements that take longer than readTimeout break their connection; 0 is no
// limit.
func mysqlHosts(t target, cfg Config, readTimeout time.Duration) (*failover, error) {
	var servers []*dbServer
	for _, h := range t.hosts {
		c, err := mysqlConnector(t, h, cfg, readTimeout)
		if err != nil {
			return nil, err
		}
		servers = append(servers, &dbServer{host: h, connector: c})
	}
	return newFailover(servers, readTimeout > 0, cfg.logger()), nil
}

// openMySQL makes a pool of connections, without opening one.
func openMySQL(f *failover) *sql.DB {
	db := sql.OpenDB(f)
	db.SetMaxOpenConns(mysqlPool)
	db.SetMaxIdleConns(mysqlPool)
	db.SetConnMaxLifetime(mysqlLifetime)
	db.SetConnMaxIdleTime(mysqlIdle)
	return db
}

func mysqlConnector(t target, h host, cfg Config, readTimeout time.Duration) (driver.Connector, error) {
	c := mysql.NewConfig()
	c.User, c.DBName, c.Net, c.Addr = t.user, t.database, h.network, h.address
	c.Loc, c.ParseTime, c.InterpolateParams = time.UTC, true, true
	c.Timeout, c.ReadTimeout, c.WriteTimeout = mysqlDial, readTimeout, mysqlWrite
	// A fence that matches a row must count it, and a primary that has become
	// read-only must be left.
	c.ClientFoundRows, c.RejectReadOnly = true, true
	c.ConnectionAttributes = "program_name:buddyring-coordinator"
	c.Logger = driverLog{cfg.logger()}
	c.Params = map[string]string{
		"autocommit":               "1",
		"time_zone":                "'+00:00'",
		"sql_mode":                 "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
		"innodb_lock_wait_timeout": seconds(lockWait),
	}
	if h.network == "tcp" {
		c.TLS = tlsFor(cfg.TLS)
	}
	if err := c.Apply(mysql.Charset("utf8mb4", ""), mysql.BeforeConnect(passwordFrom(cfg.PasswordFile))); err != nil {
		return nil, fmt.Errorf("configure mysql: %w", err)
	}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("configure mysql: %w", err)
	}
	return connector, nil
}

// tlsFor returns a copy, because the driver writes the host's name into it.
func tlsFor(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	return c.Clone()
}

// passwordFrom reads the password anew for every connection, so that it can be
// changed without a restart.
func passwordFrom(file string) func(context.Context, *mysql.Config) error {
	return func(_ context.Context, c *mysql.Config) error {
		if file == "" {
			return nil
		}
		password, err := readPassword(file)
		if err != nil {
			return err
		}
		c.Passwd = password
		return nil
	}
}

// readPassword returns the content of file without its final line break.
func readPassword(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read password: %w", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// classifyMySQL takes every trouble with the connection as passing. The numbers
// are those of servers that were asked at a bad moment: 1213 deadlock or failed
// certification, 1205 lock wait, 1047 and 1180 a Galera node out of its
// cluster, 1020 a row that has moved on, 1053 and 1927 shutting down, 1040 full,
// 1290, 1792 and 1836 read-only.
func classifyMySQL(err error) class {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, mysql.ErrMalformPkt) ||
		errors.Is(err, mysql.ErrPktSync) || errors.Is(err, mysql.ErrBusyBuffer) || errors.Is(err, errReadOnly) ||
		errors.Is(err, errNotPrimary) || errors.Is(err, errUnshared) || errors.Is(err, errLeft) {
		return passing
	}
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if !ok {
		if _, connecting := errors.AsType[*connectError](err); connecting {
			return lasting
		}
		return fatal
	}
	switch e.Number {
	case 1213, 1205, notReady, 1180, 1020, 1053, 1927, 1040, 1290, 1792, 1836:
		return passing
	case 1044, 1045, unknownDatabase, 1142, 1143, 1227:
		// No right to it, or no such database: class 42 like a defect, but up to
		// the operator.
		return lasting
	case 3819:
		return fatal // a CHECK, to which MySQL gives no class
	}
	switch string(e.SQLState[:2]) {
	case "21", "22", "23", "42":
		return fatal
	}
	return lasting
}

// commitMySQL sends COMMIT as a statement, because the driver's own Commit does
// not watch a context and hangs as long as the database does. The session spares
// the rollback that database/sql sends later.
func commitMySQL(ctx context.Context, tx *sql.Tx) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, statementCommit)
	if err == nil || mysqlNumber(err) == 1213 {
		return err // a failed certification has rolled back
	}
	return &commitError{err}
}

const statementCommit = "COMMIT"

// notReady is what a Galera node out of its cluster answers to every statement but SET
// and SHOW.
const notReady = 1047

// isFull is whether a server has no room for what it was to write: on its disk, or in a
// table, which is what InnoDB calls a full disk.
func isFull(err error) bool {
	number := mysqlNumber(err)
	return number == 1021 || number == 1114
}

func mysqlNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

// driverLog takes what the driver says beside its errors.
type driverLog struct{ log *slog.Logger }

// Print implements mysql.Logger.
func (l driverLog) Print(v ...any) { l.log.Debug("mysql driver", "text", fmt.Sprint(v...)) }
