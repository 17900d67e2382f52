package server_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

func TestSubscribe_CatchesUp(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		health := healthv1.NewHealthClient(w.conn())
		serving := func() bool {
			res, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "buddyring.router.v1.RouterService"})
			return err == nil && res.GetStatus() == healthv1.HealthCheckResponse_SERVING
		}
		if _, err := w.client().Resolve(t.Context(), &routerv1.ResolveRequest{}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("before any state: %v, want %v", err, member.ErrUnavailable)
		}
		if code, _ := w.get("/readyz"); code != http.StatusServiceUnavailable || serving() {
			t.Errorf("ready (%d) or serving before any state", code)
		}
		want := &pb.SubscribeHello{RouterId: "r1", Version: "test", Run: s.hello.GetRun()}
		if diff := cmp.Diff(want, s.hello, protocmp.Transform()); diff != "" {
			t.Errorf("hello (-want +got):\n%s", diff)
		}

		draining := row("s001")
		draining.Phase = pb.Phase_PHASE_DRAINING
		s.send(start("store", 7), snapshot(at(6, 10), row("s002"), draining, row("s000")),
			delta(&pb.Delta{Position: at(7, 11), Put: []*pb.Server{row("s003")}}),
			suspect(7, 4, "s000", time.Minute), synced(7, 4), bookmark(at(7, 11)))

		if diff := cmp.Diff([]string{"active s002", "active s003", "suspect s000"}, w.resolved()); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
		no := false
		fresh := &routerv1.Freshness{StoreId: "store", Epoch: 7, Revision: 11, Stale: &no}
		if diff := cmp.Diff(fresh, w.freshness(), protocmp.Transform(), protocmp.IgnoreFields(fresh, "age")); diff != "" {
			t.Errorf("freshness (-want +got):\n%s", diff)
		}
		ack := &pb.Ack{Applied: []*pb.Position{at(7, 11)}, SoftSeq: 4, SoftEpoch: 7}
		if diff := cmp.Diff(ack, s.ack(), protocmp.Transform()); diff != "" {
			t.Errorf("ack (-want +got):\n%s", diff)
		}
		if code, _ := w.get("/readyz"); code != http.StatusOK || !serving() {
			t.Errorf("readyz %d, serving %v with a state", code, serving())
		}
		if got := w.value("buddyring_router_connected"); got != 1 {
			t.Errorf("connected = %v, want 1", got)
		}
	}, first)
}

func TestSubscribe_ResumesAfterALostStream(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		s.send(suspect(1, 1, "s001", time.Minute))
		run := s.hello.GetRun()
		if run == "" {
			t.Error("the router does not say which run it is")
		}
		s.end <- member.ErrUnavailable
		s = w.coordinators[second].next()
		want := &pb.SubscribeHello{RouterId: "r1", Version: "test", Run: run, StoreId: "store", Resume: []*pb.Position{at(1, 10)}}
		if diff := cmp.Diff(want, s.hello, protocmp.Transform()); diff != "" {
			t.Errorf("hello (-want +got):\n%s", diff)
		}
		s.send(start("store", 1), delta(&pb.Delta{Position: at(1, 11), Removed: crashed("s002")}))
		if diff := cmp.Diff([]string{"active s000", "suspect s001"}, w.resolved()); diff != "" {
			t.Errorf("before the marks are synced (-want +got):\n%s", diff)
		}
		s.send(synced(1, 2))
		if diff := cmp.Diff([]string{"active s000", "active s001"}, w.resolved()); diff != "" {
			t.Errorf("after the marks are synced (-want +got):\n%s", diff)
		}
	}, first, second)
}

func TestSubscribe_TakesASnapshotWhereTheHistoryWasCompacted(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		s.end <- member.ErrUnavailable
		s = w.coordinators[second].next()
		s.send(start("store", 2), compacted(), snapshot(at(2, 500), row("new"), row("s001")))
		if diff := cmp.Diff([]string{"active new", "active s001"}, w.resolved()); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]*pb.Position{at(2, 500)}, s.ack().GetApplied(), protocmp.Transform()); diff != "" {
			t.Errorf("ack (-want +got):\n%s", diff)
		}
	}, first, second)
}

func compacted() *pb.SubscribeResponse {
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Compacted{Compacted: &pb.Compacted{Pool: "default"}}}
}

