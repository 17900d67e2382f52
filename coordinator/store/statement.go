package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
)

// batch is how many rows go into one statement, and batchBytes about how many
// bytes of text: a server takes packets of 16 MiB by default, and escaping can
// double a text. From prepareFrom rows on the statement is worth being prepared.
const (
	batch       = 200
	batchBytes  = 1 << 20
	prepareFrom = 2 * batch
)

// tx is an open transaction with the statements that several methods use.
type tx struct {
	*sql.Tx
	dialect *dialect
}

// touch runs a statement and returns how many rows it matched.
func (x tx) touch(ctx context.Context, statement string, args ...any) (int64, error) {
	r, err := x.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// each calls scan for every row of a query's result.
func (x tx) each(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) (err error) {
	rows, err := x.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// table is where rows are written.
type table struct {
	// columns are those of a row, in order. Rows with the same values in the
	// columns of key are overwritten; without a key they are errors.
	name, columns, key string
}

// write writes whole rows. Where there are many, the database parses the statement
// once: that is a good part of what a row costs it.
func (x tx) write(ctx context.Context, t table, rows [][]any) (err error) {
	var whole *sql.Stmt
	if len(rows) >= prepareFrom {
		if whole, err = x.PrepareContext(ctx, t.insert(x.dialect, batch)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, whole.Close()) }()
	}
	for len(rows) > 0 {
		n := fitting(rows)
		args := slices.Concat(rows[:n]...)
		if whole != nil && n == batch {
			_, err = whole.ExecContext(ctx, args...)
		} else {
			_, err = x.touch(ctx, t.insert(x.dialect, n), args...)
		}
		if err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// insert is the statement for n rows.
func (t table) insert(d *dialect, n int) string {
	row := "(" + list("?", ", ", strings.Count(t.columns, ",")+1) + ")"
	after := ""
	if t.key != "" {
		after = d.conflict(strings.Split(t.key, ", "), strings.Split(t.columns, ", "))
	}
	return "INSERT INTO " + t.name + " (" + t.columns + ") VALUES " + list(row, ", ", n) + after
}

// fitting returns how many of the rows go into one statement: at least one.
func fitting(rows [][]any) int {
	size := 0
	for n, row := range rows {
		for _, v := range row {
			if s, ok := v.(string); ok {
				size += len(s)
			}
		}
		if n > 0 && (n == batch || size > batchBytes) {
			return n
		}
	}
	return len(rows)
}

// deleteIDs runs a statement that ends in "pool = ? AND … IN" for all ids.
func (x tx) deleteIDs(ctx context.Context, statement string, pool member.Pool, ids []string) error {
	for part := range slices.Chunk(ids, batch) {
		args := []any{pool}
		for _, id := range part {
			args = append(args, id)
		}
		if _, err := x.touch(ctx, statement+" ("+list("?", ", ", len(part))+")", args...); err != nil {
			return err
		}
	}
	return nil
}

// list repeats item n times.
func list(item, separator string, n int) string {
	return strings.TrimSuffix(strings.Repeat(item+separator, n), separator)
}
