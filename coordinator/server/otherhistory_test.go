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
		if err := <-r.over; !errors.Is(err, member.ErrNotLeader) {
			t.Errorf("of a later epoch: %v, want ErrNotLeader", err)
		}
		if got := r.messages(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
		r.storeID = "another store"
		r.subscribe()
		r.caughtUp("default", at)
	})
}

// What a router has of another history is nothing that it has applied.
func TestRevisionsOfAnotherHistoryConfirmNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3", "web-4")
		at := ringOf(t, w).GetRevision()
		applied := func() []*pb.Position {
			synctest.Wait()
			routers, err := w.admin.ListRouters(t.Context(), &pb.ListRoutersRequest{})
			if err != nil || len(routers.GetRouters()) != 1 {
				t.Fatalf("%v, %v", routers, err)
			}
			return routers.GetRouters()[0].GetApplied()
		}
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", at)
		if got := applied(); len(got) != 1 || got[0].GetRevision() != at {
			t.Fatalf("applied %v, want revision %d", got, at)
		}
		r.hang()
		r.cancel()
		<-r.over
		r.subscribe()
		r.caughtUp("default", at)
		if got := applied(); len(got) != 1 || got[0].GetRevision() != at {
			t.Errorf("after it came back: %v, want revision %d", got, at)
		}
		for _, p := range []*pb.Position{
			{Pool: "default", Epoch: 1, Revision: at + 1000},
			{Pool: "default", Epoch: 1, Revision: at + 1000, ChangeId: "another"},
			{Pool: "nope", Epoch: 1, Revision: 1},
		} {
			ack := &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: &pb.Ack{Applied: []*pb.Position{p}}}}
			if err := r.stream.Send(ack); err != nil {
				t.Fatal(err)
			}
		}
		if got := applied(); len(got) != 1 || got[0].GetRevision() != at {
			t.Errorf("after acks of another history: %v, want revision %d", got, at)
		}
		if res, err := w.drain("web-2", time.Second); err != nil || !slices.Equal(named(res.GetMissing()), []string{"r1"}) {
			t.Errorf("drain: %v, %v; want r1 to be missing", res, err)
		}
		r.cancel()
		<-r.over
		r.storeID = "another store"
		r.subscribe()
		r.caughtUp("default", ringOf(t, w).GetRevision())
		for _, p := range applied() {
			if p.GetRevision() != 0 {
				t.Errorf("from another store it has applied %v", p)
			}
		}
	})
}
