package server_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/statedir"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// lastRun is a router that applied revisions 10 and 11 and stopped.
func lastRun(w *world) {
	w.start()
	s := w.coordinators[first].next()
	s.send(catchUp(3)...)
	s.bookmarks(2, at(1, 10))
	s.send(delta(&pb.Delta{Position: at(1, 11), Removed: crashed("s000", "s001")}))
	s.bookmarks(2, at(1, 11))
	w.stopRouter()
	w.remove(first)
}

func TestDisk_ServesTheLastViewAfterARestart(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		lastRun(w)
		time.Sleep(time.Hour)
		w.start()
		if diff := cmp.Diff([]string{"active s002", "held_back s000", "held_back s001"}, w.resolved()); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
		got := w.freshness()
		if !got.GetStale() || got.GetRevision() != 11 || got.GetStoreId() != "store" {
			t.Errorf("freshness %v, want stale at revision 11", got)
		}
		if age := got.GetAge().AsDuration(); age < time.Hour || age > time.Hour+10*time.Second {
			t.Errorf("age %v, want an hour", age)
		}
		s := w.coordinator(first).next()
		if got := s.hello.GetResume(); len(got) != 1 || got[0].GetRevision() != 11 || s.hello.GetStoreId() != "store" {
			t.Errorf("hello %v, want to resume from revision 11", s.hello)
		}
		s.send(start("store", 2), synced(2, 0), bookmark(at(2, 11)))
		if got := w.freshness(); got.GetStale() || got.GetEpoch() != 2 {
			t.Errorf("freshness %v, want fresh", got)
		}
	}, first)
}

func TestDisk_FallsBackToThePreviousFile(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"cut short": func(path string) error { return os.Truncate(path, 100) },
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"gone":      os.Remove,
		"a bit flipped": func(path string) error {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			data[len(data)/2] ^= 1
			return os.WriteFile(path, data, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				lastRun(w)
				if err := spoil(filepath.Join(w.dir, "router.view")); err != nil {
					t.Fatal(err)
				}
				w.start()
				if got := len(w.resolved()); got != 3 {
					t.Errorf("%d servers, want 3", got)
				}
			}, first)
		})
	}
}

func TestDisk_StartsWithoutAnyGoodFile(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		if err := os.MkdirAll(w.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"router.view", "router.view.prev"} {
			if err := os.WriteFile(filepath.Join(w.dir, name), []byte("garbage"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		w.coordinators[first].next().send(catchUp(3)...)
		if got := len(w.resolved()); got != 3 {
			t.Errorf("%d servers, want 3", got)
		}
	}, first)
}

// A disk that cannot be written is no reason not to serve, and is used again
// when it can.
func TestDisk_ServesOnWithoutADisk(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		if err := os.WriteFile(w.dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		s.bookmarks(5, at(1, 10))
		if got := len(w.resolved()); got != 3 {
			t.Errorf("%d servers, want 3", got)
		}
		failed := w.value("buddyring_router_state_writes_total")
		if failed < 2 {
			t.Errorf("%v attempts to write, want at least 2", failed)
		}
		if err := os.Remove(w.dir); err != nil {
			t.Fatal(err)
		}
		s.bookmarks(5, at(1, 10))
		if _, err := os.Stat(filepath.Join(w.dir, "router.view")); err != nil {
			t.Errorf("nothing was written when it was possible: %v", err)
		}
	}, first)
}

// Two routers with one directory would overwrite each other's views.
func TestDisk_IsOneRouters(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		other := statedir.New(w.dir, "router")
		if err := other.Lock(); err != nil {
			t.Fatal(err)
		}
		if err := w.router().Run(t.Context()); !errors.Is(err, statedir.ErrInUse) {
			t.Errorf("a second router: %v, want %v", err, statedir.ErrInUse)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		w.start()
	}, first)
}

func TestDisk_WritesManyChangesAtOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		for i := range uint64(100) {
			s.send(delta(&pb.Delta{Position: at(1, 11+i), Put: rows(1)}))
		}
		s.bookmarks(2, at(1, 110))
		if got := w.value("buddyring_router_state_writes_total"); got > 3 {
			t.Errorf("%v writes for 100 changes within a moment", got)
		}
		time.Sleep(time.Second)
		if files, _ := filepath.Glob(filepath.Join(w.dir, "router.view*")); len(files) != 2 {
			t.Errorf("files %v, want router.view and router.view.prev", files)
		}
	}, first)
}