// A new leader does not know what its predecessor has removed, and why: it sends a
// snapshot. If that takes most of a pool, it is as sudden as a delta that does; but not
// where nothing was heard for longer than any coordinator keeps changes.
func TestSubscribe_ASnapshotAfterAFailoverMayNotHalveAPool(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		silence time.Duration
		want    []string
	}{
		"soon":  {9 * time.Minute, []string{"active s003", "held_back s000", "held_back s001", "held_back s002"}},
		"later": {11 * time.Minute, []string{"active s003"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				s := w.coordinators[first].next()
				s.send(catchUp(4)...)
				w.remove(first)
				time.Sleep(c.silence)
				s = w.coordinator(first).next()
				s.send(start("store", 2), compacted(), snapshot(at(2, 11), row("s003")), synced(2, 0), bookmark(at(2, 11)))
				if diff := cmp.Diff(c.want, w.resolved()); diff != "" {
					t.Errorf("resolved (-want +got):\n%s", diff)
				}
				if got := s.ack().GetHeld(); len(got) != len(c.want)-1 {
					t.Errorf("acknowledged %v as held", got)
				}
			}, first)
		})
	}
}

// After a gap the router asks the same coordinator again for what is missing.
func TestSubscribe_AsksAgainAfterAGap(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]*pb.SubscribeResponse{
		"delta from later": delta(&pb.Delta{FromRevision: 12, Position: at(1, 13), Put: rows(1)}),
		"bookmark ahead":   bookmark(at(1, 11)),
		"unknown pool":     bookmark(at(1, 10), &pb.Position{Pool: "other", Epoch: 1, Revision: 1}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				s := w.coordinators[first].next()
				s.send(catchUp(2)...)
				s.send(wrong)
				s = w.coordinators[first].next()
				if diff := cmp.Diff([]*pb.Position{at(1, 10)}, s.hello.GetResume(), protocmp.Transform()); diff != "" {
					t.Errorf("resume (-want +got):\n%s", diff)
				}
				if len(w.coordinators[second].sessions) > 0 {
					t.Error("another coordinator was asked")
				}
			}, first, second)
		})
	}
}

func TestSubscribe_LeavesACoordinatorThatWasSucceeded(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 5), snapshot(at(5, 10), rows(2)...), synced(5, 0), bookmark(at(5, 10)))
		s.send(delta(&pb.Delta{Position: at(4, 11), Removed: crashed("s000")}))
		if got := len(w.resolved()); got != 2 {
			t.Errorf("%d servers after a delta of a lower epoch, want 2", got)
		}
		s.end <- member.ErrUnavailable
		w.coordinators[second].next().send(start("store", 4))
		before := time.Now()
		s = w.coordinators[first].next()
		if took := time.Since(before); took > time.Second {
			t.Errorf("left after %v, want at once", took)
		}
		s.send(start("store", 6), bookmark(at(6, 10)))
		if got := w.freshness(); got.GetEpoch() != 6 || got.GetStale() {
			t.Errorf("freshness %v, want epoch 6 and not stale", got)
		}
	}, first, second)
}

// The successor had nothing to say yet, and is known all the same.
func TestSubscribe_RemembersAnEpochWithoutNews(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2)...)
		s.end <- member.ErrUnavailable
		s = w.coordinators[second].next()
		s.send(start("store", 5))
		s.end <- member.ErrUnavailable
		w.coordinators[first].next().send(start("store", 4))
		before := time.Now()
		w.coordinators[second].next()
		if took := time.Since(before); took > time.Second {
			t.Errorf("left after %v, want at once", took)
		}
	}, first, second)
}

func TestSubscribe_FollowsTheLeaderThatAStandbyNames(t *testing.T) {
	t.Parallel()
	const leader = "c9.test:7400"
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next().end <- &member.NotLeaderError{Leader: leader}
		w.coordinators[leader].next().send(catchUp(1)...)
		if got := w.freshness(); got.GetRevision() != 10 {
			t.Errorf("revision %d, want 10", got.GetRevision())
		}
	}, first, second, leader)
}

// As long as there is no leader, standbys name the one before. The next one is gone to
// as soon as it is named, however long that took.
func TestSubscribe_FollowsANewLeaderAtOnce(t *testing.T) {
	t.Parallel()
	const old, leader = "c8.test:7400", "c9.test:7400"
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		standby := w.coordinators[first]
		asked := 0
		for begin := time.Now(); time.Since(begin) < 20*time.Second; asked++ {
			standby.next().end <- &member.NotLeaderError{Leader: old}
		}
		if asked > 15 {
			t.Errorf("a standby was asked %d times in 20 s", asked)
		}
		standby.next().end <- &member.NotLeaderError{Leader: leader}
		begin := time.Now()
		w.coordinators[leader].next().send(catchUp(1)...)
		if took := time.Since(begin); took > 300*time.Millisecond {
			t.Errorf("the new leader was asked after %v", took)
		}
	}, first, leader)
}

