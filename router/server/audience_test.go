package server

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
)

func joined(t *testing.T, a *audience, pool member.Pool) *watcher {
	t.Helper()
	return joinedFrom(t, a, pool, "192.0.2.1")
}

func joinedFrom(t *testing.T, a *audience, pool member.Pool, address string) *watcher {
	t.Helper()
	w, err := a.join(pool, quota.Source(netip.MustParseAddr(address)))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestAudience_WaitsForThoseWhoWereThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAudience()
		told, leaves, fresh := joined(t, a, "p"), joined(t, a, "p"), joined(t, a, "p")
		joined(t, a, "other")
		a.tell(told, 7)
		a.tell(leaves, 6)
		done := false
		go func() {
			if err := a.settle(t.Context(), []*edition{{pool: "p", seq: 7}}); err != nil {
				t.Error(err)
			}
			done = true
		}()
		synctest.Wait()
		// Who joins now begins with edition 7 at least.
		joined(t, a, "p")
		a.leave(leaves)
		synctest.Wait()
		if done {
			t.Fatal("did not wait for a watcher that has joined and was told nothing")
		}
		a.tell(fresh, 8)
		synctest.Wait()
		if !done {
			t.Fatal("still waits though all have been told or are gone")
		}
	})
}

func TestAudience_StopsWaitingWithItsContext(t *testing.T) {
	t.Parallel()
	a := newAudience()
	joined(t, a, "p")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.settle(ctx, []*edition{{pool: "p", seq: 1}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
}

// One source may have half of the places, and all together have them all.
func TestAudience_IsBounded(t *testing.T) {
	t.Parallel()
	a := newAudience()
	refused := func(address string) {
		t.Helper()
		if _, err := a.join("p", quota.Source(netip.MustParseAddr(address))); !errors.Is(err, member.ErrExhausted) {
			t.Errorf("one more from %s: %v, want %v", address, err, member.ErrExhausted)
		}
	}
	var last *watcher
	for _, address := range []string{"192.0.2.1", "192.0.2.2"} {
		for range maxWatchers / 2 {
			last = joinedFrom(t, a, "p", address)
		}
		refused(address)
	}
	refused("192.0.2.3")
	a.leave(last)
	refused("192.0.2.1")
	joinedFrom(t, a, "p", "192.0.2.3")
}
