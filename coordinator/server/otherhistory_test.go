package server_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Whoever has heard of a later leader of the same database is not served by this one.
func TestSubscribeOfALaterEpoch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		at := ringOf(t, w).GetRevision()
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", at)
		r.cancel()
		<-r.over
		r.at["default"].Epoch++
		r.subscribe()
		select {
		case err := <-r.over:
			if !errors.Is(err, member.ErrNotLeader) {
				t.Errorf("of a later epoch: %v, want ErrNotLeader", err)
			}
		case <-time.After(time.Second):
			t.Fatal("it is served")
		}
		if got := r.messages(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
		r.storeID = "another store"
		r.subscribe()
		r.caughtUp("default", at)
	})
}

// applied returns what the only router has confirmed of the default pool.
func (w *world) applied() uint64 {
	w.t.Helper()
	synctest.Wait()
	res, err := w.admin.ListRouters(w.t.Context(), &pb.ListRoutersRequest{})
	if err != nil || len(res.GetRouters()) != 1 || len(res.GetRouters()[0].GetApplied()) > 1 {
		w.t.Fatalf("routers: %v, %v", res, err)
	}
	for _, p := range res.GetRouters()[0].GetApplied() {
		return p.GetRevision()
	}
	return 0
}

// Who comes back has confirmed what it had, if it is of this history.
func TestRouterThatComesBackHasConfirmed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		alter func(*router)
		keeps bool
	}{
		"the same":       {func(*router) {}, true},
		"another store":  {func(r *router) { r.storeID = "another store" }, false},
		"another change": {func(r *router) { r.at["default"].ChangeId = "another" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newTable())
				w.join("web-1", "web-2", "web-3")
				at := ringOf(t, w).GetRevision()
				r := w.newRouter("r1").subscribe()
				r.caughtUp("default", at)
				if got := w.applied(); got != at {
					t.Fatalf("it has confirmed %d instead of %d", got, at)
				}
				r.hang()
				r.cancel()
				<-r.over
				c.alter(r)
				r.subscribe()
				r.caughtUp("default", at)
				if got := w.applied(); c.keeps && got != at || !c.keeps && got != 0 {
					t.Errorf("back again it has confirmed %d of %d", got, at)
				}
			})
		})
	}
}

// An ack of another history, or of a pool that is not there, confirms nothing.
func TestAcksOfAnotherHistoryConfirmNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3", "web-4")
		at := ringOf(t, w).GetRevision()
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", at)
		r.hang()
		for _, p := range []*pb.Position{
			{Pool: "default", Epoch: 1, Revision: at + 1000},
			{Pool: "default", Epoch: 1, Revision: at - 1, ChangeId: "another"},
			{Pool: "nope", Epoch: 1, Revision: 1},
		} {
			ack := &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: &pb.Ack{Applied: []*pb.Position{p}}}}
			if err := r.stream.Send(ack); err != nil {
				t.Fatal(err)
			}
			if got := w.applied(); got != at {
				t.Errorf("after an ack of %v it has confirmed %d instead of %d", p, got, at)
			}
		}
		if res, err := w.drain("web-2", time.Second); err != nil || !slices.Equal(named(res.GetMissing()), []string{"r1"}) {
			t.Errorf("drain: %v, %v; want r1 to be missing", res, err)
		}
	})
}