func TestSubscribe_MarksExpire(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2)...)
		s.send(suspect(1, 1, "s000", 10*time.Second))
		s.bookmarks(9, at(1, 10))
		if diff := cmp.Diff([]string{"active s001", "suspect s000"}, w.resolved()); diff != "" {
			t.Errorf("before its time (-want +got):\n%s", diff)
		}
		s.bookmarks(2, at(1, 10))
		if diff := cmp.Diff([]string{"active s000", "active s001"}, w.resolved()); diff != "" {
			t.Errorf("after its time (-want +got):\n%s", diff)
		}
	}, first)
}

// A pool that the coordinator has stopped to serve is told from a coordinator that
// is out of reach.
func TestSubscribe_PoolIsNotServed(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2)...)
		if got := w.freshness(); got.GetStale() || got.NotServed != nil {
			t.Errorf("got %v, want fresh", got)
		}
		s.bookmarks(4) // of no pool
		if got := w.freshness(); !got.GetStale() || !got.GetNotServed() {
			t.Errorf("got %v, want stale and not served", got)
		}
		if _, text := w.get("/v1/pools"); !strings.Contains(text, `"not_served":true`) {
			t.Errorf("by HTTP: %s", text)
		}
		time.Sleep(3100 * time.Millisecond)
		synctest.Wait()
		if got := w.freshness(); !got.GetStale() || got.NotServed != nil {
			t.Errorf("without a coordinator: %v", got)
		}
		s = w.coordinators[second].next()
		s.send(start("store", 1), snapshot(at(1, 11), rows(1)...), synced(1, 0), bookmark(at(1, 11)))
		if got := w.freshness(); got.GetStale() || got.NotServed != nil {
			t.Errorf("served again: %v", got)
		}
	}, first, second)
}

func TestSubscribe_SilentCoordinator(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2)...)
		s.bookmarks(5, at(1, 10))
		time.Sleep(2900 * time.Millisecond)
		if got := w.freshness(); got.GetStale() || got.GetAge().AsDuration() < 2900*time.Millisecond {
			t.Errorf("2.9 s after the last bookmark: %v", got)
		}
		if len(w.coordinators[second].sessions) > 0 {
			t.Error("the other coordinator was asked before three bookmarks were missed")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if got := w.freshness(); !got.GetStale() {
			t.Errorf("3.1 s after the last bookmark: %v, want stale", got)
		}
		s = w.coordinators[second].next()
		s.send(start("store", 1), synced(1, 0), bookmark(at(1, 10)))
		if got := w.freshness(); got.GetStale() || got.GetAge().AsDuration() > time.Second {
			t.Errorf("with another coordinator: %v, want fresh", got)
		}
	}, first, second)
}

// A router that waits for its turn to get a snapshot stays as long as it hears that
// the coordinator is there, and does not take that for news: it still cannot say that a pool
// does not exist.
func TestSubscribe_WaitsForItsTurn(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 1))
		for range 30 {
			time.Sleep(time.Second)
			s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftMarks{SoftMarks: &pb.SoftMarks{Epoch: 1}}})
		}
		if len(w.coordinators[second].sessions) > 0 {
			t.Error("the other coordinator was asked")
		}
		if _, err := w.client().Resolve(t.Context(), &routerv1.ResolveRequest{Pool: "default"}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("before the snapshot: %v, want %v", err, member.ErrUnavailable)
		}
		if code, _ := w.get("/readyz"); code != http.StatusServiceUnavailable {
			t.Errorf("readyz %d before the snapshot", code)
		}
		s.send(snapshot(at(1, 10), rows(2)...), synced(1, 0), bookmark(at(1, 10)))
		if got := len(w.resolved()); got != 2 {
			t.Errorf("%d servers, want 2", got)
		}
	}, first, second)
}

// A router that is told to end says so, and does not wait long for an answer.
func TestSubscribe_SaysGoodbye(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		began := time.Now()
		w.stopRouter()
		if took := time.Since(began); !s.saidGoodbye() || took > 100*time.Millisecond {
			t.Errorf("goodbye is %t after %v", s.saidGoodbye(), took)
		}

		w.start()
		s = w.coordinators[first].next()
		s.deaf.Store(true)
		s.send(catchUp(3)...)
		began = time.Now()
		w.stopRouter()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v to end beside a coordinator that does not answer", took)
		}
	}, first)
}

