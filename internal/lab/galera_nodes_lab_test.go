//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"database/sql"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/testdb"
)

// galera is a cluster under a site, and its nodes as their administrator sees them.
type galera struct {
	*testdb.Cluster
	t     *testing.T
	store string
	nodes []*sql.DB
}

const galeraDatabase = "buddyring"

func newGalera(t *testing.T, dirs ...string) *galera {
	t.Helper()
	g := &galera{Cluster: testdb.StartGalera(t, dirs...), t: t}
	g.Node(0).Exec(t, "CREATE DATABASE "+galeraDatabase+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
	g.store = g.URL(galeraDatabase, 0, 1, 2)
	for i := range 3 {
		cfg := mysql.NewConfig()
		cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "unix", g.Node(i).Socket(), galeraDatabase
		cfg.Params = map[string]string{"wsrep_sync_wait": "1"}
		cfg.Logger = &mysql.NopLogger{}
		c, err := mysql.NewConnector(cfg)
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(c)
		t.Cleanup(func() { _ = db.Close() }) // sessions to killed nodes cannot end well
		g.nodes = append(g.nodes, db)
	}
	return g
}

// migrate makes the tables, as an operator does.
func (g *galera) migrate(site *lab.Site) error { return migrate(g.t, site, g.store) }

// ask returns the rows that a node answers with, sorted, once it has all that any has.
func (g *galera) ask(node int, query string) []string {
	g.t.Helper()
	return ask(g.t, g.nodes[node], query)
}

// hold holds up what a node applies: it takes in what the others send, and knows nothing
// of it. knows counts the rows of a query as the node has them until then.
func (g *galera) hold(node int) (knows func(query string) int, release func()) {
	g.t.Helper()
	conn, err := g.nodes[node].Conn(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	run := func(statement string) {
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			g.t.Errorf("%s on node %d: %v", statement, node, err)
		}
	}
	run("SET SESSION wsrep_sync_wait = 0")
	run("FLUSH TABLES WITH READ LOCK")
	knows = func(query string) (n int) {
		if err := conn.QueryRowContext(g.t.Context(), "SELECT COUNT(*) FROM ("+query+") AS known").Scan(&n); err != nil {
			g.t.Error(err)
		}
		return n
	}
	release = sync.OnceFunc(func() {
		run("UNLOCK TABLES")
		_ = conn.Close()
	})
	g.t.Cleanup(release)
	return knows, release
}

// equal checks that all nodes have the same rows in all tables of a schema. Nothing may
// write meanwhile.
func (g *galera) equal() {
	g.t.Helper()
	for _, table := range g.ask(0, "SHOW TABLES") {
		query := "SELECT * FROM " + table
		first := g.ask(0, query)
		for node := 1; node < len(g.nodes); node++ {
			if d := cmp.Diff(first, g.ask(node, query)); d != "" {
				g.t.Errorf("the table %s differs (-node 0, +node %d):\n%s", table, node, d)
			}
		}
	}
}
