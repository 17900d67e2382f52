package server_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// draining starts a coordinator with four servers and two routers, which have
// confirmed all.
func draining(t *testing.T, table server.Store) (w *world, agents []*agent, r1, r2 *router) {
	t.Helper()
	w = start(t, table)
	r1, r2 = w.newRouter("r1").subscribe(), w.newRouter("r2").subscribe()
	agents = w.join("web-1", "web-2", "web-3", "web-4")
	synctest.Wait()
	return w, agents, r1, r2
}

func (w *world) drain(id string, timeout time.Duration) (*pb.DrainServerResponse, error) {
	return w.admin.DrainServer(w.t.Context(), &pb.DrainServerRequest{ServerId: id, Timeout: durationpb.New(timeout)})
}

// named are the routers that an answer names.
func named(lags []*pb.LaggingRouter) []string {
	var ids []string
	for _, l := range lags {
		ids = append(ids, l.GetRouterId())
	}
	return ids
}

func TestDrainIsSafeWhenRoutersHaveConfirmed(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w, _, r1, _ := draining(t, table)
		begin := time.Now()
		res, err := w.drain("web-2", time.Minute)
		if err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE || len(res.GetMissing()) > 0 || res.GetServer().GetPhase() != pb.Phase_PHASE_DRAINING {
			t.Fatalf("drain: %v, %v", res, err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %s", took)
		}
		r1.mu.Lock()
		if got := r1.servers["default"]["web-2"]; got.GetPhase() != pb.Phase_PHASE_DRAINING {
			t.Errorf("SAFE, and a router has %v", got)
		}
		r1.mu.Unlock()
		// It stays until an operator says otherwise.
		time.Sleep(time.Hour)
		if got := w.phases()["web-2"]; got != pb.Phase_PHASE_DRAINING {
			t.Errorf("after an hour it is %s", got)
		}
		back, err := w.admin.ResumeServer(t.Context(), &pb.ResumeServerRequest{ServerId: "web-2"})
		if err != nil || back.GetServer().GetPhase() != pb.Phase_PHASE_ACTIVE || back.GetRevision() <= res.GetRevision() {
			t.Errorf("resume: %v, %v", back, err)
		}
	})
}

// A router that confirms nothing is named, whether it is connected or has gone
// without a word; one that said goodbye a minute ago, or was not seen for long, is
// not waited for. Without any router its last list stays in use for longer.
func TestDrainIsPartialWithoutARouter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, r1, r2 := draining(t, newTable())
		r2.hang()
		begin := time.Now()
		res, err := w.drain("web-2", 3*time.Second)
		if err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_PARTIAL || !slices.Equal(named(res.GetMissing()), []string{"r2"}) {
			t.Fatalf("drain: %v, %v", res, err)
		}
		lag := res.GetMissing()[0]
		if took := time.Since(begin); took < 3*time.Second || took > 4*time.Second || !lag.GetConnected() ||
			lag.GetAppliedRevision() >= res.GetRevision() || lag.GetLastSeen().AsTime().After(begin.Add(3*time.Second)) {
			t.Errorf("after %s: %v", took, lag)
		}
		routers, err := w.admin.ListRouters(t.Context(), &pb.ListRoutersRequest{})
		if err != nil || len(routers.GetRouters()) != 2 || len(routers.GetRouters()[0].GetLags()) != 0 {
			t.Fatalf("routers: %v, %v", routers, err)
		}
		if l := routers.GetRouters()[1].GetLags(); len(l) != 1 || l[0].GetPool() != "default" || l[0].GetRevisions() != 1 || l[0].GetSince().AsTime().Before(begin) {
			t.Errorf("lags: %v", l)
		}
		if err := r2.stream.CloseSend(); err != nil { // its goodbye
			t.Fatal(err)
		}
		if res, err = w.drain("web-2", 3*time.Second); err != nil || !slices.Equal(named(res.GetMissing()), []string{"r2"}) {
			t.Errorf("drain right after its goodbye: %v, %v", res, err)
		}
		if res, err = w.drain("web-2", time.Minute); err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("drain a minute after its goodbye: %v, %v", res, err)
		}
		r1.hang()
		if err := r1.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if res, err = w.drain("web-3", 2*time.Minute); err != nil || !slices.Equal(named(res.GetMissing()), []string{"r1", "r2"}) {
			t.Errorf("drain after the goodbye of all routers: %v, %v", res, err)
		}
		if res, err = w.drain("web-3", 10*time.Minute); err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("drain long after the goodbye of all routers: %v, %v", res, err)
		}
	})
}

