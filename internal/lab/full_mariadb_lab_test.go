//go:build lab && mariadb && linux

package lab_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/testdb"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// TestFullDiskUnderMariaDB fills the disk of the database under three coordinators.
// Changes are refused, and an alarm says so; the leader leads on, for the lease needs no
// room. A server that crashes meanwhile is avoided, and removed when there is room
// again; one that comes waits until then.
func TestFullDiskUnderMariaDB(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	smallDisk(t, disk, "128m")
	server := testdb.StartIn(t, disk)
	server.Exec(t, "CREATE DATABASE buddyring CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
	store := server.URL("buddyring")
	const gone, late = "web-3", "web-late"
	s := newSeveral(t, lab.Config{
		Hosts: []string{late}, Store: store, Prepare: func(site *lab.Site) error { return migrate(t, site, store) },
	})
	incarnation := s.row(gone).GetIncarnation()
	free := fill(t, disk)
	s.useUp(member.MaxReasonBytes, 1) // small ones find room between large ones
	s.await("the alarm", func(ctx context.Context) error { return fails(ctx, s.leader, true) })

	s.crash(gone)
	s.steersAtOnce(gone)
	s.start(lab.AgentConfig{Server: late})
	before := s.o.done.Load()
	time.Sleep(watched(5*time.Second, time.Minute)) // longer than a lease may stand still
	for i := range s.routers {
		if err := s.has(i, gone, true)(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if n := s.o.done.Load() - before; n > 0 || s.welcomed()[late] != 0 {
		t.Errorf("%d changes acknowledged, and %v, on a full disk", n, s.welcomed())
	}
	if err := fails(t.Context(), s.leader, true); err != nil {
		t.Error(err)
	}
	s.ledOn()

	free()
	s.servers = append(s.servers, late)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := s.Removed(ctx, gone, incarnation); err != nil {
		t.Fatal(err)
	}
	s.goesOn()
	s.settled()
	s.await("the end of the alarm", func(ctx context.Context) error { return fails(ctx, s.leader, false) })
	s.ledOn()
	s.ends(server.Open(t, "buddyring"))
}

// useUp makes changes of each of these sizes, until one is refused.
func (s *several) useUp(sizes ...int) {
	s.t.Helper()
	for _, size := range sizes {
		for n := 0; ; n++ {
			err := s.change(size)
			if errors.Is(err, member.ErrUnavailable) {
				s.t.Logf("%d changes of %d bytes found room", n, size)
				break
			}
			if err != nil || n == 20_000 {
				s.t.Fatalf("a full disk refuses nothing: %v", err)
			}
		}
	}
}

// change makes a change of that size.
func (s *several) change(size int) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	_, err := s.Admin().SetIntent(ctx, &coordinatorv1.SetIntentRequest{
		Pool: lab.Pool, ServerId: "planned", Wish: coordinatorv1.Wish_WISH_BANNED, Reason: strings.Repeat("x", size),
	})
	return err
}

// TestFullDiskUnderAGaleraNode fills the disk of the node that all write to. The leader
// goes on over another one, which the full one cannot follow.
func TestFullDiskUnderAGaleraNode(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	smallDisk(t, disk, "330m")
	w := newGaleraWorld(t, disk)
	const full = 0
	if node := w.g.Written(t); node != full {
		t.Fatalf("node %d is written to", node)
	}
	ring := w.ring()
	fill(t, disk)
	for begin := time.Now(); w.g.Written(t) == full; {
		if time.Since(begin) > patience {
			t.Fatal("the full node is written to")
		}
		// The first change that finds no room fails, whose it is.
		if err := w.change(member.MaxReasonBytes); err != nil && !errors.Is(err, member.ErrUnavailable) {
			t.Error(err)
		}
	}
	w.goesOn()
	w.ledOn()
	w.settled()
	sameRing(t, ring, w.ring())
	w.ends(w.g.nodes[1])
}
