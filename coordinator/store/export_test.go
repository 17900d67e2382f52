package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"

	"github.com/buddyring/buddyring/internal/member"
)

// Exec runs a statement behind the store's back.
func (s *Store) Exec(ctx context.Context, statement string, args ...any) error {
	_, err := s.rw.ExecContext(ctx, statement, args...)
	return err
}

// Write runs f in the transaction that every writing method uses.
func (s *Store) Write(ctx context.Context, f func(*sql.Tx) error) error {
	return s.write(ctx, func(x tx) error { return f(x.Tx) })
}

// StayInDoubt is what Commit makes of the error of a change.
func (s *Store) StayInDoubt(pool member.Pool, changeID string, err error) error {
	return s.stayInDoubt(doubt{pool, changeID}, err)
}

// ParseURL parses a store URL and names the target.
func ParseURL(s string) (string, error) {
	t, err := parseURL(s)
	if err != nil {
		return "", err
	}
	return t.String(), nil
}

// ClassOf says in a word what the store does about an error of a database.
func ClassOf(ctx context.Context, kind string, err error) string {
	d := sqliteDialect()
	if kind == KindMySQL {
		d = mysqlDialect()
	}
	return map[class]string{fatal: "fatal", passing: "passing", lasting: "lasting"}[d.class(ctx, err)]
}

// Unmet returns the names of the settings that are unsafe among those of a server.
func Unmet(settings map[string]string) []string {
	var names []string
	for _, e := range unmet(settings) {
		names = append(names, e.Setting)
	}
	return names
}

// OnServers returns a store whose sessions are to the first of some servers that
// works, and are limited or not, as those of a migration are.
func OnServers(limited bool, connectors ...driver.Connector) *Store {
	var servers []*dbServer
	for i, c := range connectors {
		servers = append(servers, &dbServer{host: host{address: fmt.Sprintf("server %d", i)}, connector: c})
	}
	hosts := newFailover(servers, limited, slog.New(slog.DiscardHandler))
	db := openMySQL(hosts)
	return &Store{dialect: mysqlDialect(), rw: db, ro: db, hosts: hosts}
}

// NotConnected is what comes of the errors of all servers of a database.
func NotConnected(causes ...error) error { return &connectError{causes} }

// AtStart is what opening a MySQL database makes of an error.
func AtStart(err error, mode Migrate) error {
	return (&Store{dialect: mysqlDialect()}).atStart(err, mode)
}
