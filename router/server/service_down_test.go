package server_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// health is a mark about the service of a server.
func health(seq uint64, id string, isDown bool) *pb.SubscribeResponse {
	no := false
	mark := &pb.SoftMark{Pool: "default", ServerId: id, Incarnation: 1, Suspect: &no, ServiceDown: &isDown, SoftSeq: seq}
	if isDown {
		mark.Ttl = durationpb.New(30 * time.Second)
	}
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftMarks{SoftMarks: &pb.SoftMarks{Epoch: 1, Marks: []*pb.SoftMark{mark}}}}
}

// Resolve, Pick and Watch agree about servers whose service is down: from the
// soft mark on, by the row, and while most of the pool is down.
func TestServiceDown(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(4)...)
		client := w.client()
		m := w.watch(client, nil)
		m.next()
		agree := func(what string, want ...string) {
			t.Helper()
			for !slices.Equal(m.lines(), slices.Sorted(slices.Values(want))) {
				m.next()
				if n := len(m.kinds); n > 50 {
					t.Fatalf("%s: the watcher has %v, want %v", what, m.lines(), want)
				}
			}
			if diff := cmp.Diff(want, w.resolved()); diff != "" {
				t.Errorf("%s: resolved (-want +got):\n%s", what, diff)
			}
			res, err := client.Pick(t.Context(), &routerv1.PickRequest{Count: 10})
			if err != nil {
				t.Fatal(err)
			}
			picked := map[string]string{}
			for _, c := range res.GetChoices() {
				picked[c.GetServerId()] = lines([]*routerv1.Server{{ServerId: c.GetServerId(), State: c.GetState()}})[0]
			}
			got := make([]string, 0, len(picked))
			for _, line := range picked {
				got = append(got, line)
			}
			slices.Sort(got)
			if diff := cmp.Diff(slices.Sorted(slices.Values(want)), got); diff != "" {
				t.Errorf("%s: picked (-want +got):\n%s", what, diff)
			}
		}
		s.send(health(1, "s001", true))
		agree("by the mark", "active s000", "active s002", "active s003")
		down := row("s001")
		down.Phase = pb.Phase_PHASE_SERVICE_DOWN
		s.send(delta(&pb.Delta{Position: at(1, 11), Put: []*pb.Server{down}}))
		s.send(health(2, "s000", true))
		agree("by the row", "active s002", "active s003")
		s.send(health(3, "s002", true))
		agree("more than half", "active s003", "service_down s000", "service_down s001", "service_down s002")
		s.send(health(4, "s002", false), health(5, "s001", false))
		s.send(delta(&pb.Delta{Position: at(1, 12), Put: []*pb.Server{row("s001")}}))
		agree("well again", "active s001", "active s002", "active s003")
		s.bookmarks(31, at(1, 12))
		agree("the mark has expired", "active s000", "active s001", "active s002", "active s003")
	}, first)
}

// Without a coordinator a mark stays: nobody is there to renew it.
func TestMarksDoNotExpireWithoutACoordinator(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 1), snapshot(at(1, 10), rows(4)...), synced(1, 0), bookmark(at(1, 10)), health(1, "s001", true))
		states := func() []string {
			synctest.Wait()
			res, err := w.client().Resolve(t.Context(), &routerv1.ResolveRequest{})
			if err != nil {
				t.Fatal(err)
			}
			return lines(res.GetServers())
		}
		marked := []string{"active s000", "active s002", "active s003"}
		if d := cmp.Diff(marked, states()); d != "" {
			t.Fatalf("marked (-want +got):\n%s", d)
		}
		w.remove(first)
		time.Sleep(10 * time.Minute)
		if d := cmp.Diff(marked, states()); d != "" {
			t.Errorf("without a coordinator (-want +got):\n%s", d)
		}
		s = w.coordinator(first).next()
		// It is another leader, which need not have seen yet what its predecessor saw.
		s.send(start("store", 2), synced(2, 0), bookmark(at(1, 10)))
		s.bookmarks(5, at(1, 10))
		if d := cmp.Diff(marked, states()); d != "" {
			t.Errorf("soon after the outage (-want +got):\n%s", d)
		}
		s.bookmarks(31, at(1, 10))
		if d := cmp.Diff([]string{"active s000", "active s001", "active s002", "active s003"}, states()); d != "" {
			t.Errorf("with one again (-want +got):\n%s", d)
		}
	}, first)
}
