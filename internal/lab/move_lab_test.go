//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/testdb"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// TestMoveFromSQLiteToMariaDB goes the way of docs/database.md, with the real programs
// and under clients: a backup of the SQLite file, restored into a MariaDB on which the
// coordinator goes on. Nobody is removed or gets another incarnation, the routers serve
// on, and what an operator wished holds. Then the pool on MariaDB is put back to a
// backup while its coordinator runs.
func TestMoveFromSQLiteToMariaDB(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, 6, 2)
	a, leave := w.audience(2)
	env := []string{"BUDDYCTL_ADMIN=" + w.AdminAddress()}
	ctl(t, env, "intent", "web-6", "maintenance", "--reason", "new disk")
	ctl(t, env, "intent", "planned", "banned", "--reason", "not yet")
	w.settled()
	before, status := w.welcomed(), w.storeStatus()
	backup := filepath.Join(w.dir, "backup")
	ctl(t, env, "backup", backup)

	if err := w.Coordinator().Terminate(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := testdb.Start(t)
	server.Exec(t, "CREATE DATABASE buddyring CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
	store := server.URL("buddyring")
	w.coordinator("migrate", "--store", store)
	if said := w.coordinator("restore", backup, "--store", store); !strings.HasPrefix(said, "restored 6 servers in 1 pools") {
		t.Errorf("restore says %q", said)
	}
	w.Move(store)
	if err := w.StartCoordinator(); err != nil {
		t.Fatal(err)
	}
	w.moved(status)
	for server, incarnation := range w.welcomed() {
		if before[server] != incarnation {
			t.Errorf("%s came back as incarnation %d after %d", server, incarnation, before[server])
		}
	}
	if said := ctl(t, env, "alarms"); !strings.Contains(said, "STORE_CHANGED") {
		t.Errorf("no alarm says that the routers come from another store:\n%s", said)
	}
	w.wishes(env, "web-6 maintenance", "planned banned")
	a.crash("web-3")
	w.settled()
	w.await("the router's view without web-3", w.routed)

	status = w.storeStatus()
	ctl(t, env, "backup", backup)
	ctl(t, env, "intent", "web-5", "maintenance", "--reason", "a mistake")
	if said := ctl(t, env, "restore", backup, "--replace", "--reason", "drill"); !strings.HasPrefix(said, "restored 5 servers in 1 pools") {
		t.Errorf("restore says %q", said)
	}
	w.moved(status)
	leave()
	w.wishes(env, "web-6 maintenance", "planned banned")
	if said := ctl(t, env, "check"); !strings.HasPrefix(said, "consistent") {
		t.Errorf("buddyctl check: %s", said)
	}
	removals, err := w.Removals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(removals) != 1 || removals[0].GetServerId() != "web-3" {
		t.Errorf("removals: %v", removals)
	}
}

// coordinator runs the program, which must end well, and returns what it has said.
func (w *world) coordinator(args ...string) string {
	w.t.Helper()
	said, err := runCoordinator(w.t, w.CoordinatorHost(), args...)
	if err != nil {
		w.t.Fatalf("buddyring-coordinator %s: %v\n%s", strings.Join(args, " "), err, said)
	}
	return said
}

func (w *world) storeStatus() *coordinatorv1.GetStatusResponse {
	w.t.Helper()
	status, err := w.Coordinators()[0].Status(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return status
}

// moved waits until the pool is settled on another database than before, by a later
// epoch and far higher revisions, and both routers have their views from there.
func (w *world) moved(before *coordinatorv1.GetStatusResponse) {
	w.t.Helper()
	from := before.GetPools()[0].GetRevision() + 1_000_000_000
	w.await("the coordinator of another database", func(ctx context.Context) error {
		now, err := w.Coordinators()[0].Status(ctx)
		switch {
		case err != nil:
			return err
		case now.GetStoreId() == before.GetStoreId() || now.GetEpoch() <= before.GetEpoch():
			return fmt.Errorf("the store is %s, in epoch %d", now.GetStoreId(), now.GetEpoch())
		case len(now.GetPools()) != 1 || now.GetPools()[0].GetRevision() < from:
			return fmt.Errorf("the pools are %v", now.GetPools())
		case now.GetState() != coordinatorv1.LeaderState_LEADER_STATE_LEADER:
			return errors.New("it does not lead")
		}
		return nil
	})
	w.settled()
	for i := range 2 {
		w.await(fmt.Sprintf("the view of router %d", i+1), func(ctx context.Context) error {
			answer, err := w.Router(i).Resolve(ctx, &routerv1.ResolveRequest{Pool: lab.Pool})
			if err == nil && answer.GetFreshness().GetRevision() < from {
				err = fmt.Errorf("it is of revision %d", answer.GetFreshness().GetRevision())
			}
			return err
		})
	}
	w.await("a view of all servers", w.routed)
}

// wishes checks what operators wish, all of it.
func (w *world) wishes(env []string, want ...string) {
	w.t.Helper()
	var got []string
	for line := range strings.Lines(ctl(w.t, env, "intents")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] != "SERVER" {
			got = append(got, f[0]+" "+f[1])
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("the wishes are %q, want %q", got, want)
	}
}
