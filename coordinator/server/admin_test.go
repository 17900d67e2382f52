package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func TestCreateAndUpdatePool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		ctx := t.Context()
		settings := &pb.PoolSettings{Mode: pb.Mode_MODE_SHADOW, RemovalGrace: durationpb.New(5 * time.Second)}
		dry, err := w.admin.CreatePool(ctx, &pb.CreatePoolRequest{Pool: "games", Settings: settings, ValidateOnly: true})
		if err != nil || dry.GetPool().GetSettings().GetMode() != pb.Mode_MODE_SHADOW {
			t.Errorf("validate: %v, %v", dry, err)
		}
		if _, err := w.admin.GetPool(ctx, &pb.GetPoolRequest{Pool: "games"}); !errors.Is(err, member.ErrNotFound) {
			t.Errorf("validate_only created: %v", err)
		}
		made, err := w.admin.CreatePool(ctx, &pb.CreatePoolRequest{Pool: "games", Settings: settings, RequestId: "r1"})
		if err != nil {
			t.Fatalf("create: %v", err)
		}
		if got := made.GetPool(); got.GetRevision() != 1 || got.GetSettings().GetRemovalGrace().AsDuration() != 5*time.Second ||
			got.GetSettings().GetProbeInterval().AsDuration() != 500*time.Millisecond {
			t.Errorf("created: %v", got)
		}
		if _, err := w.admin.CreatePool(ctx, &pb.CreatePoolRequest{Pool: "games"}); !errors.Is(err, member.ErrAlreadyExists) {
			t.Errorf("create again: %v", err)
		}
		again, err := w.admin.CreatePool(ctx, &pb.CreatePoolRequest{Pool: "games", Settings: settings, RequestId: "r1"})
		if err != nil || again.GetPool().GetPool() != "games" {
			t.Errorf("repeat: %v, %v", again, err)
		}
		_, err = w.admin.CreatePool(ctx, &pb.CreatePoolRequest{Pool: "other", RequestId: "r1"})
		wantField(t, err, "request_id")
		w.shutDown()
		w.run()
		again, err = w.admin.CreatePool(ctx, &pb.CreatePoolRequest{Pool: "games", Settings: settings, RequestId: "r1"})
		if err != nil || again.GetPool().GetPool() != "games" {
			t.Errorf("repeat after a restart: %v, %v", again, err)
		}

		if _, err := w.admin.GetPool(ctx, &pb.GetPoolRequest{}); !errors.Is(err, member.ErrInvalid) {
			t.Errorf("no name among two pools: %v", err)
		}
		updated, err := w.admin.UpdatePool(ctx, &pb.UpdatePoolRequest{
			Pool: "games", Settings: &pb.PoolSettings{HoldDown: durationpb.New(time.Second), Mode: pb.Mode_MODE_PAUSED},
			UpdateMask: mask("hold_down"),
		})
		if err != nil {
			t.Fatalf("update: %v", err)
		}
		if s := updated.GetPool().GetSettings(); s.GetHoldDown().AsDuration() != time.Second || s.GetMode() != pb.Mode_MODE_SHADOW {
			t.Errorf("updated: %v", s)
		}
		preview, err := w.admin.UpdatePool(ctx, &pb.UpdatePoolRequest{
			Pool: "games", Settings: &pb.PoolSettings{Mode: pb.Mode_MODE_PAUSED}, ValidateOnly: true,
		})
		if err != nil || preview.GetPool().GetSettings().GetMode() != pb.Mode_MODE_PAUSED || preview.GetPool().GetRevision() != 2 {
			t.Errorf("preview: %v, %v", preview, err)
		}
		list, err := w.admin.ListPools(ctx, &pb.ListPoolsRequest{PageSize: 1})
		if err != nil || len(list.GetPools()) != 1 || list.GetPools()[0].GetPool() != "default" || list.GetNextPageToken() == "" {
			t.Errorf("list: %v, %v", list, err)
		}
	})
}

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	var wrong *member.FieldError
	if !errors.As(err, &wrong) || wrong.Field != field {
		t.Errorf("error is %v, not about the field %s", err, field)
	}
}

func TestUpdateServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		ctx := t.Context()
		weight := uint32(7)
		req := &pb.UpdateServerRequest{
			ServerId: "web-1", Spec: &pb.ServerSpec{Weight: &weight, Zone: "a"}, UpdateMask: mask("weight"), RequestId: "r1",
		}
		dry := &pb.UpdateServerRequest{ServerId: "web-1", Spec: req.Spec, UpdateMask: req.UpdateMask, ValidateOnly: true, RequestId: "r1"}
		before := ringOf(t, w).GetRevision()
		res, err := w.admin.UpdateServer(ctx, dry)
		if err != nil || res.GetServer().GetSpec().GetWeight() != 7 || res.GetRevision() != before {
			t.Errorf("validate: %v, %v", res, err)
		}
		res, err = w.admin.UpdateServer(ctx, req)
		if err != nil || res.GetServer().GetSpec().GetWeight() != 7 || res.GetServer().GetSpec().GetZone() != "" {
			t.Fatalf("update: %v, %v", res, err)
		}
		if res.GetRevision() != before+1 {
			t.Errorf("revision %d after %d", res.GetRevision(), before)
		}
		again, err := w.admin.UpdateServer(ctx, req)
		if err != nil || again.GetRevision() != res.GetRevision() {
			t.Errorf("repeat: %v, %v", again, err)
		}
		req.Reason = "another one"
		_, err = w.admin.UpdateServer(ctx, req)
		wantField(t, err, "request_id")

		stale := before
		_, err = w.admin.UpdateServer(ctx, &pb.UpdateServerRequest{
			ServerId: "web-1", Spec: &pb.ServerSpec{}, UpdateMask: mask("weight"), ExpectedRevision: &stale,
		})
		if !errors.Is(err, member.ErrStale) {
			t.Errorf("stale: %v", err)
		}
		present := res.GetRevision()
		res, err = w.admin.UpdateServer(ctx, &pb.UpdateServerRequest{
			ServerId: "web-1", Spec: &pb.ServerSpec{}, UpdateMask: mask("weight", "endpoints"), ExpectedRevision: &present,
		})
		if err != nil || res.GetServer().GetSpec().GetWeight() != 100 || len(res.GetServer().GetSpec().GetEndpoints()) != 0 {
			t.Errorf("unset fields: %v, %v", res, err)
		}
		w.consistent()
	})
}

func TestRemoveServerAndIntent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		agents := w.join("web-1", "web-2", "web-3")
		ctx := t.Context()
		_, err := w.admin.RemoveServer(ctx, &pb.RemoveServerRequest{ServerId: "web-2", Incarnation: 999})
		if !errors.Is(err, member.ErrStale) {
			t.Errorf("another incarnation: %v", err)
		}
		banned, err := w.admin.SetIntent(ctx, &pb.SetIntentRequest{
			ServerId: "web-2", Wish: pb.Wish_WISH_BANNED, Reason: "cloned", ExpiresIn: durationpb.New(time.Hour),
		})
		if err != nil || banned.GetIntent().GetWish() != pb.Wish_WISH_BANNED || banned.GetIntent().GetReason() != "cloned" {
			t.Fatalf("ban: %v, %v", banned, err)
		}
		if got := banned.GetIntent().GetExpiresAt().AsTime().Sub(banned.GetIntent().GetSetAt().AsTime()); got != time.Hour {
			t.Errorf("it expires after %s", got)
		}
		w.gone("web-2", time.Second)
		<-agents[1].over
		agents[1].connect()
		if err := <-agents[1].over; !errors.Is(err, member.ErrRefused) {
			t.Errorf("a banned server's session: %v", err)
		}
		lifted, err := w.admin.SetIntent(ctx, &pb.SetIntentRequest{ServerId: "web-2", Wish: pb.Wish_WISH_ACTIVE})
		if err != nil || lifted.GetIntent().GetWish() != pb.Wish_WISH_ACTIVE {
			t.Errorf("lift: %v, %v", lifted, err)
		}
		agents[1].connect()
		w.allActive("web-2")

		removed, err := w.admin.RemoveServer(ctx, &pb.RemoveServerRequest{ServerId: "web-3", RequestId: "x"})
		if err != nil || removed.GetRevision() == 0 {
			t.Fatalf("remove: %v, %v", removed, err)
		}
		again, err := w.admin.RemoveServer(ctx, &pb.RemoveServerRequest{ServerId: "web-3", RequestId: "x"})
		if err != nil || again.GetRevision() != removed.GetRevision() {
			t.Errorf("repeat: %v, %v", again, err)
		}
		_, err = w.admin.RemoveServer(ctx, &pb.RemoveServerRequest{ServerId: "web-3"})
		if !errors.Is(err, member.ErrNotFound) {
			t.Errorf("remove what is gone: %v", err)
		}
	})
}