func TestSubscribe_ServesForEverWithoutCoordinators(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(2)...)
		s.bookmarks(1, at(1, 10))
		w.remove(first)
		time.Sleep(time.Hour)
		if got := w.freshness(); !got.GetStale() || got.GetAge().AsDuration() < time.Hour {
			t.Errorf("an hour later: %v", got)
		}
		if got := len(w.resolved()); got != 2 {
			t.Errorf("%d servers, want 2", got)
		}
		if got := w.value("buddyring_router_view_stale"); got != 1 {
			t.Errorf("view_stale = %v, want 1", got)
		}
	}, first)
}

func TestSubscribe_AnotherStore(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(10)...)
		s.send(snapshot(&pb.Position{Pool: "old", Epoch: 1, Revision: 5}, rows(1)...))
		s.end <- member.ErrUnavailable
		s = w.coordinators[second].next()
		s.send(start("other", 1),
			&pb.SubscribeResponse{Message: &pb.SubscribeResponse_Compacted{Compacted: &pb.Compacted{Pool: "default"}}},
			snapshot(at(1, 3), rows(2)...), synced(1, 0), bookmark(at(1, 3)))
		want := []string{
			"active s000", "active s001", "held_back s002", "held_back s003", "held_back s004", "held_back s005",
			"held_back s006", "held_back s007", "held_back s008", "held_back s009",
		}
		res, err := w.client().Resolve(t.Context(), &routerv1.ResolveRequest{Pool: "default"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, lines(res.GetServers())); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
		if got := res.GetFreshness(); got.GetStoreId() != "other" || got.GetRevision() != 3 {
			t.Errorf("freshness %v", got)
		}
		if got := w.value("buddyring_router_history_changes_total"); got != 1 {
			t.Errorf("history_changes_total = %v, want 1", got)
		}
		// What comes without a snapshot of the new store is a gap, even where the
		// revision would fit, and is no reason to forget what there is.
		s.send(delta(&pb.Delta{Position: &pb.Position{Pool: "old", Epoch: 1, Revision: 6}}))
		before := time.Now()
		hello := w.coordinators[second].next().hello
		if took := time.Since(before); took > time.Second {
			t.Errorf("asked again after %v, want at once", took)
		}
		if diff := cmp.Diff([]*pb.Position{at(1, 3)}, hello.GetResume(), protocmp.Transform()); diff != "" || hello.GetStoreId() != "other" {
			t.Errorf("resume from store %s (-want +got):\n%s", hello.GetStoreId(), diff)
		}
		if _, err := w.client().Pick(t.Context(), &routerv1.PickRequest{Pool: "old"}); err != nil {
			t.Errorf("pick from a pool of the old store: %v", err)
		}
	}, first, second)
}

// A restored backup may come to revisions that the router knows, with other
// changes behind them. The coordinator tells by the changes that the router has
// applied last.
func TestSubscribe_OtherHistoryOfTheSameStore(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		named := func(revision uint64, change string) *pb.Position {
			return &pb.Position{Pool: "default", Epoch: 1, Revision: revision, ChangeId: change}
		}
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 1), snapshot(named(10, "ten"), rows(4)...), synced(1, 0), bookmark(at(1, 10)))
		s.send(delta(&pb.Delta{Position: named(11, "eleven"), Put: rows(1)}))
		if diff := cmp.Diff([]*pb.Position{named(11, "eleven")}, s.ack().GetApplied(), protocmp.Transform()); diff != "" {
			t.Errorf("ack (-want +got):\n%s", diff)
		}
		s.bookmarks(2, at(1, 11))
		w.stopRouter()
		w.start() // what was applied last is on disk
		s = w.coordinators[first].next()
		if diff := cmp.Diff([]*pb.Position{named(11, "eleven")}, s.hello.GetResume(), protocmp.Transform()); diff != "" {
			t.Errorf("resume (-want +got):\n%s", diff)
		}
		yes := true
		s.send(start("store", 1),
			&pb.SubscribeResponse{Message: &pb.SubscribeResponse_Compacted{Compacted: &pb.Compacted{Pool: "default", OtherHistory: &yes}}},
			snapshot(named(11, "another eleven"), rows(1)...), synced(1, 0), bookmark(at(1, 11)))
		want := []string{"active s000", "held_back s001", "held_back s002", "held_back s003"}
		if diff := cmp.Diff(want, w.resolved()); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]*pb.Position{named(11, "another eleven")}, s.ack().GetApplied(), protocmp.Transform()); diff != "" {
			t.Errorf("ack (-want +got):\n%s", diff)
		}
		if got := w.value("buddyring_router_history_changes_total"); got != 1 {
			t.Errorf("history_changes_total = %v, want 1", got)
		}
	}, first)
}

