package server_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// braked is a pool of twelve of which four have died at once, one more than the
// brake allows.
func braked(t *testing.T) (w *world, dead []string) {
	t.Helper()
	w = start(t, newTable())
	var ids []string
	for i := range 12 {
		ids = append(ids, fmt.Sprintf("web-%02d", i+1))
	}
	agents := w.join(ids...)
	var ring []string
	for _, m := range ringOf(t, w).GetMembers() {
		ring = append(ring, m.GetServerId())
	}
	time.Sleep(15 * time.Second)
	for i := range 4 {
		dead = append(dead, ring[3*i])
		agents[slices.Index(ids, ring[3*i])].crash()
	}
	slices.Sort(dead)
	time.Sleep(5 * time.Second)
	return w, dead
}

func (w *world) brake() *pb.GetBrakeResponse {
	w.t.Helper()
	res, err := w.admin.GetBrake(w.t.Context(), &pb.GetBrakeRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func wantRefused(t *testing.T, err error, rule string) {
	t.Helper()
	if refused, ok := errors.AsType[*member.RefusedError](err); !ok || refused.Rule != rule {
		t.Errorf("error %v, want refused by %s", err, rule)
	}
}

func TestBrakeAndRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, dead := braked(t)
		r := w.newRouter("r1").subscribe()
		b := w.brake()
		var held []string
		for _, h := range b.GetHeld() {
			held = append(held, h.GetServerId())
			if h.GetSuspectSince() == nil {
				t.Errorf("%v", h)
			}
		}
		s := b.GetSafety()
		if !slices.Equal(held, dead) || len(b.GetStops()) != 1 || b.GetStops()[0].GetRule() != "brake" || b.GetStops()[0].GetSince() == nil ||
			s.GetSuspects() != 4 || s.GetBrakeLimit() != 3 || !s.GetBrakeEngaged() || s.GetMembers() != 12 || s.GetFloorLimit() != 6 {
			t.Fatalf("%v", b)
		}
		if got := len(w.phases()); got != 12 {
			t.Fatalf("%d members are left", got)
		}
		if !slices.Contains(w.alarms(), "BRAKE") {
			t.Errorf("alarms %v", w.alarms())
		}
		pool, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{})
		if err != nil || !pool.GetPool().GetBrakeEngaged() {
			t.Errorf("%v, %v", pool, err)
		}
		for name, want := range map[string]float64{
			"buddyring_brake_engaged": 1, "buddyring_brake_suspects": 4, "buddyring_brake_limit": 3, "buddyring_floor_limit": 6, "buddyring_floor_lost": 0,
		} {
			if got := w.metric(name, "pool", "default"); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if w.metric("buddyring_verdicts_braked_total") < 4 {
			t.Error("held verdicts are not counted")
		}

		_, err = w.admin.ReleaseBrake(t.Context(), &pb.ReleaseBrakeRequest{ServerIds: []string{"web-99"}})
		wantRefused(t, err, "not_held")
		dry, err := w.admin.ReleaseBrake(t.Context(), &pb.ReleaseBrakeRequest{ServerIds: dead[:2], ValidateOnly: true})
		if err != nil || len(dry.GetReleased()) != 2 || dry.GetReleased()[0].GetServerId() != dead[0] || len(w.brake().GetReleased()) != 0 {
			t.Errorf("validate: %v, %v", dry, err)
		}
		stale := b.GetRevision() + 7
		if _, err := w.admin.ReleaseBrake(t.Context(), &pb.ReleaseBrakeRequest{ExpectedRevision: &stale}); !errors.Is(err, member.ErrStale) {
			t.Errorf("stale: %v", err)
		}
		req := &pb.ReleaseBrakeRequest{RequestId: "r1", Reason: "the switch burned"}
		res, err := w.admin.ReleaseBrake(t.Context(), req)
		if err != nil || len(res.GetReleased()) != 4 || res.GetReleased()[0].GetUntil() == nil {
			t.Fatalf("%v, %v", res, err)
		}
		again, err := w.admin.ReleaseBrake(t.Context(), req)
		if err != nil || again.GetRevision() != res.GetRevision() {
			t.Errorf("repeat: %v, %v", again, err)
		}
		for _, id := range dead {
			w.gone(id, 10*time.Second)
		}
		if b := w.brake(); len(b.GetStops()) != 0 || b.GetSafety().GetBrakeEngaged() || b.GetSafety().GetReferenceSize() != 8 {
			t.Errorf("%v", b)
		}
		r.caughtUp("default", w.brake().GetRevision())
		if !r.sawConfirmed() {
			t.Error("the router is not told that an operator has confirmed it")
		}
		_, err = w.admin.ReleaseBrake(t.Context(), &pb.ReleaseBrakeRequest{})
		wantRefused(t, err, "not_held")
		events, err := w.admin.ListEvents(t.Context(), &pb.ListEventsRequest{Kinds: []string{"braked", "unbraked"}})
		if err != nil || len(events.GetEvents()) < 2 {
			t.Errorf("%v, %v", events, err)
		}
	})
}

