//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/netlab"
	"github.com/buddyring/buddyring/internal/testdb"
)

// mariadb is a real server that lets nobody in but over TLS, as an installation
// has it, and the certificates of "buddyctl ca" for it and everybody else.
type mariadb struct {
	*testdb.Server
	t        *testing.T
	ca       string
	password string
	db       *sql.DB
}

// grants are those of the README.
const grants = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP"

func newMariaDB(t *testing.T, dir string, servers []string) *mariadb {
	t.Helper()
	m := &mariadb{t: t, ca: filepath.Join(dir, "ca"), password: filepath.Join(dir, "password")}
	m.issue("init", "--domain", "example.org")
	m.issue("issue", "coordinator", "coordinator")
	m.issue("issue", "coordinator", "database", "--host", "127.0.0.1")
	m.issue("issue", "router", "router-1")
	m.issue("issue", "admin", lab.Operator)
	for _, server := range servers {
		m.issue("issue", "agent", lab.Pool, server)
	}
	certificate := filepath.Join(m.ca, "coordinator-database")
	m.Server = testdb.Start(t, "--ssl-cert="+certificate+".crt", "--ssl-key="+certificate+".key")
	if err := os.WriteFile(m.password, []byte("a long password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Exec(t, "CREATE DATABASE buddyring CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
	m.Exec(t, "CREATE USER buddyring@localhost IDENTIFIED BY 'a long password' REQUIRE SSL")
	m.Exec(t, "GRANT "+grants+" ON buddyring.* TO buddyring@localhost")
	m.db = m.Open(t, "buddyring")
	return m
}

// issue runs "buddyctl ca".
func (m *mariadb) issue(args ...string) {
	m.t.Helper()
	ctl(m.t, nil, append(append([]string{"ca"}, args...), "--dir", m.ca)...)
}

// ctl runs the real buddyctl and returns what it prints.
func ctl(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binEnv), "buddyctl"), args...)
	cmd.Env = append(os.Environ(), env...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("buddyctl %s: %v\n%s", strings.Join(args, " "), err, said.String())
	}
	return string(out)
}

// flags are the coordinator's, for this store.
func (m *mariadb) flags() []string {
	return []string{"--store-password-file", m.password, "--store-tls-ca", filepath.Join(m.ca, "ca.crt")}
}

// address is the store's, on the coordinator's own host.
const address = "127.0.0.1:3306"

const storeURL = "mysql://buddyring@" + address + "/buddyring"

// prepare lets the coordinator's host reach the server, and makes the schema as
// an operator does.
func (m *mariadb) prepare(site *lab.Site) error {
	host := site.CoordinatorHost()
	lis, err := host.Listen(m.t.Context(), "tcp", address)
	if err != nil {
		return err
	}
	m.Forward(m.t, lis)
	early, err := m.coordinator(host, "--listen", "127.0.0.1:0")
	if err == nil || !strings.Contains(early, `run "buddyring-coordinator migrate"`) {
		return fmt.Errorf("a start without a schema ends with %w: %s", err, early)
	}
	if out, err := m.coordinator(host, "migrate"); err != nil {
		return fmt.Errorf("migrate: %w: %s", err, out)
	}
	return nil
}

// coordinator runs the program for this store, as runCoordinator.
func (m *mariadb) coordinator(host *netlab.Host, args ...string) (string, error) {
	return runCoordinator(m.t, host, slices.Concat(args, []string{"--store", storeURL}, m.flags())...)
}

