package server_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// onEachTable runs a test in virtual time, on a table in memory and on SQLite.
func onEachTable(t *testing.T, test func(t *testing.T, table server.Store)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) { test(t, newTable()) })
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "store.db")
		synctest.Test(t, func(t *testing.T) {
			s, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path})
			if err != nil {
				t.Fatalf("open: %v", err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			test(t, s)
		})
	})
}

func TestJoin(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w := start(t, table)
		w.join("web-1", "web-2", "web-3", "web-4")
		w.consistent()

		ring, err := w.admin.GetRing(t.Context(), &pb.GetRingRequest{})
		if err != nil {
			t.Fatalf("get ring: %v", err)
		}
		members := ring.GetMembers()
		if len(members) != 4 || members[0].GetServerId() != "web-1" {
			t.Fatalf("ring: %v", members)
		}
		for i, m := range members {
			next, prev := members[(i+1)%4], members[(i+3)%4]
			if m.GetFirstBuddy() != next.GetServerId() || m.GetSecondBuddy() != prev.GetServerId() {
				t.Errorf("%s has buddies %s and %s", m.GetServerId(), m.GetFirstBuddy(), m.GetSecondBuddy())
			}
		}
		sessions, err := w.admin.ListSessions(t.Context(), &pb.ListSessionsRequest{})
		if err != nil || len(sessions.GetSessions()) != 4 {
			t.Errorf("sessions: %v, %v", sessions, err)
		}
		if got := w.metric("buddyring_members", "pool", "default", "phase", "active"); got != 4 {
			t.Errorf("buddyring_members is %v", got)
		}
		if got := w.metric("buddyring_sessions"); got != 4 {
			t.Errorf("buddyring_sessions is %v", got)
		}
	})
}

// A crash: routers hear of the suspect first, then of its removal; everything is
// explained.
func TestCrash(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5")
		r := w.newRouter("r1").subscribe()
		time.Sleep(20 * time.Second) // the warm-up ends
		begin := time.Now()
		agents[2].crash()
		r.holdsSuspect("web-3", true, 2*time.Second)
		w.gone("web-3", 2*time.Second)
		if took := time.Since(begin); took > 1500*time.Millisecond {
			t.Errorf("the removal took %s", took)
		}
		w.consistent()
		time.Sleep(time.Second)

		log := r.messages()
		mark, removal := slices.Index(log, "mark web-3 suspect=true"), len(log)
		for i, m := range log {
			if i > mark && strings.HasPrefix(m, "delta") {
				removal = i
				break
			}
		}
		if mark < 0 || removal == len(log) || mark > removal {
			t.Errorf("the mark did not come before the delta: %v", log)
		}
		if got := r.names("default"); slices.Contains(got, "web-3") || len(got) != 4 {
			t.Errorf("the router has %v", got)
		}
		explained(t, w)
		if got := w.metric("buddyring_removals_total", "cause", "crashed"); got != 1 {
			t.Errorf("buddyring_removals_total is %v", got)
		}
		if got := w.metric("buddyring_detection_seconds"); got != 1 {
			t.Errorf("buddyring_detection_seconds has %v observations", got)
		}
	})
}

func explained(t *testing.T, w *world) {
	t.Helper()
	res, err := w.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: "web-3"})
	if err != nil {
		t.Fatalf("explain: %v", err)
	}
	if !strings.Contains(res.GetSummary(), "web-3 is not a member: removed at revision") {
		t.Errorf("summary: %s", res.GetSummary())
	}
	if res.GetServer() != nil || len(res.GetDecisions()) != 1 || res.GetDeparture().GetCause() != pb.Cause_CAUSE_CRASHED {
		t.Fatalf("explanation: %v", res)
	}
	d := res.GetDecisions()[0]
	var kinds []string
	for _, m := range d.GetExplanation().GetTimeline() {
		if !slices.Contains(kinds, m.GetKind()) {
			kinds = append(kinds, m.GetKind())
		}
	}
	for _, kind := range []string{"doubt", "round", "answer", "suspect", "verdict", "committed", "published", "acked"} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("no %s in the timeline: %v", kind, kinds)
		}
	}
	if len(d.GetRouters()) != 1 || d.GetRouters()[0].GetAppliedAt() == nil {
		t.Errorf("routers: %v", d.GetRouters())
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3")
		if res := agents[1].leave(); !res.GetLeft() {
			t.Fatalf("leave: %v", res)
		}
		w.gone("web-2", time.Second)
		w.consistent()
		events, err := w.admin.ListEvents(t.Context(), &pb.ListEventsRequest{ServerId: "web-2", Kinds: []string{"removed"}})
		if err != nil || len(events.GetEvents()) != 1 || events.GetEvents()[0].GetCause() != pb.Cause_CAUSE_SHUTDOWN {
			t.Errorf("events: %v, %v", events, err)
		}
	})
}

func TestAgentKilledRemovesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		agents := w.join("web-1", "web-2", "web-3")
		agents[0].kill()
		time.Sleep(time.Minute)
		if got := len(w.phases()); got != 3 {
			t.Errorf("%d members are left", got)
		}
		if got := w.alarms(); !slices.Contains(got, "AGENT_DOWN") {
			t.Errorf("alarms: %v", got)
		}
		if got := w.metric("buddyring_alarm_active", "name", "AGENT_DOWN", "pool", "default"); got != 1 {
			t.Errorf("buddyring_alarm_active is %v", got)
		}
		agents[0].connect()
		if !agents[0].welcomed().GetResumed() {
			t.Error("the agent was not resumed")
		}
		time.Sleep(time.Second)
		if got := w.alarms(); len(got) != 0 {
			t.Errorf("alarms after the return: %v", got)
		}
	})
}

// A stream that the peer's kernel or process ends while nobody else reaches the
// server proves that its host is alive.
func TestClosedStreamProvesTheHost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5")
		r := w.newRouter("r1").subscribe()
		time.Sleep(20 * time.Second)
		agents[2].crash()
		r.holdsSuspect("web-3", true, 2*time.Second)
		time.Sleep(100 * time.Millisecond)
		agents[2].kill()
		time.Sleep(500 * time.Millisecond)
		res, err := w.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: "web-3"})
		if err != nil || res.GetServer() == nil || len(res.GetDecisions()) == 0 {
			t.Fatalf("explain: %v, %v", res, err)
		}
		var kinds []string
		for _, m := range res.GetDecisions()[0].GetExplanation().GetTimeline() {
			kinds = append(kinds, m.GetKind())
		}
		if !slices.Contains(kinds, "stream_closed") {
			t.Errorf("timeline: %v", kinds)
		}
	})
}

// A new coordinator on the same table: agents are resumed in their incarnations,
// nobody is removed, and the ring is the same.
func TestRestart(t *testing.T) {
	t.Parallel()
	onEachTable(t, func(t *testing.T, table server.Store) {
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4")
		before := ringOf(t, w)
		incarnations := map[string]uint64{}
		for _, a := range agents {
			incarnations[a.id] = a.incarnation()
		}
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", before.GetRevision())
		old := w.newRouter("r2").subscribe()
		old.caughtUp("default", before.GetRevision())
		old.at["default"].Revision-- // it missed the last change

		w.shutDown()
		for _, a := range append(agents, nil)[:4] {
			<-a.over
		}
		<-r.over
		<-old.over
		w.run()
		r.subscribe()
		old.subscribe()
		r.caughtUp("default", before.GetRevision())
		old.caughtUp("default", before.GetRevision())
		if want := []string{"start", "synced"}; !cmp.Equal(r.messages(), want) {
			t.Errorf("a router that is up to date got %v", r.messages())
		}
		if got := old.messages(); len(got) < 3 || got[1] != "compacted default" {
			t.Errorf("a router that is behind got %v", got)
		}
		for _, a := range agents[:3] {
			a.connect()
			if res := a.welcomed(); !res.GetResumed() || res.GetIncarnation() != incarnations[a.id] {
				t.Errorf("%s: %v", a.id, res)
			}
		}
		time.Sleep(time.Minute)
		after := ringOf(t, w)
		if len(after.GetMembers()) != 4 || after.GetEpoch() != before.GetEpoch()+1 {
			t.Errorf("after the restart: %v", after)
		}
		agents[3].connect()
		agents[3].welcomed()
		w.consistent()
	})
}

func ringOf(t *testing.T, w *world) *pb.GetRingResponse {
	t.Helper()
	ring, err := w.admin.GetRing(t.Context(), &pb.GetRingRequest{})
	if err != nil {
		t.Fatalf("get ring: %v", err)
	}
	return ring
}
