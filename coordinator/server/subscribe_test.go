package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// subscribeRaw opens a stream and sends a hello, and leaves the rest to the test.
func subscribeRaw(t *testing.T, w *world, hello *pb.SubscribeHello) pb.MembershipService_SubscribeClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := pb.NewMembershipServiceClient(w.connect("agent")).Subscribe(ctx)
	if err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	if hello != nil {
		if err := stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: hello}}); err != nil {
			t.Fatalf("subscribe: %v", err)
		}
	}
	return stream
}

// relabel makes a change of a few bytes or of a few kilobytes.
func relabel(t *testing.T, w *world, id string, n, size int) uint64 {
	t.Helper()
	res, err := w.admin.UpdateServer(t.Context(), &pb.UpdateServerRequest{
		ServerId: id, UpdateMask: mask("labels"),
		Spec: &pb.ServerSpec{Labels: map[string]string{"n": fmt.Sprint(n), "filler": strings.Repeat("x", size)}},
	})
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	return res.GetRevision()
}

func TestSubscribeFollows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", 1)
		synctest.Wait()
		r.mu.Lock()
		if r.bookmarks != 1 {
			t.Errorf("%d bookmarks with what there was", r.bookmarks)
		}
		r.mu.Unlock()
		w.join("web-1", "web-2", "web-3")
		revision := relabel(t, w, "web-2", 1, 0)
		r.caughtUp("default", revision)
		if got, want := r.names("default"), []string{"web-1", "web-2", "web-3"}; !cmp.Equal(got, want) {
			t.Errorf("the router has %v", got)
		}
		if got := r.messages()[:3]; !cmp.Equal(got, []string{"start", "snapshot default 1", "synced"}) {
			t.Errorf("it began with %v", got)
		}
		// A pool that is made later appears by itself.
		if _, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"}); err != nil {
			t.Fatalf("create pool: %v", err)
		}
		r.caughtUp("games", 1)
		time.Sleep(10 * time.Second)
		r.mu.Lock()
		bookmarks := r.bookmarks
		r.mu.Unlock()
		if bookmarks < 9 {
			t.Errorf("%d bookmarks in 10 s", bookmarks)
		}
		r.messages()
	})
}

// A thousand routers that come at once cost one encoding.
func TestSubscribersShareASnapshot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		revision := relabel(t, w, "web-2", 1, 0)
		subscribe := func(from, to int) {
			var all []*router
			for n := from; n < to; n++ {
				all = append(all, w.newRouter(fmt.Sprintf("r%d", n)).subscribe())
			}
			for _, r := range all {
				r.caughtUp("default", revision)
				if got := r.names("default"); len(got) != 3 {
					t.Errorf("%s has %v", r.id, got)
				}
			}
		}
		for i, want := range []float64{1, 1, 2} {
			if i == 2 {
				revision = relabel(t, w, "web-2", 2, 0)
			}
			subscribe(50*i, 50*(i+1))
			if got := w.metric("buddyring_snapshots_encoded_total"); got != want {
				t.Errorf("%v snapshots were encoded, not %v", got, want)
			}
		}
	})
}

func TestSubscribeToSomePools(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		r := w.newRouter("r1").subscribe("games")
		agents := w.join("web-1", "web-2", "web-3")
		time.Sleep(20 * time.Second)
		if _, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "games"}); err != nil {
			t.Fatalf("create pool: %v", err)
		}
		r.caughtUp("games", 1)
		other := w.newRouter("r2").subscribe("default")
		agents[0].crash()
		other.holdsSuspect("web-1", true, 2*time.Second)
		w.gone("web-1", 5*time.Second)
		time.Sleep(time.Second)
		if got := r.messages(); !cmp.Equal(got, []string{"start", "synced", "snapshot games 1"}) {
			t.Errorf("got %v", got)
		}
	})
}