// runCoordinator runs the program on its host until it ends by itself, and returns
// what it has said.
func runCoordinator(t *testing.T, host *netlab.Host, args ...string) (string, error) {
	cmd := exec.CommandContext(t.Context(), filepath.Join(os.Getenv(binEnv), "buddyring-coordinator"), args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := host.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

// memberRow is a row as somebody with a SQL client reads it.
type memberRow struct {
	id, first, second string
	incarnation       uint64
}

// rows reads the server table.
func (m *mariadb) rows() map[string]memberRow {
	m.t.Helper()
	rows, err := m.db.QueryContext(m.t.Context(),
		"SELECT server_id, COALESCE(first_buddy, ''), COALESCE(second_buddy, ''), incarnation FROM server WHERE pool = 'default'")
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	all := map[string]memberRow{}
	for rows.Next() {
		var r memberRow
		if err := rows.Scan(&r.id, &r.first, &r.second, &r.incarnation); err != nil {
			m.t.Fatal(err)
		}
		all[r.id] = r
	}
	if err := rows.Err(); err != nil {
		m.t.Fatal(err)
	}
	return all
}

// ask returns the rows that a database answers with, sorted.
func ask(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
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
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// migrate makes the tables of a store, as an operator does.
func migrate(t *testing.T, site *lab.Site, store string) error {
	if said, err := runCoordinator(t, site.CoordinatorHost(), "migrate", "--store", store); err != nil {
		return fmt.Errorf("migrate: %w: %s", err, said)
	}
	return nil
}

// checkRing follows the first buddies once round the ring, and checks that the
// second ones lead back.
func checkRing(t *testing.T, rows map[string]memberRow) {
	t.Helper()
	if len(rows) < 3 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	at := "web-1"
	for n := 1; ; n++ {
		next := rows[at].first
		if rows[next].second != at {
			t.Fatalf("%s has the first buddy %q, whose second buddy is %q", at, next, rows[next].second)
		}
		if at = next; at == "web-1" {
			if n != len(rows) {
				t.Errorf("the ring has %d of %d members", n, len(rows))
			}
			return
		}
		if n > len(rows) {
			t.Fatalf("the ring does not close: %v", rows)
		}
	}
}

// welcomed are the incarnations that agents were told are durable.
func (w *world) welcomed() map[string]uint64 {
	w.t.Helper()
	all := map[string]uint64{}
	for _, server := range w.servers {
		text, err := os.ReadFile(filepath.Join(w.StateDir(server), "agent.json"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var file struct {
			State struct {
				Incarnation uint64 `json:"incarnation"`
			} `json:"state"`
		}
		if err := errors.Join(err, json.Unmarshal(text, &file)); err != nil {
			w.t.Fatal(err)
		}
		if n := file.State.Incarnation; n > 0 {
			all[server] = n
		}
	}
	return all
}

// nothingLost checks that every membership that was acknowledged is in the
// table. The coordinator must be dead.
func (w *world) nothingLost(m *mariadb) (acknowledged int) {
	w.t.Helper()
	known, rows := w.welcomed(), m.rows()
	for server, incarnation := range known {
		if rows[server].incarnation != incarnation {
			w.t.Errorf("%s was welcomed as incarnation %d, the table has %d", server, incarnation, rows[server].incarnation)
		}
	}
	return len(known)
}

// The programs as somebody installs them: a coordinator on a MariaDB that wants
// TLS and a password, mutual TLS everywhere, and SIGKILL for coordinator and
// database while servers join and an operator works.
func TestCoordinatorOnMariaDBWithTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := &world{t: t, dir: dir, agents: map[string]*lab.Agent{}, servers: names(8)}
	m := newMariaDB(t, dir, w.servers)
	w.Site = newSite(t, lab.Config{
		Bin: os.Getenv(binEnv), Dir: dir, Hosts: w.servers, Routers: 1,
		Store: storeURL, StoreFlags: m.flags(), Prepare: m.prepare, CA: m.ca,
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	o := &operator{}
	var working sync.WaitGroup
	working.Go(func() { o.work(ctx, w.Admin) })
	kills, acknowledged := 0, 0
	kill := func() {
		w.Coordinator().Kill()
		acknowledged = w.nothingLost(m)
		kills++
	}
	for i, server := range w.servers {
		w.start(lab.AgentConfig{Server: server})
		time.Sleep(rand.N(400 * time.Millisecond))
		switch i % 4 {
		case 1:
			kill()
		case 3:
			// The database dies first, under the coordinator's hands.
			m.Kill(t)
			time.Sleep(rand.N(200 * time.Millisecond))
			m.Restart(t)
			kill()
			// And is still away when the next one starts.
			m.Kill(t)
		default:
			continue
		}
		if err := w.StartCoordinator(); err != nil {
			t.Fatal(err)
		}
		if i%4 == 3 {
			time.Sleep(rand.N(time.Second))
			m.Restart(t)
		}
	}
	w.settled()
	stop()
	working.Wait()
	w.await("the router's view", w.routed)
	w.nobodyRemoved()
	events, err := w.intents()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.check(events); err != nil {
		t.Error(err)
	}
	if len(o.acked) == 0 {
		t.Error("no request was ever acknowledged: the test has shown nothing")
	}
	t.Logf("%d kills, %d members known at the last, %d intents acknowledged", kills, acknowledged, len(o.acked))

	rows := m.rows()
	checkRing(t, rows)
	w.sameAsSaidByBuddyctl(m, rows)
}

// sameAsSaidByBuddyctl compares the table with what the real buddyctl says.
func (w *world) sameAsSaidByBuddyctl(m *mariadb, rows map[string]memberRow) {
	w.t.Helper()
	owner := filepath.Join(m.ca, "admin-"+lab.Operator)
	env := []string{
		"BUDDYCTL_ADMIN=" + w.AdminAddress(), "BUDDYCTL_TLS_CERT=" + owner + ".crt", "BUDDYCTL_TLS_KEY=" + owner + ".key",
		"BUDDYCTL_TLS_CA=" + filepath.Join(m.ca, "ca.crt"),
	}
	if said := ctl(w.t, env, "check"); !strings.HasPrefix(said, "consistent") {
		w.t.Errorf("buddyctl check: %s", said)
	}
	var ring struct {
		Members []struct {
			ServerID    string `json:"server_id"`
			FirstBuddy  string `json:"first_buddy"`
			SecondBuddy string `json:"second_buddy"`
		} `json:"members"`
	}
	if err := json.Unmarshal([]byte(ctl(w.t, env, "ring", "-o", "json")), &ring); err != nil {
		w.t.Fatal(err)
	}
	if len(ring.Members) != len(rows) {
		w.t.Errorf("buddyctl ring has %d members, the table %d", len(ring.Members), len(rows))
	}
	for _, said := range ring.Members {
		if r := rows[said.ServerID]; r.first != said.FirstBuddy || r.second != said.SecondBuddy {
			w.t.Errorf("buddyctl ring says %+v, the table %+v", said, r)
		}
	}
}