// Two routers that were given one id do not confirm for each other.
func TestDrainWaitsForBothRoutersOfOneID(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		one, other := w.newRouter("r1"), w.newRouter("r1")
		one.run, other.run = "a", "b"
		w.join("web-1", "web-2", "web-3", "web-4")
		one.subscribe()
		other.hang()
		other.subscribe()
		synctest.Wait()
		if res, err := w.drain("web-2", time.Second); err != nil || !slices.Equal(named(res.GetMissing()), []string{"r1"}) {
			t.Fatalf("while one hangs: %v, %v", res, err)
		}
		if slices.Contains(w.alarms(), "ROUTER_TWICE") {
			t.Error("an alarm at once: it may be one router that comes back")
		}
		time.Sleep(2 * time.Minute)
		if !slices.Contains(w.alarms(), "ROUTER_TWICE") {
			t.Errorf("no alarm: %v", w.alarms())
		}
		other.cancel()
		if res, err := w.drain("web-2", time.Minute); err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("without it: %v, %v", res, err)
		}
		time.Sleep(time.Minute)
		if slices.Contains(w.alarms(), "ROUTER_TWICE") {
			t.Error("the alarm does not end")
		}
	})
}

// The same run may have two streams for a while, when it is faster back than its
// old connection is missed.
func TestDrainAsksARunOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		old, again := w.newRouter("r1"), w.newRouter("r1")
		old.run, again.run = "a", "a"
		w.join("web-1", "web-2", "web-3", "web-4")
		old.hang()
		old.subscribe()
		again.subscribe()
		synctest.Wait()
		if res, err := w.drain("web-2", time.Minute); err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("drain: %v, %v", res, err)
		}
	})
}

// A router that keeps a server as a last resort may send it work.
func TestDrainIsPartialWhileARouterKeepsTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, r1, _ := draining(t, newTable())
		r1.keep("web-2")
		if res, err := w.drain("web-2", time.Second); err != nil || !slices.Equal(named(res.GetMissing()), []string{"r1"}) {
			t.Errorf("drain: %v, %v", res, err)
		}
		if res, err := w.drain("web-1", time.Second); err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("another one: %v, %v", res, err)
		}
	})
}

// A router that the connection has broken to is waited for, for ten minutes.
func TestDrainRemembersASilentRouter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, _, _ := draining(t, newTable())
		conn := w.connect("agent")
		stream, err := pb.NewMembershipServiceClient(conn).Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		hello := &pb.SubscribeHello{RouterId: "r3"}
		if err := stream.Send(&pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: hello}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		_ = conn.Close()
		time.Sleep(5 * time.Minute)
		res, err := w.drain("web-2", time.Second)
		if err != nil || !slices.Equal(named(res.GetMissing()), []string{"r3"}) || res.GetMissing()[0].GetConnected() {
			t.Errorf("drain: %v, %v", res, err)
		}
		// Also after a restart of the coordinator.
		w.shutDown()
		w.run()
		w.newRouter("r1").subscribe()
		w.newRouter("r2").subscribe()
		time.Sleep(time.Second)
		if res, err = w.drain("web-2", time.Second); err != nil || !slices.Equal(named(res.GetMissing()), []string{"r3"}) {
			t.Errorf("drain after a restart: %v, %v", res, err)
		}
		time.Sleep(10 * time.Minute)
		if res, err = w.drain("web-2", time.Second); err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("drain much later: %v, %v", res, err)
		}
	})
}

func TestDrainIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, agents, _, _ := draining(t, newTable())
		for _, id := range []string{"web-1", "web-2"} {
			if _, err := w.drain(id, time.Second); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.drain("web-3", time.Second)
		wantRefused(t, err, "floor")
		_, err = w.admin.DrainServer(t.Context(), &pb.DrainServerRequest{ServerId: "web-3", ValidateOnly: true})
		wantRefused(t, err, "floor")
		if res := agents[2].leaveAfter(time.Second); res.GetLeft() || res.GetText() == "" {
			t.Errorf("leave: %v", res)
		}
		forced, err := w.admin.DrainServer(t.Context(), &pb.DrainServerRequest{ServerId: "web-3", Force: true})
		if err != nil || forced.GetState() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("forced: %v, %v", forced, err)
		}
		other := agents[3].incarnation() + 1
		for what, c := range map[string]struct {
			req  *pb.DrainServerRequest
			want error
		}{
			"a stranger":          {&pb.DrainServerRequest{ServerId: "zebra"}, member.ErrNotFound},
			"another incarnation": {&pb.DrainServerRequest{ServerId: "web-4", Incarnation: other, Force: true}, member.ErrStale},
			"another revision":    {&pb.DrainServerRequest{ServerId: "web-4", ExpectedRevision: new(uint64), Force: true}, member.ErrStale},
			"no id":               {&pb.DrainServerRequest{}, member.ErrInvalid},
			"a long wait":         {&pb.DrainServerRequest{ServerId: "web-4", Timeout: durationpb.New(time.Hour)}, member.ErrInvalid},
			"a negative wait":     {&pb.DrainServerRequest{ServerId: "web-4", Timeout: durationpb.New(-1)}, member.ErrInvalid},
		} {
			if _, err := w.admin.DrainServer(t.Context(), c.req); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got := w.phases()["web-4"]; got != pb.Phase_PHASE_ACTIVE {
			t.Errorf("web-4 is %s", got)
		}
	})
}