// A resume point is continued from without a gap; one of another history is not.
func TestSubscribeResumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", ringOf(t, w).GetRevision())
		r.cancel()
		<-r.over
		first := relabel(t, w, "web-1", 1, 0)
		last := relabel(t, w, "web-1", 2, 0)
		r.subscribe()
		r.caughtUp("default", last)
		want := []string{"start", fmt.Sprintf("delta default %d-%d", first-1, last), "synced"}
		if got := r.messages(); !cmp.Equal(got, want) {
			t.Errorf("resumed with %v instead of %v", got, want)
		}
		r.cancel()
		<-r.over

		r.storeID = "another store"
		r.subscribe()
		r.caughtUp("default", last)
		if got := r.messages(); !cmp.Equal(got[1:3], []string{"compacted default other", fmt.Sprintf("snapshot default %d", last)}) {
			t.Errorf("from another store: %v", got)
		}
		if got := w.alarms(); !cmp.Equal(got, []string{"STORE_CHANGED"}) {
			t.Errorf("alarms: %v", got)
		}
		r.cancel()
		<-r.over

		// A restored backup: the router has more than the table.
		r.at["default"].Revision += 1000
		r.subscribe()
		r.caughtUp("default", last)
		if got := r.messages(); got[1] != "compacted default other" {
			t.Errorf("from the future: %v", got)
		}
		if !slices.Contains(w.alarms(), "HISTORY_WENT_BACK") {
			t.Errorf("alarms: %v", w.alarms())
		}
		time.Sleep(15 * time.Minute)
		if got := w.alarms(); len(got) > 0 {
			t.Errorf("alarms stay for ever: %v", got)
		}
		w.edges("default", "STORE_CHANGED: router r1 comes from the store another store", "HISTORY_WENT_BACK: router r1 has",
			"HISTORY_WENT_BACK of r1 is over", "STORE_CHANGED is over")
	})
}

// A backup is restored, and nobody gives it a new identity: epochs and revisions
// come again, with other changes behind them. A router that has seen more is told
// so, whether those changes were made since or before the coordinator's start.
func TestRestoredBackupIsNoticed(t *testing.T) {
	t.Parallel()
	for name, restarted := range map[string]bool{"in the same run": false, "after another start": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				table := newTable()
				w := start(t, table)
				w.join("web-1", "web-2", "web-3")
				time.Sleep(20 * time.Second)
				backup := table.backup()
				restart := func() {
					w.shutDown()
					w.run()
					// A backup still names the leader that it was taken from.
					w.leads(5 * time.Second)
				}
				restart()
				r, faithful := w.newRouter("r1").subscribe(), w.newRouter("r2").subscribe()
				faithful.caughtUp("default", ringOf(t, w).GetRevision())
				faithful.cancel()
				<-faithful.over
				var last uint64
				for n := range 3 {
					last = relabel(t, w, "web-1", n, 0)
				}
				r.caughtUp("default", last)
				r.cancel()
				<-r.over

				w.table = backup
				restart()
				for n := range 3 {
					if again := relabel(t, w, "web-2", 100+n, 0); n == 2 && again != last {
						t.Fatalf("the restored history is at %d, the router's at %d", again, last)
					}
				}
				if restarted {
					restart()
				}
				r.subscribe()
				r.caughtUp("default", last)
				if got, want := r.messages()[1:3], []string{"compacted default other", fmt.Sprintf("snapshot default %d", last)}; !cmp.Equal(got, want) {
					t.Errorf("resumed with %v instead of %v", got, want)
				}
				if got := r.label("web-1", "n"); got != "" {
					t.Errorf("the router has a label of the other history: %s", got)
				}
				if got := w.alarms(); !cmp.Equal(got, []string{"HISTORY_WENT_BACK"}) {
					t.Errorf("alarms: %v", got)
				}
				r.cancel()
				<-r.over

				// Now it has this history, and can resume; so can one that has seen
				// nothing but what is in both.
				r.subscribe()
				faithful.subscribe()
				faithful.caughtUp("default", last)
				r.caughtUp("default", last)
				if got := r.messages(); !cmp.Equal(got, []string{"start", "synced"}) {
					t.Errorf("resumed the second time with %v", got)
				}
				if got := faithful.messages(); strings.HasSuffix(got[1], "other") {
					t.Errorf("the other router got %v", got)
				}
			})
		})
	}
}

