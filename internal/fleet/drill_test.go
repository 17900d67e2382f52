package fleet_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// backup asks the coordinator for one.
func (f *fleet) backup() []byte {
	f.t.Helper()
	stream, err := f.admin.ExportState(f.t.Context(), &coordinatorv1.ExportStateRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	var all []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, part.GetData()...)
	}
}

// restore puts a backup into a fresh database for the next coordinator.
func (f *fleet) restore(backup []byte) {
	f.t.Helper()
	f.dir = f.t.TempDir()
	s, err := store.Open(f.t.Context(), store.Config{URL: "sqlite:" + filepath.Join(f.dir, "coordinator.db")})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := s.Restore(f.t.Context(), bytes.NewReader(backup), store.RestoreOptions{}); err != nil {
		f.t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.t.Fatal(err)
	}
}

// The drill: the table moves to another database under a running pool. Who was
// there then goes on without a removal, and who has come since joins again.
func TestRestoreUnderARunningPool(t *testing.T) {
	inVirtualTime(t, func(f *fleet) {
		old := names("web", 6)
		f.add(old...)
		f.settled(20*time.Second, old...)
		f.warm()
		backup := f.backup()
		f.add("late")
		all := slices.Concat(old, []string{"late"})
		f.settled(20*time.Second, all...)
		store := f.status().GetStoreId()

		f.stopCoordinator()
		f.restore(backup)
		f.startCoordinator()
		f.settled(time.Minute, all...)
		f.warm()
		f.consistent()
		if got := f.removals(); len(got) != 0 {
			f.t.Errorf("removals: %v", got)
		}
		if got, want := f.alarms(), []string{"STORE_CHANGED"}; !slices.Equal(got, want) {
			f.t.Errorf("alarms: %v, want %v", got, want)
		}
		status := f.status()
		if status.GetStoreId() == store || status.GetPools()[0].GetRevision() < 1_000_000_000 {
			f.t.Errorf("store %s after %s, revision %d", status.GetStoreId(), store, status.GetPools()[0].GetRevision())
		}
		// And the pool works as before.
		f.crash("web-3")
		f.settled(30*time.Second, without(all, "web-3")...)
		if got := f.removals(); !maps.Equal(got, map[string]int{"web-3": 1}) {
			f.t.Errorf("removals: %v", got)
		}
	})
}

func (f *fleet) status() *coordinatorv1.GetStatusResponse {
	f.t.Helper()
	status, err := f.admin.GetStatus(f.t.Context(), &coordinatorv1.GetStatusRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	return status
}
