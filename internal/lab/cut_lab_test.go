//go:build lab && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/netlab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// sever loses all that two hosts send to each other, until the returned function is
// called, or the test ends.
func sever(t *testing.T, a, b *netlab.Host) (mend func()) {
	t.Helper()
	if err := errors.Join(a.Cut(b.Addr()), b.Cut(a.Addr())); err != nil {
		t.Fatal(err)
	}
	mend = sync.OnceFunc(func() {
		if err := errors.Join(a.Mend(b.Addr()), b.Mend(a.Addr())); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(mend)
	return mend
}

// has says what is wrong when a router does not have a server, or has it though it
// should not.
func (w *world) has(router int, server string, want bool) func(context.Context) error {
	return func(ctx context.Context) error {
		answer, err := w.Router(router).Resolve(ctx, &routerv1.ResolveRequest{Pool: lab.Pool})
		if err != nil {
			return err
		}
		has := slices.ContainsFunc(answer.GetServers(), func(s *routerv1.Server) bool { return s.GetServerId() == server })
		if has != want {
			return fmt.Errorf("router %d has %s: %t", router+1, server, has)
		}
		return nil
	}
}

// stale says what is wrong when a router does not say that it is stale, or says so
// though it should not.
func (w *world) stale(router int, want bool) func(context.Context) error {
	return func(ctx context.Context) error {
		answer, err := w.Router(router).Resolve(ctx, &routerv1.ResolveRequest{Pool: lab.Pool})
		if err != nil {
			return err
		}
		if got := answer.GetFreshness().GetStale(); got != want {
			return fmt.Errorf("router %d is stale: %t", router+1, got)
		}
		return nil
	}
}

// TestRouterCutOffFromTheCoordinator is of a router that the coordinator's network
// does not reach while a server crashes: it serves what it has, and says that this is
// old. The other router is not held up. When the cut ends, it has what it missed.
func TestRouterCutOffFromTheCoordinator(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, 5, 2)
	w.await("the second router's first view", w.has(1, "web-5", true))
	mend := sever(t, w.Host("router-1"), w.CoordinatorHost())
	w.await("a view that is known to be old", w.stale(0, true))
	if err := w.agents["web-5"].Crash(); err != nil {
		t.Fatal(err)
	}
	w.await("the removal at the other router", w.has(1, "web-5", false))
	for _, check := range []func(context.Context) error{w.has(0, "web-5", true), w.has(0, "web-1", true), w.stale(0, true), w.stale(1, false)} {
		if err := check(t.Context()); err != nil {
			t.Error(err)
		}
	}
	mend()
	w.await("the removal at the router that was cut off", w.has(0, "web-5", false))
	w.await("a fresh view", w.stale(0, false))
}

// TestCoordinatorCutOffFromHalfOfTheAgents removes nobody: their buddies reach them.
// One of the others that crashes meanwhile is removed all the same.
func TestCoordinatorCutOffFromHalfOfTheAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 8)
	before := w.ring()
	var mends []func()
	for _, server := range w.servers[:4] {
		mends = append(mends, sever(t, w.Host(server), w.CoordinatorHost()))
	}
	w.await("the loss of their streams", func(ctx context.Context) error {
		sessions, err := w.Admin().ListSessions(ctx, &coordinatorv1.ListSessionsRequest{Pool: lab.Pool})
		if n := len(sessions.GetSessions()); err == nil && n != 4 {
			err = fmt.Errorf("%d sessions", n)
		}
		return err
	})
	w.watchRouter(watched(5*time.Second, 2*time.Minute))
	sameRing(t, before, w.ring())
	w.nobodyRemoved()

	if err := w.agents["web-8"].Crash(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	w.await("the removal of a server that crashed", w.has(0, "web-8", false))
	t.Logf("removed after %s", time.Since(begin).Round(time.Millisecond))
	for _, mend := range mends {
		mend()
	}
	w.servers = w.servers[:7]
	w.settled()
	w.watchRouter(time.Second)
	removals, err := w.Removals(t.Context())
	if err != nil || len(removals) != 1 || removals[0].GetServerId() != "web-8" {
		t.Errorf("removed: %v, %v", removals, err)
	}
}