// A new subscriber gets the marks that hold, with the time they have left.
func TestSubscribeGetsMarks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5")
		time.Sleep(20 * time.Second)
		release := table.hold() // so that the suspect stays
		defer release()
		first := w.newRouter("r1").subscribe()
		agents[0].crash()
		first.holdsSuspect("web-1", true, 2*time.Second)
		time.Sleep(3 * time.Second)

		stream := subscribeRaw(t, w, &pb.SubscribeHello{RouterId: "r2"})
		for {
			res, err := stream.Recv()
			if err != nil {
				t.Fatalf("receive: %v", err)
			}
			if res.GetSoftSynced() != nil {
				t.Fatal("synced without the mark")
			}
			if m := res.GetSoftMarks(); m != nil {
				mark := m.GetMarks()[0]
				if mark.GetServerId() != "web-1" || !mark.GetSuspect() {
					t.Errorf("mark: %v", mark)
				}
				if ttl := mark.GetTtl().AsDuration(); ttl <= 0 || ttl > 27*time.Second {
					t.Errorf("the mark holds for %s", ttl)
				}
				break
			}
		}
		res, err := stream.Recv()
		if err != nil || res.GetSoftSynced().GetSoftSeq() == 0 {
			t.Errorf("after the marks: %v, %v", res, err)
		}
	})
}

// A router that does not read costs nobody anything, and is dropped in the end.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		good := w.newRouter("good").subscribe()
		slow := subscribeRaw(t, w, &pb.SubscribeHello{RouterId: "slow"})
		var last uint64
		for n := range 100 {
			last = relabel(t, w, "web-1", n, 4000)
			synctest.Wait() // so that nothing is coalesced before the window is full
		}
		good.caughtUp("default", last)
		good.messages()
		time.Sleep(15 * time.Second)
		if err := endOf(slow.Recv); !errors.Is(err, member.ErrExhausted) {
			t.Errorf("the slow one ended with %v", err)
		}
		if got := w.metric("buddyring_streams_dropped_total", "service", "membership", "reason", "slow"); got != 1 {
			t.Errorf("buddyring_streams_dropped_total is %v", got)
		}
	})
}

// One that reads again in time gets what it missed as one delta.
func TestLateSubscriberGetsOneDelta(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		late := subscribeRaw(t, w, &pb.SubscribeHello{RouterId: "late"})
		var last uint64
		for n := range 100 {
			last = relabel(t, w, "web-1", n, 4000)
			synctest.Wait() // so that nothing is coalesced before the window is full
		}
		time.Sleep(5 * time.Second)
		var at uint64
		coalesced := false
		for at < last {
			res, err := late.Recv()
			if err != nil {
				t.Fatalf("receive: %v", err)
			}
			if s := res.GetSnapshot(); s != nil {
				at = s.GetPosition().GetRevision()
			}
			if d := res.GetDelta(); d != nil {
				if d.GetFromRevision() != at {
					t.Fatalf("delta from %d while at %d", d.GetFromRevision(), at)
				}
				at = d.GetPosition().GetRevision()
				coalesced = coalesced || at-d.GetFromRevision() > 10 && len(d.GetPut()) == 1
			}
		}
		if !coalesced {
			t.Error("nothing was coalesced")
		}
	})
}