func TestListServersPagesAndFilters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		var want []string
		for n := range 7 {
			want = append(want, fmt.Sprintf("web-%d", n))
		}
		w.join(want...)
		ctx := t.Context()
		var got []string
		req := &pb.ListServersRequest{PageSize: 3}
		for {
			res, err := w.admin.ListServers(ctx, req)
			if err != nil {
				t.Fatalf("list: %v", err)
			}
			for _, s := range res.GetServers() {
				got = append(got, s.GetServerId())
			}
			if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
				break
			}
			_, err = w.admin.ListServers(ctx, &pb.ListServersRequest{PageSize: 3, PageToken: req.PageToken, Zone: "x"})
			wantField(t, err, "page_token")
		}
		if !cmp.Equal(got, want) {
			t.Errorf("pages: %v", got)
		}
		yes := true
		for name, req := range map[string]*pb.ListServersRequest{
			"phase":   {Phases: []pb.Phase{pb.Phase_PHASE_HELD}},
			"zone":    {Zone: "elsewhere"},
			"labels":  {Labels: map[string]string{"k": "v"}},
			"suspect": {Suspect: &yes},
		} {
			if res, err := w.admin.ListServers(ctx, req); err != nil || len(res.GetServers()) != 0 {
				t.Errorf("filter by %s: %v, %v", name, res, err)
			}
		}
		if res, err := w.admin.ListSessions(ctx, &pb.ListSessionsRequest{PageSize: 5}); err != nil ||
			len(res.GetSessions()) != 5 || res.GetNextPageToken() == "" {
			t.Errorf("sessions: %v, %v", res, err)
		}
	})
}

func TestCheckRingFindsWhatDiffers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3")
		agents[2].kill()
		time.Sleep(100 * time.Millisecond)
		check := func() *pb.CheckRingResponse {
			res, err := w.admin.CheckRing(t.Context(), &pb.CheckRingRequest{})
			if err != nil {
				t.Fatalf("check: %v", err)
			}
			return res
		}
		res := check()
		if !res.GetConsistent() || res.GetMembers() != 3 || res.GetAcknowledged() != 2 ||
			len(res.GetProblems()) != 1 || res.GetProblems()[0].GetKind() != "agent_absent" {
			t.Errorf("an absent agent: %v", res)
		}
		table.meddle("default", "web-1", func(s *member.Server) { s.First = "web-9" })
		res = check()
		if res.GetConsistent() || res.GetProblems()[0].GetKind() != "table_differs" || res.GetProblems()[0].GetServerId() != "web-1" {
			t.Errorf("a row that somebody changed: %v", res)
		}
	})
}

// A row that nobody can read is named, and what is wrong with it; a repair writes it
// if it is a member's.
func TestCheckRingNamesTheRowThatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		table.spoil("web-2", errors.New(`column "probe": odd`))
		table.spoil("web-9", errors.New(`column "phase": odd`))
		check := func() (texts []string) {
			t.Helper()
			res, err := w.admin.CheckRing(t.Context(), &pb.CheckRingRequest{})
			if err != nil {
				t.Fatalf("check: %v", err)
			}
			for _, p := range res.GetProblems() {
				texts = append(texts, fmt.Sprint(p.GetKind(), " ", p.GetServerId(), ": ", p.GetText()))
			}
			if res.GetConsistent() {
				t.Error("consistent")
			}
			return texts
		}
		stranger := `table_differs web-9: web-9 has a row in the table that cannot be read, and is not in memory; ` +
			`mend or delete the row: column "phase": odd`
		if diff := cmp.Diff([]string{
			`table_differs web-2: the row of web-2 in the table cannot be read: column "probe": odd`, stranger,
		}, check()); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
		res, err := w.admin.RepairRing(t.Context(), &pb.RepairRingRequest{})
		if err != nil || len(res.GetRepairs()) != 1 || res.GetRepairs()[0].GetServerId() != "web-2" {
			t.Errorf("repair: %v, %v", res, err)
		}
		if diff := cmp.Diff([]string{stranger}, check()); diff != "" {
			t.Errorf("problems after the repair (-want +got):\n%s", diff)
		}
	})
}

