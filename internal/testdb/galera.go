package testdb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// clusterSize is the least number of nodes of which one can be lost.
const clusterSize = 3

// handover is the script by which a node gets the state of another. It passes on
// only from where on the joining node needs the changes; the cluster sends those
// by itself. A node that has missed more than it keeps is not taken in.
const handover = `#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    --role) role=$2 ;;
    --address) address=$2 ;;
    --datadir) dir=$2 ;;
    --gtid) gtid=$2 ;;
    --bypass) bypass=1 ;;
  esac
  shift
done
case $role in
  joiner)
    place=${dir%/}.handover
    rm -f "$place"
    mkfifo "$place"
    echo "ready $place"
    read -r gtid <"$place"
    rm -f "$place"
    echo "$gtid" ;;
  donor)
    [ -n "$bypass" ] || { echo "only missing changes can be handed over" >&2; exit 1; }
    echo "$gtid" >"$address"
    echo "done $gtid" ;;
esac
`

// Cluster is a Galera cluster of three nodes of MariaDB. Its nodes talk over
// loopback addresses of their own, and take clients on unix sockets.
type Cluster struct {
	nodes []*Server
	// links are between the nodes of a cluster that tests may harm, else nil.
	links *links
	// dirs are where the nodes have their files, "" where temporary files are.
	dirs  [clusterSize]string
	count atomic.Int64
}

// Galera returns the store URL, with all nodes, of a fresh, empty database on
// the cluster that all tests of this process share. The database is dropped when
// the test ends.
func Galera(t testing.TB) string {
	t.Helper()
	return SharedGalera(t).Database(t)
}

// SharedGalera returns the cluster that all tests of this process share. Tests
// must not harm it.
func SharedGalera(t testing.TB) *Cluster {
	t.Helper()
	c, err := sharedCluster()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

//nolint:gochecknoglobals // one cluster per test process is the purpose; it ends with the process
var sharedCluster = sync.OnceValues(func() (*Cluster, error) {
	c := &Cluster{}
	hosts, _ := addresses()
	if err := c.start(hosts, hosts); err != nil {
		return nil, fmt.Errorf("start the shared Galera cluster: %w", err)
	}
	return c, nil
})

// StartGalera returns a cluster of the test's own, for tests that harm it, its first
// nodes with their files in dirs, as StartIn. It ends with the test.
func StartGalera(t testing.TB, dirs ...string) *Cluster {
	t.Helper()
	c, err := NewCluster(dirs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for i, s := range c.nodes {
				t.Logf("node %d: %s", i, s.logTail())
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("stop the Galera cluster: %v", err)
		}
	})
	return c
}

// start lets one node make a cluster of its own, ends it, and gives its data to all.
// So none has to copy another's state, which would need more programs and more time.
// The nodes listen at hosts and are reached at seeds.
func (c *Cluster) start(hosts, seeds []string) error {
	provider, err := findProvider()
	if err != nil {
		return err
	}
	for i := range hosts {
		s, err := newServer(c.dirs[i], nodeOptions(provider, i, hosts[i], seeds)...)
		if err != nil {
			return errors.Join(err, c.close())
		}
		c.nodes = append(c.nodes, s)
		if err := s.prepareNode(c.nodes[0]); err != nil {
			return errors.Join(err, c.close())
		}
	}
	if err := c.run(); err != nil {
		return errors.Join(err, c.close())
	}
	return nil
}

