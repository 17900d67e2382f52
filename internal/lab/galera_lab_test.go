//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/netlab"
	"github.com/buddyring/buddyring/internal/testdb"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
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
func (g *galera) migrate(host *netlab.Host) error {
	cmd := exec.CommandContext(g.t.Context(), filepath.Join(os.Getenv(binEnv), "buddyring-coordinator"), "migrate", "--store", g.store)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := host.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("migrate: %w: %s", err, said.String())
	}
	return nil
}

// written returns the node that changes are written to at present.
func (g *galera) written() int {
	g.t.Helper()
	const enough = 10
	before := g.sent()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for i, n := range g.sent() {
			if n > before[i]+enough {
				return i
			}
		}
	}
	g.t.Fatal("nothing is written to any node")
	return 0
}

// sent is how many changes each node has sent to the others.
func (g *galera) sent() []int64 {
	g.t.Helper()
	counts := make([]int64, len(g.nodes))
	for i, db := range g.nodes {
		err := db.QueryRowContext(g.t.Context(), "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status "+
			"WHERE variable_name = 'wsrep_replicated'").Scan(&counts[i])
		if err != nil {
			g.t.Fatalf("node %d: %v", i, err)
		}
	}
	return counts
}

// ask returns the rows that a node answers with, sorted, once it has all that any has.
func (g *galera) ask(node int, query string) (all []string) {
	g.t.Helper()
	rows, err := g.nodes[node].QueryContext(g.t.Context(), query)
	if err != nil {
		g.t.Fatalf("node %d: %v", node, err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		g.t.Fatal(err)
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			g.t.Fatal(err)
		}
		row := make([]string, len(values))
		for i, v := range values {
			if row[i] = v.String; !v.Valid {
				row[i] = "NULL"
			}
		}
		all = append(all, strings.Join(row, "\t"))
	}
	if err := rows.Err(); err != nil {
		g.t.Fatal(err)
	}
	slices.Sort(all)
	return all
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

// galeraWorld is three coordinators on a Galera cluster, two routers and ten servers,
// under an operator who makes one change after the other.
type galeraWorld struct {
	*world
	*audience
	g *galera
	o *operator
	// leader leads, in epoch.
	leader *lab.Coordinator
	epoch  uint64
	// crashed are the servers that did.
	crashed []string
	// rest ends operator and audience.
	rest func()
}

func newGaleraWorld(t *testing.T) *galeraWorld {
	t.Helper()
	const routers = 2
	g := newGalera(t)
	w := &world{t: t, dir: t.TempDir(), agents: map[string]*lab.Agent{}, servers: names(10)}
	w.Site = newSite(t, lab.Config{
		Bin: os.Getenv(binEnv), Dir: w.dir, Hosts: w.servers, Routers: routers, Coordinators: 3, Store: g.store, Prepare: g.migrate,
	})
	gw := &galeraWorld{world: w, g: g, o: &operator{}}
	gw.follow(0)
	for _, server := range w.servers {
		w.start(lab.AgentConfig{Server: server})
	}
	w.settled()
	a, leave := w.audience(routers)
	gw.audience = a
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	working.Go(func() { gw.o.work(ctx, w.Admin) })
	gw.rest = func() {
		leave()
		stop()
		working.Wait()
	}
	t.Cleanup(gw.rest)
	for i := range routers {
		a.follows(i, gw.epoch)
	}
	gw.goesOn()
	return gw
}

// follow waits until a coordinator leads in an epoch after a given one.
func (w *galeraWorld) follow(after uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	leader, epoch, err := w.Leader(ctx, after)
	if err != nil {
		w.t.Fatal(err)
	}
	w.leader, w.epoch = leader, epoch
}

// standby returns one of the coordinators that do not lead.
func (w *galeraWorld) standby() *lab.Coordinator {
	for _, c := range w.Coordinators() {
		if c != w.leader {
			return c
		}
	}
	return nil
}

// ledOn checks that the leader leads on in its epoch, and waits until all others know.
func (w *galeraWorld) ledOn() {
	w.t.Helper()
	const leads = coordinatorv1.LeaderState_LEADER_STATE_LEADER
	for _, c := range w.Coordinators() {
		w.await(fmt.Sprintf("the knowledge at %s that %s leads in epoch %d", c.ID(), w.leader.ID(), w.epoch), func(ctx context.Context) error {
			status, err := c.Status(ctx)
			switch {
			case err != nil:
				return err
			case (status.GetState() == leads) != (c == w.leader):
				w.t.Errorf("%s is %v in epoch %d; %s led in epoch %d", c.ID(), status.GetState(), status.GetEpoch(), w.leader.ID(), w.epoch)
			case status.GetEpoch() != w.epoch || status.GetLeaderId() != w.leader.ID():
				return fmt.Errorf("it knows of %s in epoch %d", status.GetLeaderId(), status.GetEpoch())
			}
			return nil
		})
	}
}

// goesOn waits until more changes are acknowledged.
func (w *galeraWorld) goesOn() {
	w.t.Helper()
	before := w.o.done.Load()
	w.await("another change", func(context.Context) error {
		if n := w.o.done.Load() - before; n < 10 {
			return fmt.Errorf("%d changes acknowledged", n)
		}
		return nil
	})
}

// withoutNode crashes a server at the moment in which harm takes a node of the cluster
// away, the one that the leader writes to. Clients are steered away while nothing can
// be made durable; the removal comes when it can; and the leader leads on.
func (w *galeraWorld) withoutNode(server, how string, harm func(node int)) (node int) {
	w.t.Helper()
	w.settled()
	node = w.g.written()
	incarnation := w.row(server).GetIncarnation()
	harm(node)
	before, begin := w.o.done.Load(), time.Now()
	w.crash(server)
	for i := range w.routers {
		took, marked := w.steers(i, server)
		w.t.Logf("node %d %s: router %d steered away from %s after %v", node, how, i+1, server, took.Round(time.Millisecond))
		if !marked || took > 3*time.Second {
			w.t.Errorf("router %d steered away from %s after %v, by a mark: %t; want a mark, sooner", i+1, server, took, marked)
		}
	}
	// What was under way may have been answered just now.
	if n := w.o.done.Load() - before; n > 1 {
		w.t.Errorf("%d changes were acknowledged meanwhile: the database was well", n)
	}
	w.goesOn()
	w.t.Logf("node %d %s: 10 more changes after %v", node, how, time.Since(begin).Round(time.Millisecond))
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if _, _, err := w.Removed(ctx, server, incarnation); err != nil {
		w.t.Fatal(err)
	}
	w.ledOn()
	return node
}

func (w *galeraWorld) crash(server string) {
	w.t.Helper()
	w.audience.crash(server)
	w.crashed = append(w.crashed, server)
}

// TestFaultsOverGalera is an installation of three coordinators on a Galera cluster:
// under load, a node that the leader writes to is stopped, and one is killed, each as a
// server crashes; then a standby is stopped and killed, and the leader is killed while
// a router is stopped. Routers steer away at once, nothing that was acknowledged is
// lost, only the end of the leader ends its epoch, and nobody who is well is removed.
func TestFaultsOverGalera(t *testing.T) {
	t.Parallel()
	w := newGaleraWorld(t)

	node := w.withoutNode("web-3", "stopped", func(node int) { w.g.Node(node).Signal(t, syscall.SIGSTOP) })
	w.g.Node(node).Signal(t, syscall.SIGCONT)
	w.g.Heal(t)
	node = w.withoutNode("web-7", "killed", func(node int) { w.g.Node(node).Kill(t) })
	if err := w.g.Rejoin(node); err != nil {
		t.Fatal(err)
	}
	w.g.Heal(t)

	w.withoutStandby()
	w.withoutLeader()

	w.settled()
	w.onlyRemoved(w.crashed...)
	w.rest()
	for _, c := range w.Coordinators() {
		c.Process().Kill()
	}
	w.nothingLost()
	t.Logf("%d changes acknowledged", len(w.o.acked))
}

// withoutStandby stops a standby for longer than a lease may stand still, and then kills
// it. Neither changes anything.
func (w *galeraWorld) withoutStandby() {
	w.t.Helper()
	ring, standby := w.ring(), w.standby()
	if err := standby.Process().Signal(syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	w.goesOn()
	if err := standby.Process().Signal(syscall.SIGCONT); err != nil {
		w.t.Fatal(err)
	}
	w.goesOn()
	w.ledOn()
	standby.Process().Kill()
	w.goesOn()
	if err := standby.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ledOn()
	w.settled()
	sameRing(w.t, ring, w.ring())
}

// withoutLeader kills the leader while a router is stopped. Another coordinator leads,
// the other router follows it, and so does the stopped one when it goes on.
func (w *galeraWorld) withoutLeader() {
	w.t.Helper()
	const running, stopped = 0, 1
	if err := w.RouterProcess(stopped).Signal(syscall.SIGSTOP); err != nil {
		w.t.Fatal(err)
	}
	begin, before, killed := time.Now(), w.epoch, w.leader
	killed.Process().Kill()
	w.follow(before)
	w.t.Logf("another one led %v after the leader was killed", time.Since(begin).Round(time.Millisecond))
	if w.epoch != before+1 {
		w.t.Errorf("epoch %d after %d", w.epoch, before)
	}
	w.follows(running, w.epoch)
	if err := w.RouterProcess(stopped).Signal(syscall.SIGCONT); err != nil {
		w.t.Fatal(err)
	}
	w.follows(stopped, w.epoch)
	w.goesOn()
	if err := killed.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ledOn()
}

// nothingLost checks that every node has the same tables, with all that was
// acknowledged. The coordinators must be dead.
func (w *galeraWorld) nothingLost() {
	w.t.Helper()
	w.g.equal()
	if len(w.o.acked) == 0 {
		w.t.Error("no request was ever acknowledged: the test has shown nothing")
	}
	var events []*coordinatorv1.Event
	for _, text := range w.g.ask(0, "SELECT text FROM event WHERE kind = 'intent'") {
		events = append(events, &coordinatorv1.Event{Text: text})
	}
	if err := w.o.check(events); err != nil {
		w.t.Error(err)
	}
}
