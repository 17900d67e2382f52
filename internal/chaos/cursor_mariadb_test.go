//go:build mariadb

package chaos_test

import (
	"context"
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/testdb"
)

// numbering is a way to give changes their revisions, in a table with one row
// per change.
type numbering struct {
	// write writes a change within a transaction.
	write string
	// waits says that a change waits until the one before it is committed.
	waits bool
}

// TestRevisionsFromAutoIncrementAreRefused follows a table by two cursors while
// two transactions commit in another order than they began: one by
// AUTO_INCREMENT, as it would be easy, and one by a row that every change writes,
// as it is. The judge refuses the first, which has left a change out.
func TestRevisionsFromAutoIncrementAreRefused(t *testing.T) {
	t.Parallel()
	server := testdb.Start(t)
	for name, c := range map[string]struct {
		numbering numbering
		rule      history.Rule
	}{
		"auto_increment": {numbering{write: "INSERT INTO change_log (server) VALUES (?)"}, history.OneHistory},
		"fence": {numbering{
			write: "INSERT INTO change_log (id, server) SELECT revision, ? FROM pool", waits: true,
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server.Exec(t, "CREATE DATABASE "+name)
			findings := history.Judge(followed(t, server.Open(t, name), c.numbering), time.Second).Findings
			if c.rule == "" && len(findings) > 0 || c.rule != "" && !slices.ContainsFunc(findings, func(f history.Finding) bool { return f.Rule == c.rule }) {
				t.Errorf("found %v, want a breach of %q", findings, c.rule)
			}
		})
	}
}

// followed is the history of two joins and of one who follows them.
func followed(t *testing.T, db *sql.DB, n numbering) history.History {
	t.Helper()
	exec := func(what interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	}, query string, args ...any,
	) {
		if _, err := what.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec(db, "CREATE TABLE change_log (id BIGINT AUTO_INCREMENT PRIMARY KEY, server VARCHAR(9)) ENGINE = InnoDB")
	exec(db, "CREATE TABLE pool (revision BIGINT) ENGINE = InnoDB")
	exec(db, "INSERT INTO pool VALUES (0)")
	begin := func(server string) *sql.Tx {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n.waits {
			exec(tx, "UPDATE pool SET revision = revision + 1")
		}
		exec(tx, n.write, server)
		return tx
	}
	commit := func(tx *sql.Tx) {
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	f := &follower{t: t, db: db, rec: history.NewRecorder(time.Now())}
	f.feed = f.rec.Open(history.Stream{Watcher: "follower"}, time.Now())
	f.feed.Receive(history.Message{Kind: history.Start, StoreID: "s", Position: history.Position{Epoch: 1}}, time.Now())
	f.feed.Receive(history.Message{Kind: history.Snapshot, Position: f.position()}, time.Now())

	first := begin("a")
	if n.waits {
		commit(first)
		commit(begin("b"))
		f.follow()
	} else {
		commit(begin("b"))
		f.follow()
		commit(first)
	}
	f.follow()
	f.read()
	return f.rec.History()
}

// follower reads what is after its cursor.
type follower struct {
	t      *testing.T
	db     *sql.DB
	rec    *history.Recorder
	feed   *history.Feed
	cursor uint64
	known  []string
}

func (f *follower) position() history.Position {
	return history.Position{Pool: "p", Epoch: 1, Revision: f.cursor}
}

func (f *follower) follow() {
	f.t.Helper()
	at := f.cursor
	servers, last := f.after(at)
	if len(servers) == 0 {
		return
	}
	f.cursor = last
	f.known = append(f.known, servers...)
	f.feed.Receive(history.Message{Kind: history.Delta, From: at, Position: f.position(), Put: ring(f.known)}, time.Now())
}

// read reads the whole table.
func (f *follower) read() {
	f.t.Helper()
	call := f.rec.Call(history.Operation{Kind: history.Read, Pool: "p", Client: "table"}, time.Now())
	servers, last := f.after(0)
	call.Return(history.Result{Epoch: 1, Revision: last, Rows: ring(servers)}, time.Now())
}

func (f *follower) after(cursor uint64) (servers []string, last uint64) {
	f.t.Helper()
	rows, err := f.db.QueryContext(f.t.Context(), "SELECT id, server FROM change_log WHERE id > ? ORDER BY id", cursor)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var server string
		if err := rows.Scan(&last, &server); err != nil {
			f.t.Fatal(err)
		}
		servers = append(servers, server)
	}
	if err := rows.Err(); err != nil {
		f.t.Fatal(err)
	}
	return servers, last
}

// ring makes members of servers, in their order.
func ring(servers []string) []history.Row {
	rows := make([]history.Row, len(servers))
	for i, id := range servers {
		rows[i] = history.Row{ID: id, Incarnation: 1, Phase: "active"}
		if n := len(servers); n > 1 {
			rows[i].First, rows[i].Second = servers[(i+1)%n], servers[(i+n-1)%n]
		}
	}
	return rows
}