// prepareNode makes the files of a node, with the data of the first.
func (s *Server) prepareNode(first *Server) error {
	programs := filepath.Join(s.dir, "bin")
	s.env = []string{"PATH=" + programs + ":" + os.Getenv("PATH")}
	if err := os.Mkdir(programs, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	script := filepath.Join(programs, "wsrep_sst_handover")
	if err := os.WriteFile(script, []byte(handover), 0o700); err != nil { //nolint:gosec // it is run
		return fmt.Errorf("write script: %w", err)
	}
	if s == first {
		return s.found()
	}
	if err := os.CopyFS(s.data(), os.DirFS(first.data())); err != nil {
		return fmt.Errorf("copy data directory: %w", err)
	}
	return nil
}

// found makes the data of a cluster.
func (s *Server) found() error {
	if err := s.bootstrap(); err != nil {
		return err
	}
	if err := s.run("--wsrep-new-cluster"); err != nil {
		return err
	}
	if err := syscall.Kill(s.pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop mariadbd: %w", err)
	}
	if !s.endsWithin(startTimeout) {
		return fmt.Errorf("mariadbd does not stop\n%s", s.logTail())
	}
	return s.end(true)
}

func findProvider() (string, error) {
	for _, path := range []string{"/usr/lib/galera/libgalera_smm.so", "/usr/lib/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("libgalera_smm.so is missing: run `make test`, which installs it, or `apt-get install --no-install-recommends galera-4`")
}

// addresses gives each node two of its own: one to listen and call from, and one for
// links before it. The whole of 127.0.0.0/8 is loopback, so clusters of several
// processes hardly meet.
func addresses() (hosts, fronts []string) {
	var net [2]byte
	_, _ = rand.Read(net[:])
	for i := range clusterSize {
		hosts = append(hosts, fmt.Sprintf("127.%d.%d.%d", net[0]|1, net[1], i+1))
		fronts = append(fronts, fmt.Sprintf("127.%d.%d.%d", net[0]|1, net[1], i+101))
	}
	return hosts, fronts
}

// nodeOptions are those of a node. Time-outs are those of a network that is known to
// be quick. A peer must be late for the network before it is suspect: only then do the
// others pass on what a broken link does not.
func nodeOptions(provider string, node int, host string, seeds []string) []string {
	others := slices.Delete(slices.Clone(seeds), node, node+1)
	return []string{
		"--wsrep-on=ON", "--wsrep-provider=" + provider, "--wsrep-cluster-name=test",
		"--wsrep-cluster-address=gcomm://" + strings.Join(others, ","),
		"--wsrep-node-address=" + host, fmt.Sprintf("--wsrep-node-name=node-%d", node),
		"--wsrep-sst-method=handover", "--binlog-format=ROW", "--innodb-autoinc-lock-mode=2",
		"--wsrep-provider-options=" + strings.Join([]string{
			"gmcast.listen_addr=tcp://" + host + ":" + groupPort, "ist.recv_addr=" + host + ":4568", "gcache.size=64M",
			"gmcast.peer_timeout=PT1S", "evs.keepalive_period=PT0.5S", "evs.suspect_timeout=PT2S", "evs.inactive_timeout=PT4S",
		}, ";"),
	}
}

// run starts the nodes one by one; the first makes the cluster.
func (c *Cluster) run() error {
	for i, s := range c.nodes {
		var once []string
		if i == 0 {
			once = []string{"--wsrep-new-cluster"}
		}
		if err := s.join(i+1, once...); err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
	}
	return nil
}

// join starts a node, which makes its cluster one of a size.
func (s *Server) join(size int, once ...string) error {
	if err := s.run(once...); err != nil {
		return err
	}
	return s.waitUntilSynced(size)
}

// waitUntilSynced waits until the node is one of a component of a size and has
// all that the others have.
func (s *Server) waitUntilSynced(size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		_, err := s.view(ctx, size)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || s.endsWithin(20*time.Millisecond) {
			return fmt.Errorf("wait until it is synced: %w\n%s", err, s.logTail())
		}
	}
}

// view returns which view of its cluster a node has. It is an error unless that is of
// a size, and the node has all that the others have.
func (s *Server) view(ctx context.Context, size int) (number string, err error) {
	db, err := s.open("")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var of, state string
	err = db.QueryRowContext(ctx, "SELECT MAX(IF(variable_name = 'wsrep_cluster_conf_id', variable_value, '')), "+
		"MAX(IF(variable_name = 'wsrep_cluster_size', variable_value, '')), "+
		"MAX(IF(variable_name = 'wsrep_local_state_comment', variable_value, '')) "+
		"FROM information_schema.global_status").Scan(&number, &of, &state)
	if err == nil && (of != strconv.Itoa(size) || state != "Synced") {
		err = fmt.Errorf("it is %s, in a view of %s nodes", state, of)
	}
	return number, err
}

// Node returns a node, by its number from 0.
func (c *Cluster) Node(i int) *Server { return c.nodes[i] }

// Database returns the store URL, with all nodes, of a fresh, empty database,
// which is dropped when the test ends.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", c.count.Add(1))
	c.nodes[0].Exec(t, "CREATE DATABASE "+name)
	t.Cleanup(func() { c.nodes[0].Exec(t, "DROP DATABASE "+name) })
	return c.URL(name, 0, 1, 2)
}

// URL returns the store URL of a database on nodes, in the order in which they
// are tried.
func (c *Cluster) URL(database string, nodes ...int) string {
	sockets := make([]string, len(nodes))
	for i, n := range nodes {
		sockets[i] = c.nodes[n].socket()
	}
	return SocketURL(database, sockets...)
}

// Written returns the node that somebody writes to. It waits until a node has sent the
// others a few changes.
func (c *Cluster) Written(t testing.TB) int {
	t.Helper()
	const few = 10
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	nodes := make([]*sql.DB, len(c.nodes))
	for i, s := range c.nodes {
		nodes[i] = s.Open(t, "")
	}
	for before := sent(ctx, t, nodes); ; time.Sleep(20 * time.Millisecond) {
		for i, n := range sent(ctx, t, nodes) {
			if n > before[i]+few {
				return i
			}
		}
	}
}

// sent is how many changes each node has sent to the others.
func sent(ctx context.Context, t testing.TB, nodes []*sql.DB) []int64 {
	t.Helper()
	counts := make([]int64, len(nodes))
	for i, db := range nodes {
		err := db.QueryRowContext(ctx, "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status "+
			"WHERE variable_name = 'wsrep_replicated'").Scan(&counts[i])
		if err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	return counts
}

// Heal waits until all nodes are back in the cluster, as AwaitWhole.
func (c *Cluster) Heal(t testing.TB) {
	t.Helper()
	if err := c.AwaitWhole(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func (c *Cluster) whole(ctx context.Context) error {
	var views []string
	for i, s := range c.nodes {
		v, err := s.view(ctx, clusterSize)
		if err != nil {
			return fmt.Errorf("node %d: %w", i, err)
		}
		views = append(views, v)
	}
	if slices.Max(views) != slices.Min(views) {
		return fmt.Errorf("the nodes have the views %v", views)
	}
	return nil
}

// KillAll ends all nodes by SIGKILL at once, and keeps their data.
func (c *Cluster) KillAll(t testing.TB) {
	t.Helper()
	if err := c.Crash(); err != nil {
		t.Fatalf("kill the Galera cluster: %v", err)
	}
}

// Rebuild brings a cluster back of which all nodes were killed, as Recover.
func (c *Cluster) Rebuild(t testing.TB) {
	t.Helper()
	if err := c.Recover(); err != nil {
		t.Fatalf("rebuild the Galera cluster: %v", err)
	}
}

func (c *Cluster) close() error {
	var errs []error
	for _, s := range c.nodes {
		if s.guard != nil {
			_ = syscall.Kill(s.pid, syscall.SIGCONT)
		}
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}