// The explanation of a removal that was held says how it stood.
func TestExplainOfTheBrake(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, dead := braked(t)
		res, err := w.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: dead[0]})
		if err != nil {
			t.Fatal(err)
		}
		x := res.GetDecisions()[0].GetExplanation()
		if x.GetRule() != "brake" || x.GetSafetyBefore().GetSuspects() != 4 || x.GetSafetyBefore().GetBrakeLimit() != 3 || x.GetSafetyAfter() != nil {
			t.Errorf("%v", x)
		}
		off := uint32(100)
		_, err = w.admin.UpdatePool(t.Context(), &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{BrakePercent: &off}})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range dead {
			w.gone(id, 20*time.Second)
		}
		res, err = w.admin.ExplainServer(t.Context(), &pb.ExplainServerRequest{ServerId: dead[0]})
		if err != nil {
			t.Fatal(err)
		}
		x = res.GetDecisions()[0].GetExplanation()
		if x.GetSafetyAfter().GetLost() == 0 || x.GetSafetyAfter().GetMembers() >= 12 {
			t.Errorf("%v", x)
		}
	})
}

// A router that keeps removed servers is released also while the brake is off.
func TestReleaseOfWhatRoutersKeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", ringOf(t, w).GetRevision())
		r.keep("web-9")
		eventually(t, 5*time.Second, func() error {
			if kept := w.brake().GetKeptByRouters(); !slices.Equal(kept, []string{"web-9"}) {
				return fmt.Errorf("kept: %v", kept)
			}
			return nil
		})
		res, err := w.admin.ReleaseBrake(t.Context(), &pb.ReleaseBrakeRequest{Reason: "it is gone"})
		if err != nil || len(res.GetReleased()) != 0 {
			t.Fatalf("%v, %v", res, err)
		}
		r.caughtUp("default", res.GetRevision())
		if !r.sawConfirmed() {
			t.Error("the router is not told")
		}
	})
}

func TestUpdateAllSettings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		n := func(v uint32) *uint32 { return &v }
		want := &pb.PoolSettings{
			Mode: pb.Mode_MODE_SHADOW, ProbeInterval: durationpb.New(time.Second), StallTolerance: durationpb.New(2 * time.Second),
			RemovalGrace: durationpb.New(3 * time.Second), HoldDown: durationpb.New(4 * time.Second), HoldDownMax: durationpb.New(5 * time.Minute),
			HoldDownLoss: durationpb.New(6 * time.Second), BrakeLeast: n(0), BrakePercent: n(8), BrakeRackPercent: n(9), BrakeZonePercent: n(10),
			BrakeWindow: durationpb.New(11 * time.Second), FloorPercent: n(0), HeldPercent: n(13),
		}
		res, err := w.admin.UpdatePool(t.Context(), &pb.UpdatePoolRequest{Settings: want})
		if err != nil {
			t.Fatal(err)
		}
		got := res.GetPool().GetSettings()
		if got.String() != want.String() {
			t.Errorf("%v, want %v", got, want)
		}
		made, err := w.admin.CreatePool(t.Context(), &pb.CreatePoolRequest{Pool: "other", Settings: &pb.PoolSettings{BrakePercent: n(20)}})
		if s := made.GetPool().GetSettings(); err != nil || s.GetBrakePercent() != 20 || s.GetFloorPercent() != 50 || s.GetBrakeLeast() != 3 {
			t.Errorf("%v, %v", s, err)
		}
		// The fields of the mask alone.
		res, err = w.admin.UpdatePool(t.Context(), &pb.UpdatePoolRequest{Pool: "default", Settings: &pb.PoolSettings{BrakeLeast: n(5), HeldPercent: n(99)}, UpdateMask: mask("brake_least")})
		if s := res.GetPool().GetSettings(); err != nil || s.GetBrakeLeast() != 5 || s.GetHeldPercent() != 13 {
			t.Errorf("%v, %v", s, err)
		}
	})
}

