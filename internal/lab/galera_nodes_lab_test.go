//go:build lab && mariadb && linux

package lab_test

import (
	"database/sql"
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

func newGalera(t *testing.T) *galera {
	t.Helper()
	const database = "buddyring"
	g := &galera{Cluster: testdb.StartGalera(t), t: t}
	g.Node(0).Exec(t, "CREATE DATABASE "+database+" CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
	g.store = g.URL(database, 0, 1, 2)
	for i := range 3 {
		cfg := mysql.NewConfig()
		cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "unix", g.Node(i).Socket(), database
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