func TestRepairRing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1", "web-2", "web-3")
		repair := func(req *pb.RepairRingRequest) *pb.RepairRingResponse {
			t.Helper()
			res, err := w.admin.RepairRing(t.Context(), req)
			if err != nil {
				t.Fatalf("repair: %v", err)
			}
			return res
		}
		revision := ringOf(t, w).GetRevision()
		if res := repair(&pb.RepairRingRequest{}); len(res.GetRepairs()) > 0 || res.GetRevision() != revision {
			t.Errorf("nothing to do: %v", res)
		}
		members := len(w.phases())
		table.meddle("default", "web-1", func(s *member.Server) { s.First = "web-9" })
		table.meddle("default", "web-9", func(s *member.Server) {
			s.ID, s.Phase, s.Incarnation, s.First, s.Second = "web-9", member.PhaseActive, 1, "web-2", "web-1"
		})
		told := repair(&pb.RepairRingRequest{ValidateOnly: true})
		if told.GetRevision() != revision || len(told.GetRepairs()) != 2 || table.has("default", "web-9") != member.PhaseActive {
			t.Errorf("a check: %v", told)
		}
		stale := revision - 1
		if _, err := w.admin.RepairRing(t.Context(), &pb.RepairRingRequest{ExpectedRevision: &stale}); !errors.Is(err, member.ErrStale) {
			t.Errorf("stale: %v", err)
		}
		req := &pb.RepairRingRequest{ExpectedRevision: &revision, RequestId: "r1", Reason: "by hand"}
		done := repair(req)
		if done.GetRevision() != revision+1 || !slices.EqualFunc(done.GetRepairs(), told.GetRepairs(), func(a, b *pb.RingRepair) bool {
			return a.GetText() == b.GetText() && a.GetKind() == b.GetKind() && a.GetServerId() == b.GetServerId()
		}) {
			t.Errorf("told %v, done %v", told, done)
		}
		if again := repair(req); again.GetRevision() != done.GetRevision() || len(again.GetRepairs()) > 0 {
			t.Errorf("repeated: %v", again)
		}
		w.consistent()
		if got := len(w.phases()); got != members+1 {
			t.Errorf("%d members, want %d", got, members+1)
		}
		events, err := w.admin.ListEvents(t.Context(), &pb.ListEventsRequest{Kinds: []string{"repaired"}, SinceRevision: done.GetRevision()})
		if err != nil || len(events.GetEvents()) != 2 || !strings.HasSuffix(events.GetEvents()[0].GetText(), "by hand") {
			t.Errorf("events %v, %v", events, err)
		}
	})
}

// A table of another revision is not the coordinator's to repair.
func TestRepairOfATableThatMoves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		w.join("web-1")
		table.turnBack("default")
		if _, err := w.admin.RepairRing(t.Context(), &pb.RepairRingRequest{}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("repair: %v", err)
		}
	})
}

// Rows that make no ring keep nobody from leading: routers, agents and people
// get a mended one, and a repair writes it.
func TestLeadingABrokenRing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3", "web-4")
		w.shutDown()
		table.meddle("default", "web-2", func(s *member.Server) { s.First, s.Second = "web-9", "" })
		w.run()
		for _, a := range agents {
			a.connect()
		}
		w.allActive("web-1", "web-2", "web-3", "web-4")
		ring := ringOf(t, w).GetMembers()
		for i, m := range ring {
			if next := ring[(i+1)%len(ring)]; m.GetFirstBuddy() != next.GetServerId() || next.GetSecondBuddy() != m.GetServerId() {
				t.Errorf("%s and %s: %v", m.GetServerId(), next.GetServerId(), ring)
			}
		}
		if got := w.alarms(); !slices.Equal(got, []string{"RING_BROKEN"}) {
			t.Errorf("alarms %v", got)
		}
		if _, err := w.admin.RepairRing(t.Context(), &pb.RepairRingRequest{}); err != nil {
			t.Fatalf("repair: %v", err)
		}
		w.consistent()
		if got := w.alarms(); len(got) > 0 {
			t.Errorf("alarms %v", got)
		}
	})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		live, err := w.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{})
		if err != nil {
			t.Fatalf("watch: %v", err)
		}
		time.Sleep(time.Second)
		w.join("web-1", "web-2", "web-3")
		past, err := w.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{FromRevision: 1})
		if err != nil {
			t.Fatalf("watch: %v", err)
		}
		head := relabel(t, w, "web-1", 1, 0)

		all := received(t, past, head)
		if all[0] != "1.0 pool_created " || all[len(all)-1] != fmt.Sprintf("%d.0 updated web-1", head) {
			t.Errorf("from the first revision: %v", all)
		}
		if got := received(t, live, head); !cmp.Equal(got, all[1:]) {
			t.Errorf("live: %v instead of %v", got, all[1:])
		}
		for _, ahead := range []uint64{1, 2} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			next, err := w.admin.WatchEvents(ctx, &pb.WatchEventsRequest{FromRevision: head + ahead})
			if err != nil {
				t.Fatalf("watch: %v", err)
			}
			if err := endOf(next.Recv); errors.Is(err, member.ErrAhead) != (ahead > 1) {
				t.Errorf("%d after the last revision: %v", ahead, err)
			}
			cancel()
		}
		var listed []string
		req := &pb.ListEventsRequest{PageSize: 2}
		for {
			res, err := w.admin.ListEvents(t.Context(), req)
			if err != nil {
				t.Fatalf("list: %v", err)
			}
			for _, e := range res.GetEvents() {
				listed = append([]string{nameOf(e)}, listed...)
			}
			if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		if !cmp.Equal(listed, all) {
			t.Errorf("listed %v instead of %v", listed, all)
		}

		// After a restart the past comes from the table, without gap or repetition.
		w.shutDown()
		w.run()
		past, err = w.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{FromRevision: 1})
		if err != nil {
			t.Fatalf("watch: %v", err)
		}
		time.Sleep(time.Second)
		next := relabel(t, w, "web-1", 2, 0)
		want := slices.Concat(all, []string{fmt.Sprintf("%d.0 updated web-1", next)})
		if got := received(t, past, next); !cmp.Equal(got, want) {
			t.Errorf("after a restart: %v instead of %v", got, want)
		}
		w.shutDown()
		table.compact("default", 3)
		w.run()
		past, err = w.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{FromRevision: 2})
		if err != nil {
			t.Fatalf("watch: %v", err)
		}
		if err := endOf(past.Recv); !errors.Is(err, member.ErrCompacted) {
			t.Errorf("before what is kept: %v", err)
		}
	})
}