// What an agent says of its service steers clients away at once, by mark and then
// by row.
func TestServiceHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		w := start(t, table)
		agents := w.join("web-1", "web-2", "web-3")
		r := w.newRouter("r1").subscribe()
		r.caughtUp("default", ringOf(t, w).GetRevision())
		a := agents[0]
		health := func(state pb.ServiceState, text string) *pb.ServiceHealth {
			return &pb.ServiceHealth{Incarnation: a.incarnation(), State: state, Text: text}
		}
		say := func(h *pb.ServiceHealth) {
			a.send(&pb.SessionRequest{Message: &pb.SessionRequest_ServiceHealth{ServiceHealth: h}})
		}
		phase := func(want pb.Phase) {
			t.Helper()
			eventually(t, 5*time.Second, func() error {
				if got := w.phases()["web-1"]; got != want {
					return fmt.Errorf("%s", got)
				}
				return nil
			})
		}
		release := table.hold()
		a.check(health(pb.ServiceState_SERVICE_STATE_DOWN, "http://: 503"))
		say(health(pb.ServiceState_SERVICE_STATE_DOWN, "http://: 503"))
		eventually(t, time.Second, func() error {
			if !r.holdsDown("web-1") {
				return errors.New("no mark")
			}
			return nil
		})
		if got := w.phases()["web-1"]; got != pb.Phase_PHASE_ACTIVE {
			t.Errorf("%s before the commit", got)
		}
		release()
		phase(pb.Phase_PHASE_SERVICE_DOWN)
		res, err := w.admin.GetServer(t.Context(), &pb.GetServerRequest{ServerId: "web-1"})
		if s := res.GetServer(); err != nil || s.GetServiceText() != "http://: 503" || s.GetSuspect() {
			t.Errorf("%v, %v", s, err)
		}
		pool, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{})
		if p := pool.GetPool(); err != nil || p.GetServiceDown() != 1 || p.GetActive() != 2 {
			t.Errorf("%v, %v", p, err)
		}
		if !slices.Contains(w.alarms(), "SERVICE_DOWN") || w.metric("buddyring_services_down", "pool", "default") != 1 || w.metric("buddyring_suspects") != 0 {
			t.Errorf("alarms %v, %v down, %v suspect", w.alarms(), w.metric("buddyring_services_down"), w.metric("buddyring_suspects"))
		}
		// Digests go on saying so; one that has no result yet changes nothing.
		time.Sleep(12 * time.Second)
		a.check(health(pb.ServiceState_SERVICE_STATE_UNSPECIFIED, ""))
		time.Sleep(12 * time.Second)
		phase(pb.Phase_PHASE_SERVICE_DOWN)
		say(health(pb.ServiceState_SERVICE_STATE_UP, ""))
		phase(pb.Phase_PHASE_ACTIVE)
		eventually(t, time.Second, func() error {
			if r.holdsDown("web-1") || slices.Contains(w.alarms(), "SERVICE_DOWN") {
				return fmt.Errorf("still down: %v", w.alarms())
			}
			return nil
		})
		// An agent without checks any more is up.
		say(health(pb.ServiceState_SERVICE_STATE_DOWN, "x"))
		phase(pb.Phase_PHASE_SERVICE_DOWN)
		a.check(nil)
		time.Sleep(6 * time.Second)
		phase(pb.Phase_PHASE_ACTIVE)
	})
}