func TestRoutersAreListed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		r := w.newRouter("r1").subscribe()
		w.join("web-1", "web-2", "web-3")
		revision := relabel(t, w, "web-1", 1, 0)
		r.caughtUp("default", revision)
		time.Sleep(15 * time.Second)
		row, ok := table.router("r1")
		if !ok || row.Version != "test" || len(row.Applied) != 1 || uint64(row.Applied[0].Revision) != revision {
			t.Errorf("row: %+v", row)
		}
		listed := func() *pb.Router {
			res, err := w.admin.ListRouters(t.Context(), &pb.ListRoutersRequest{})
			if err != nil || len(res.GetRouters()) != 1 {
				t.Fatalf("list: %v, %v", res, err)
			}
			return res.GetRouters()[0]
		}
		writes := table.routerWrites()
		for n := range 300 {
			relabel(t, w, "web-1", n, 0)
			time.Sleep(100 * time.Millisecond)
		}
		revision = ringOf(t, w).GetRevision()
		if got := table.routerWrites() - writes; got < 2 || got > 4 {
			t.Errorf("%d writes of the row in 30 s", got)
		}
		if got := listed(); !got.GetConnected() || got.GetApplied()[0].GetRevision() != revision {
			t.Errorf("listed: %v", got)
		}
		// It says goodbye: no alarm, and it leaves the table and then the list.
		if err := r.stream.CloseSend(); err != nil {
			t.Fatalf("close: %v", err)
		}
		if err := <-r.over; err == nil || errors.Is(err, member.ErrUnavailable) {
			t.Errorf("end of a stream that the router closed: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if got := listed(); got.GetConnected() {
			t.Errorf("listed after its end: %v", got)
		}
		if slices.Contains(w.alarms(), "ROUTER_SILENT") {
			t.Error("an alarm after a goodbye")
		}
		if row, ok := table.router("r1"); ok {
			t.Errorf("its row is still there: %+v", row)
		}
		time.Sleep(9 * time.Minute)
		if res, err := w.admin.ListRouters(t.Context(), &pb.ListRoutersRequest{}); err != nil || len(res.GetRouters()) != 0 {
			t.Errorf("listed long after its goodbye: %v, %v", res, err)
		}
	})
}

// A router that was there when the coordinator went must come back, or say
// goodbye.
func TestRouterIsMissedAfterARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.newRouter("faithful").subscribe()
		w.newRouter("lost").subscribe()
		time.Sleep(15 * time.Second)
		w.shutDown()
		w.run()
		w.newRouter("faithful").subscribe()
		time.Sleep(50 * time.Second)
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms come early: %v", got)
		}
		time.Sleep(20 * time.Second)
		res, err := w.admin.ListAlarms(t.Context(), &pb.ListAlarmsRequest{})
		if err != nil || len(res.GetAlarms()) != 1 || res.GetAlarms()[0].GetSubject() != "lost" {
			t.Errorf("alarms: %v, %v", res, err)
		}
		// A day later nobody waits for it any more.
		time.Sleep(24 * time.Hour)
		routers, err := w.admin.ListRouters(t.Context(), &pb.ListRoutersRequest{})
		if err != nil || len(routers.GetRouters()) != 1 || routers.GetRouters()[0].GetRouterId() != "faithful" {
			t.Errorf("routers: %v, %v", routers, err)
		}
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms: %v", got)
		}
	})
}

func TestSilentRouterRaisesAnAlarm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		conn := w.connect("agent")
		stream, err := pb.NewMembershipServiceClient(conn).Subscribe(t.Context())
		if err != nil {
			t.Fatalf("subscribe: %v", err)
		}
		hello := &pb.SubscribeHello{RouterId: "r1"}
		if err := stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: hello}}); err != nil {
			t.Fatalf("subscribe: %v", err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatalf("receive: %v", err)
		}
		_ = conn.Close() // the connection breaks
		time.Sleep(50 * time.Second)
		if slices.Contains(w.alarms(), "ROUTER_SILENT") {
			t.Error("the alarm came early")
		}
		time.Sleep(20 * time.Second)
		if !slices.Contains(w.alarms(), "ROUTER_SILENT") {
			t.Error("no alarm")
		}
		w.newRouter("r1").subscribe()
		time.Sleep(time.Second)
		if slices.Contains(w.alarms(), "ROUTER_SILENT") {
			t.Error("the alarm stays")
		}
		time.Sleep(6 * time.Second)
		w.edges("default", "ROUTER_SILENT: router r1 was", "ROUTER_SILENT of r1 is over")
	})
}
