//go:build lab && linux

package lab_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// audience asks every router all the time, as clients do, and checks what all answers
// must be: no router goes back behind what it has told, and none leaves out a server
// that nothing was done to.
type audience struct {
	w       *world
	routers []*heard
}

// heard is what one router has told.
type heard struct {
	mu sync.Mutex
	// epoch and revision are the last ones, stale says whether they were confirmed.
	epoch, revision uint64
	stale           bool
	// harmed is since when servers may be missing; suspect and gone is when each of
	// these was first told to be so.
	harmed, suspect, gone map[string]time.Time
}

// audience asks until the returned function is called, or the test ends.
func (w *world) audience(routers int) (a *audience, leave func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	a = &audience{w: w}
	servers := slices.Clone(w.servers)
	var asking sync.WaitGroup
	for i := range routers {
		h := &heard{harmed: map[string]time.Time{}, suspect: map[string]time.Time{}, gone: map[string]time.Time{}}
		a.routers = append(a.routers, h)
		asking.Go(func() { h.listen(ctx, w, i, servers) })
	}
	leave = func() {
		cancel()
		asking.Wait()
	}
	w.t.Cleanup(leave)
	return a, leave
}

// listen asks a router until ctx ends, and calls its first wrong answer an error.
func (h *heard) listen(ctx context.Context, w *world, i int, servers []string) {
	for complained := false; ctx.Err() == nil; {
		// A router that is stopped says nothing.
		within, cancel := context.WithTimeout(ctx, time.Second)
		answer, err := w.Router(i).Resolve(within, &routerv1.ResolveRequest{Pool: lab.Pool})
		cancel()
		if err == nil {
			if wrong := h.take(answer, servers); wrong != nil && !complained {
				w.t.Errorf("router %d: %v", i+1, wrong)
				complained = true
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// take takes an answer in, and says what is wrong with it.
func (h *heard) take(answer *routerv1.ResolveResponse, servers []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := answer.GetFreshness()
	if now.GetEpoch() < h.epoch || now.GetRevision() < h.revision {
		return fmt.Errorf("epoch %d, revision %d after %d, %d", now.GetEpoch(), now.GetRevision(), h.epoch, h.revision)
	}
	h.epoch, h.revision, h.stale = now.GetEpoch(), now.GetRevision(), now.GetStale()
	named := map[string]routerv1.State{}
	for _, s := range answer.GetServers() {
		named[s.GetServerId()] = s.GetState()
	}
	for _, server := range servers {
		state, there := named[server]
		_, harmed := h.harmed[server]
		switch {
		case !harmed && !there:
			return fmt.Errorf("%s is missing", server)
		case harmed && !there:
			note(h.gone, server)
		case harmed && state == routerv1.State_STATE_SUSPECT:
			note(h.suspect, server)
		}
	}
	return nil
}

func note(times map[string]time.Time, server string) {
	if _, ok := times[server]; !ok {
		times[server] = time.Now()
	}
}

// harms says that a server may be missing from now on.
func (a *audience) harms(server string) {
	for _, h := range a.routers {
		h.mu.Lock()
		note(h.harmed, server)
		h.mu.Unlock()
	}
}

// crash lets the host of a server crash.
func (a *audience) crash(server string) {
	a.w.t.Helper()
	a.harms(server)
	if err := a.w.agents[server].Crash(); err != nil {
		a.w.t.Fatal(err)
	}
	a.w.servers = slices.DeleteFunc(slices.Clone(a.w.servers), func(s string) bool { return s == server })
}

// steers waits until a router steers clients away from a server that has crashed, and
// returns how soon it did, and whether by a mark, before the removal.
func (a *audience) steers(router int, server string) (took time.Duration, marked bool) {
	a.w.t.Helper()
	h := a.routers[router]
	a.w.await(fmt.Sprintf("the mark of %s at router %d", server, router+1), func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		at, suspect := h.suspect[server]
		if !suspect {
			at = h.gone[server]
		}
		if at.IsZero() {
			return fmt.Errorf("it calls %s well", server)
		}
		took, marked = at.Sub(h.harmed[server]), suspect
		return nil
	})
	return took, marked
}

// removed waits until a router does not name a server any more.
func (a *audience) removed(router int, server string) {
	a.w.t.Helper()
	h := a.routers[router]
	a.w.await(fmt.Sprintf("the removal of %s at router %d", server, router+1), func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, gone := h.gone[server]; !gone {
			return fmt.Errorf("it still names %s", server)
		}
		return nil
	})
}

// follows waits until a router tells what the leader of an epoch confirms.
func (a *audience) follows(router int, epoch uint64) {
	a.w.t.Helper()
	h := a.routers[router]
	a.w.await(fmt.Sprintf("the new leader's word at router %d", router+1), func(context.Context) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.epoch != epoch || h.stale {
			return fmt.Errorf("epoch %d, stale %t; want epoch %d", h.epoch, h.stale, epoch)
		}
		return nil
	})
}
