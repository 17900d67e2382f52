// Package sql holds the schema of the durable table, in two dialects, as
// numbered migrations that are compiled in. Each migration can be applied again
// after it was cut short: MySQL commits every DDL statement by itself, so there
// a migration is one statement. Both dialects number their migrations alike.
//
// mysql/schema.sql and sqlite/schema.sql show what all migrations amount to.
package sql

import (
	"embed"
	"fmt"
	"io/fs"
)

//go:embed mysql/0*.sql sqlite/0*.sql
var migrations embed.FS

// Migrations returns the migrations of a dialect, "mysql" or "sqlite", at the
// root of a file system, as goose reads them.
func Migrations(dialect string) (fs.FS, error) {
	if _, err := fs.Stat(migrations, dialect); err != nil {
		return nil, fmt.Errorf("find migrations: %w", err)
	}
	return fs.Sub(migrations, dialect)
}
