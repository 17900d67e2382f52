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

// source is where rows come from: how many there are, and what makes each.
type source struct {
	count int
	row   func(i int) ([]any, error)
}

// made are rows that are there.
func made(all ...[]any) source {
	return source{len(all), func(i int) ([]any, error) { return all[i], nil }}
}

// write writes whole rows. While the database works on some, the next ones are made.
// Where there are many, the database parses the statement once: that is a good part
// of what a row costs it.
func (x tx) write(ctx context.Context, t table, s source) (err error) {
	var whole *sql.Stmt
	if s.count >= prepareFrom {
		if whole, err = x.PrepareContext(ctx, t.insert(x.dialect, batch)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, whole.Close()) }()
	}
	next := make(chan part, 1)
	p := s.part(0)
	for at := 0; p.rows > 0; {
		at += p.rows
		go func() { next <- s.part(at) }()
		if whole != nil && p.rows == batch {
			_, err = whole.ExecContext(ctx, p.args...)
		} else {
			_, err = x.touch(ctx, t.insert(x.dialect, p.rows), p.args...)
		}
		p = <-next
		if err != nil {
			return err
		}
	}
	return p.err
}

// part is what goes into one statement: no rows after the last one, or with an error.
type part struct {
	rows int
	args []any
	err  error
}

// part makes as many of the rows from first on as go into one statement, and at least
// one.
func (s source) part(first int) (p part) {
	size := 0
	for i := first; i < s.count && p.rows < batch; i++ {
		row, err := s.row(i)
		if err != nil {
			return part{err: err}
		}
		for _, v := range row {
			if text, ok := v.(string); ok {
				size += len(text)
			}
		}
		if p.rows > 0 && size > batchBytes {
			break // it will be made once more
		}
		if p.args == nil {
			p.args = make([]any, 0, min(batch, s.count-first)*len(row))
		}
		p.args = append(p.args, row...)
		p.rows++
	}
	return p
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