func TestSubscribe_HoldsBackAndSaysSo(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		s.send(delta(&pb.Delta{Position: at(1, 11), Removed: crashed("s000", "s001")}))
		if diff := cmp.Diff([]string{"active s002", "held_back s000", "held_back s001"}, w.resolved()); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
		want := []*pb.HeldServer{{Pool: "default", ServerId: "s000", Incarnation: 1}, {Pool: "default", ServerId: "s001", Incarnation: 1}}
		if diff := cmp.Diff(want, s.ack().GetHeld(), protocmp.Transform()); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
		yes := true
		s.send(delta(&pb.Delta{Position: at(1, 12), MassChangeConfirmed: &yes}))
		if diff := cmp.Diff([]string{"active s002"}, w.resolved()); diff != "" {
			t.Errorf("after the confirmation (-want +got):\n%s", diff)
		}
		if got := s.ack().GetHeld(); len(got) > 0 {
			t.Errorf("held %v after the confirmation", got)
		}
	}, first)
}

func TestSubscribe_PoolDeleted(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		watch, err := w.client().Watch(t.Context(), &routerv1.WatchRequest{Pool: "default"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_PoolDeleted{PoolDeleted: &pb.PoolDeleted{Pool: "default", Epoch: 1}}})
		if _, err := watch.Recv(); !errors.Is(err, member.ErrNotFound) {
			t.Errorf("watch ended with %v, want %v", err, member.ErrNotFound)
		}
		if _, err := w.client().Resolve(t.Context(), &routerv1.ResolveRequest{}); !errors.Is(err, member.ErrNotFound) {
			t.Errorf("resolve: %v, want %v", err, member.ErrNotFound)
		}
	}, first)
}

// What a leader of the past says of a pool is not heard.
func TestSubscribe_PoolDeletedByAnOldLeader(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_PoolDeleted{PoolDeleted: &pb.PoolDeleted{Pool: "default"}}})
		if got := len(w.resolved()); got != 3 {
			t.Errorf("%d servers", got)
		}
	}, first)
}

// A coordinator that breaks the contract is left, and the last good view stays.
func TestSubscribe_RefusesGarbage(t *testing.T) {
	t.Parallel()
	bad := func(change func(*pb.Server)) *pb.SubscribeResponse {
		r := row("s000")
		change(r)
		return delta(&pb.Delta{Position: at(1, 11), Put: []*pb.Server{r}})
	}
	weight := uint32(10_001)
	for name, garbage := range map[string]*pb.SubscribeResponse{
		"second start":  start("store", 1),
		"id":            bad(func(s *pb.Server) { s.ServerId = "../etc" }),
		"weight":        bad(func(s *pb.Server) { s.Spec.Weight = &weight }),
		"address":       bad(func(s *pb.Server) { s.Spec.Endpoints[0].Address = "nowhere" }),
		"endpoint":      bad(func(s *pb.Server) { s.Spec.Endpoints[1].Name = "http" }),
		"no spec":       snapshot(at(1, 11), &pb.Server{}),
		"pool":          snapshot(&pb.Position{Pool: "A B"}),
		"mark's pool":   {Message: &pb.SubscribeResponse_SoftMarks{SoftMarks: &pb.SoftMarks{Marks: []*pb.SoftMark{{}}}}},
		"bookmark pool": bookmark(&pb.Position{}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.start()
				s := w.coordinators[first].next()
				s.send(catchUp(2)...)
				s.send(garbage)
				before := time.Now()
				w.coordinators[second].next()
				if took := time.Since(before); took > time.Second {
					t.Errorf("left after %v, want at once", took)
				}
				if got := len(w.resolved()); got != 2 {
					t.Errorf("%d servers, want 2", got)
				}
			}, first, second)
		})
	}
}

// Kinds, phases and causes of a newer coordinator do no harm.
func TestSubscribe_ToleratesWhatIsNew(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(3)...)
		unknown := row("s000")
		unknown.Phase = 99
		s.send(&pb.SubscribeResponse{}, delta(&pb.Delta{Position: at(1, 11), Put: []*pb.Server{unknown}}),
			delta(&pb.Delta{Position: at(1, 12), Removed: removed(99, "s001", "s002")}))
		if diff := cmp.Diff([]string{"held_back s001", "held_back s002"}, w.resolved()); diff != "" {
			t.Errorf("resolved (-want +got):\n%s", diff)
		}
	}, first)
}