// A leader that does not hold the lease any more has nothing to say about a revision that
// it does not know: its successor may have made it.
func TestEventsAheadOfALeaderThatIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cut := &link{Store: newTable()}
		w := start(t, cut)
		w.join("web-1", "web-2", "web-3")
		cut.down.Store(true)
		time.Sleep(5 * time.Second)
		stream, err := w.admin.WatchEvents(t.Context(), &pb.WatchEventsRequest{FromRevision: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if err := endOf(stream.Recv); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("%v, want ErrUnavailable", err)
		}
	})
}

func nameOf(e *pb.Event) string {
	return fmt.Sprintf("%d.%d %s %s", e.GetRevision(), e.GetSeq(), e.GetKind(), e.GetServerId())
}

// received receives events up to a revision.
func received(t *testing.T, stream pb.AdminService_WatchEventsClient, last uint64) []string {
	t.Helper()
	var names []string
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) || err != nil {
			t.Fatalf("receive after %v: %v", names, err)
		}
		names = append(names, nameOf(res.GetEvent()))
		if res.GetEvent().GetRevision() >= last {
			return names
		}
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		w.newRouter("r1").subscribe()
		time.Sleep(time.Second)
		res, err := w.admin.GetStatus(t.Context(), &pb.GetStatusRequest{})
		if err != nil {
			t.Fatalf("status: %v", err)
		}
		if res.GetCoordinatorId() != "c1" || res.GetState() != pb.LeaderState_LEADER_STATE_LEADER || res.GetEpoch() != 1 ||
			res.GetStoreId() != "store-1" || res.GetStoreState() != pb.StoreState_STORE_STATE_OK ||
			res.GetSessions() != 3 || res.GetSubscriptions() != 1 || len(res.GetPools()) != 1 || res.GetPools()[0].GetActive() != 3 {
			t.Errorf("status: %v", res)
		}
	})
}

// What the machine no longer remembers is explained from the table.
func TestExplainAfterRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		agents := w.join("web-1", "web-2", "web-3", "web-4", "web-5")
		time.Sleep(20 * time.Second)
		agents[2].crash()
		w.gone("web-3", 5*time.Second)
		explain := func() *pb.ExplainServerResponse {
			res, err := w.admin.ExplainServer(context.Background(), &pb.ExplainServerRequest{ServerId: "web-3"})
			if err != nil {
				t.Fatalf("explain: %v", err)
			}
			return res
		}
		before := explain()
		w.shutDown()
		w.run()
		after := explain()
		if len(after.GetDecisions()) != len(before.GetDecisions()) || len(after.GetDecisions()) == 0 {
			t.Fatalf("%d decisions before, %d after", len(before.GetDecisions()), len(after.GetDecisions()))
		}
		x, y := before.GetDecisions()[0].GetExplanation(), after.GetDecisions()[0].GetExplanation()
		if x.GetText() != y.GetText() || x.GetRevision() != y.GetRevision() || len(y.GetTimeline()) == 0 || len(y.GetRows()) == 0 {
			t.Errorf("before %v\nafter %v", x, y)
		}
		_, err := w.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: "web-99"})
		if !errors.Is(err, member.ErrNotFound) {
			t.Errorf("a stranger: %v", err)
		}
	})
}