func TestDrainOnlyValidated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, _, _ := draining(t, newTable())
		res, err := w.admin.DrainServer(t.Context(), &pb.DrainServerRequest{ServerId: "web-1", ValidateOnly: true})
		if err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_UNSPECIFIED || w.phases()["web-1"] != pb.Phase_PHASE_ACTIVE {
			t.Errorf("validated: %v, %v, %v", res, err, w.phases())
		}
	})
}

// A coordinator that stops in the middle says so; the wish is kept, and the same
// request goes on.
func TestDrainThroughARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, _, r2 := draining(t, newTable())
		r2.hang()
		req := &pb.DrainServerRequest{ServerId: "web-2", RequestId: "once", Timeout: durationpb.New(time.Minute)}
		answered := make(chan error, 1)
		go func() {
			_, err := w.admin.DrainServer(context.Background(), req)
			answered <- err
		}()
		time.Sleep(time.Second)
		w.shutDown()
		if err := <-answered; !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("answer: %v", err)
		}
		w.run()
		w.newRouter("r1").subscribe()
		w.newRouter("r2").subscribe()
		res, err := w.admin.DrainServer(t.Context(), req)
		if err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_SAFE || res.GetServer().GetPhase() != pb.Phase_PHASE_DRAINING {
			t.Errorf("repeated: %v, %v", res, err)
		}
		events, err := w.admin.ListEvents(t.Context(), &pb.ListEventsRequest{ServerId: "web-2", Kinds: []string{"intent"}})
		if err != nil || len(events.GetEvents()) != 1 {
			t.Errorf("events: %v, %v", events, err)
		}
	})
}

func TestLeaveWithADrain(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w, agents, _, r2 := draining(t, table)
		if res := agents[0].leaveAfter(time.Minute); !res.GetLeft() || res.GetDrain() != pb.DrainState_DRAIN_STATE_SAFE {
			t.Errorf("leave: %v", res)
		}
		r2.hang()
		begin := time.Now()
		res := agents[1].leaveAfter(2 * time.Second)
		if !res.GetLeft() || res.GetDrain() != pb.DrainState_DRAIN_STATE_PARTIAL || !slices.Equal(named(res.GetMissing()), []string{"r2"}) {
			t.Errorf("leave: %v", res)
		}
		if took := time.Since(begin); took < 2*time.Second || took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
		w.gone("web-2", time.Second)
		w.consistent()
		for outcome, want := range map[string]float64{"safe": 1, "partial": 1} {
			if got := w.metric("buddyring_drains_total", "by", "leave", "outcome", outcome); got != want {
				t.Errorf("%v drains are %s", got, outcome)
			}
		}
	})
}

// While the database is away a drain fails honestly.
func TestDrainWithoutADatabase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w, agents, _, _ := draining(t, table)
		table.fail(fmt.Errorf("%w: away", member.ErrUnavailable))
		if _, err := w.drain("web-1", time.Second); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("drain: %v", err)
		}
		if _, err := w.admin.ResumeServer(t.Context(), &pb.ResumeServerRequest{ServerId: "web-1", RequestId: "x"}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("resume: %v", err)
		}
		if res := agents[1].leaveAfter(time.Second); res.GetLeft() {
			t.Errorf("leave: %v", res)
		}
		table.fail(nil)
		if got := w.phases(); got["web-1"] != pb.Phase_PHASE_ACTIVE || got["web-2"] != pb.Phase_PHASE_ACTIVE {
			t.Errorf("phases: %v", got)
		}
	})
}

// A router whose stream breaks off has not said goodbye: its clients may have its
// last list.
func TestDrainMissesARouterThatBrokeOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, _, r2 := draining(t, newTable())
		r2.cancel()
		synctest.Wait()
		res, err := w.drain("web-2", time.Second)
		if err != nil || res.GetState() != pb.DrainState_DRAIN_STATE_PARTIAL || !slices.Equal(named(res.GetMissing()), []string{"r2"}) {
			t.Errorf("drain: %v, %v", res, err)
		}
	})
}

// There is nothing to wait for in a pool that was deleted.
func TestDrainInADeletedPool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.makePool("games")
		w.inPool("games", "g-1").welcomed()
		r := w.newRouter("r1").subscribe()
		time.Sleep(time.Second)
		r.hang()
		answered := make(chan error, 1)
		go func() {
			_, err := w.admin.DrainServer(context.Background(), &pb.DrainServerRequest{
				Pool: "games", ServerId: "g-1", Force: true, Timeout: durationpb.New(time.Minute),
			})
			answered <- err
		}()
		time.Sleep(time.Second)
		begin := time.Now()
		w.deletePool(&pb.DeletePoolRequest{Pool: "games", Force: true})
		if err := <-answered; !errors.Is(err, member.ErrNotFound) || time.Since(begin) > time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
	})
}
