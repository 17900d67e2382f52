package server_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		plain := row("s001")
		plain.Spec.Endpoints = plain.Spec.Endpoints[:1]
		w.coordinators[first].next().send(start("store", 1), snapshot(at(1, 10), row("s000"), plain), synced(1, 0), bookmark(at(1, 10)))
		weight := uint32(100)
		server := func(id string, endpoints ...*routerv1.Endpoint) *routerv1.Server {
			return &routerv1.Server{
				ServerId: id, Incarnation: 1, State: routerv1.State_STATE_ACTIVE, Zone: "z1", Weight: &weight,
				Labels: map[string]string{"rev": "a"}, Endpoints: endpoints,
			}
		}
		http := func(id string) *routerv1.Endpoint {
			return &routerv1.Endpoint{Name: "http", Address: id + ":80", Protocol: "http"}
		}
		admin := &routerv1.Endpoint{Name: "admin", Address: "s000:81"}
		for endpoint, want := range map[string][]*routerv1.Server{
			"":      {server("s000", http("s000"), admin), server("s001", http("s001"))},
			"http":  {server("s000", http("s000")), server("s001", http("s001"))},
			"admin": {server("s000", admin)},
			"none":  nil,
		} {
			res, err := w.client().Resolve(t.Context(), &routerv1.ResolveRequest{Pool: "default", Endpoint: endpoint})
			if err != nil {
				t.Fatal(err)
			}
			if res.GetPool() != "default" || res.GetFreshness().GetRevision() != 10 {
				t.Errorf("pool %q, freshness %v", res.GetPool(), res.GetFreshness())
			}
			if diff := cmp.Diff(want, res.GetServers(), protocmp.Transform()); diff != "" {
				t.Errorf("endpoint %q (-want +got):\n%s", endpoint, diff)
			}
		}
	}, first)
}

func TestPick(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(4)...)
		s.send(suspect(1, 1, "s001", time.Minute))
		client := w.client()
		pick := func(req *routerv1.PickRequest) []string {
			t.Helper()
			res, err := client.Pick(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, c := range res.GetChoices() {
				ids = append(ids, c.GetServerId()+" "+strings.TrimPrefix(c.GetAddress(), c.GetServerId()))
			}
			return ids
		}
		for name, c := range map[string]struct {
			req  *routerv1.PickRequest
			want []string
		}{
			"all, suspects last":   {&routerv1.PickRequest{Count: 100}, []string{"s000 :80", "s002 :80", "s003 :80", "s001 :80"}},
			"by endpoint":          {&routerv1.PickRequest{Count: 4, Endpoint: "admin"}, []string{"s000 :81", "s002 :81", "s003 :81", "s001 :81"}},
			"all but the excluded": {&routerv1.PickRequest{Exclude: []string{"s000", "s002", "s001"}}, []string{"s003 :80"}},
			"only a suspect is left": {
				&routerv1.PickRequest{Policy: routerv1.Policy_POLICY_RANDOM, Exclude: []string{"s000", "s002", "s003"}},
				[]string{"s001 :80"},
			},
		} {
			got := pick(c.req)
			if len(got) > 1 {
				slices.Sort(got[:3])
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		var turns []string
		for range 6 {
			turns = append(turns, pick(&routerv1.PickRequest{Policy: routerv1.Policy_POLICY_ROUND_ROBIN})...)
		}
		if diff := cmp.Diff(turns[:3], turns[3:]); diff != "" || turns[0] == turns[1] {
			t.Errorf("round robin %v", turns)
		}
		if got := w.value("buddyring_router_picks_total"); got != 10 {
			t.Errorf("picks_total = %v, want 10", got)
		}
	}, first)
}

// The default policy keeps count of what it hands out, over changes of the pool.
func TestPick_DefaultEvensOut(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(20)...)
		client := w.client()
		picked := map[string]int{}
		for i := range 400 {
			if i%100 == 50 {
				revision := uint64(11 + i/100)
				s.send(delta(&pb.Delta{Position: at(1, revision), Removed: crashed("nobody")}))
			}
			res, err := client.Pick(t.Context(), &routerv1.PickRequest{})
			if err != nil {
				t.Fatal(err)
			}
			picked[res.GetChoices()[0].GetServerId()]++
		}
		for id, n := range picked {
			if n < 15 || n > 25 {
				t.Errorf("%s was picked %d times, want 20 ± 5", id, n)
			}
		}
	}, first)
}

func TestPick_NobodyLeft(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(1)...)
		for name, req := range map[string]*routerv1.PickRequest{
			"excluded": {Exclude: []string{"s000"}},
			"endpoint": {Endpoint: "grpc"},
		} {
			if _, err := w.client().Pick(t.Context(), req); !errors.Is(err, member.ErrUnavailable) {
				t.Errorf("%s: %v, want %v", name, err, member.ErrUnavailable)
			}
		}
		s.send(delta(&pb.Delta{Position: at(1, 11), Removed: removed(pb.Cause_CAUSE_SHUTDOWN, "s000")}))
		if _, err := w.client().Pick(t.Context(), &routerv1.PickRequest{}); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("empty pool: %v, want %v", err, member.ErrUnavailable)
		}
		if got := w.resolved(); len(got) > 0 {
			t.Errorf("resolved %v of an empty pool", got)
		}
	}, first)
}

func TestRequests_RefuseGarbageByField(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next().send(catchUp(1)...)
		client := w.client()
		pick := func(req *routerv1.PickRequest) error {
			_, err := client.Pick(t.Context(), req)
			return err
		}
		resolve := func(req *routerv1.ResolveRequest) error {
			_, err := client.Resolve(t.Context(), req)
			return err
		}
		for field, errs := range map[string][]error{
			"pool":   {pick(&routerv1.PickRequest{Pool: "A"}), resolve(&routerv1.ResolveRequest{Pool: "a b"})},
			"policy": {pick(&routerv1.PickRequest{Policy: 99})},
			"zone":   {pick(&routerv1.PickRequest{Zone: "a b"}), resolve(&routerv1.ResolveRequest{Zone: "-"})},
			"key": {
				pick(&routerv1.PickRequest{Policy: routerv1.Policy_POLICY_MAGLEV}),
				pick(&routerv1.PickRequest{Policy: routerv1.Policy_POLICY_P2C, Key: "alice"}),
				pick(&routerv1.PickRequest{Key: strings.Repeat("a", 1025)}),
			},
			"count":    {pick(&routerv1.PickRequest{Count: 101})},
			"endpoint": {pick(&routerv1.PickRequest{Endpoint: "-"}), resolve(&routerv1.ResolveRequest{Endpoint: "\x00"})},
			"exclude":  {pick(&routerv1.PickRequest{Exclude: []string{""}}), pick(&routerv1.PickRequest{Exclude: make([]string, 101)})},
		} {
			for _, err := range errs {
				var wrong *member.FieldError
				if !errors.As(err, &wrong) || wrong.Field != field {
					t.Errorf("%v, want one that names %s", err, field)
				}
			}
		}
		if err := pick(&routerv1.PickRequest{Pool: "other"}); !errors.Is(err, member.ErrNotFound) {
			t.Errorf("unknown pool: %v, want %v", err, member.ErrNotFound)
		}
	}, first)
}

func TestRequests_NeedAPoolWhereThereAreTwo(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(1)...)
		s.send(snapshot(&pb.Position{Pool: "other", Epoch: 1, Revision: 1}, row("o1")))
		var wrong *member.FieldError
		if _, err := w.client().Pick(t.Context(), &routerv1.PickRequest{}); !errors.As(err, &wrong) || wrong.Field != "pool" {
			t.Errorf("without a pool: %v, want one that names pool", err)
		}
		res, err := w.client().Pick(t.Context(), &routerv1.PickRequest{Pool: "other"})
		if err != nil || res.GetChoices()[0].GetServerId() != "o1" {
			t.Errorf("pick from other: %v, %v", res, err)
		}
	}, first)
}

func TestPick_ByKey(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(20)...)
		client := w.client()
		home := func(key string) string {
			t.Helper()
			res, err := client.Pick(t.Context(), &routerv1.PickRequest{Key: key})
			if err != nil {
				t.Fatal(err)
			}
			return res.GetChoices()[0].GetServerId()
		}
		before, used := map[string]string{}, map[string]bool{}
		for i := range 100 {
			key := fmt.Sprintf("user-%d", i)
			before[key] = home(key)
			used[before[key]] = true
		}
		if len(used) < 15 {
			t.Errorf("100 keys are at %d of 20 servers", len(used))
		}
		gone := before["user-0"]
		s.send(delta(&pb.Delta{Position: at(1, 11), Removed: crashed(gone)}))
		moved := 0
		for key, old := range before {
			now := home(key)
			if now == gone {
				t.Errorf("%s is sent to %s, which is gone", key, now)
			}
			if old != gone && now != old {
				moved++
			}
		}
		if moved > 5 {
			t.Errorf("%d of 100 keys left a server that is still there", moved)
		}
	}, first)
}

// A key that all ask for leaves its server once that has had more than its share.
func TestPick_BoundsTheLoadOfAKey(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next().send(catchUp(10)...)
		client, picked := w.client(), map[string]int{}
		for range 300 {
			res, err := client.Pick(t.Context(), &routerv1.PickRequest{Policy: routerv1.Policy_POLICY_MAGLEV, Key: "all"})
			if err != nil {
				t.Fatal(err)
			}
			picked[res.GetChoices()[0].GetServerId()]++
		}
		for id, n := range picked {
			if n > 46 {
				t.Errorf("%s got %d of 300 picks, want at most 1.5 times 30", id, n)
			}
		}
		// A quiet pool has no need to: 20 for each server are no load.
		time.Sleep(time.Minute)
		clear(picked)
		for range 30 {
			res, err := client.Pick(t.Context(), &routerv1.PickRequest{Key: "all"})
			if err != nil {
				t.Fatal(err)
			}
			picked[res.GetChoices()[0].GetServerId()]++
		}
		if len(picked) != 1 {
			t.Errorf("30 picks went to %v, want one server", picked)
		}
	}, first)
}

// inZones are rows: n in each zone.
func inZones(n int, zones ...string) []*pb.Server {
	var out []*pb.Server
	for _, z := range zones {
		for i := range n {
			r := row(fmt.Sprintf("%s%02d", z, i))
			r.Spec.Zone = z
			out = append(out, r)
		}
	}
	return out
}

func TestZoneComesFirst(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 1), snapshot(at(1, 10), inZones(2, "a", "b", "c")...), synced(1, 0), bookmark(at(1, 10)))
		s.send(suspect(1, 1, "b00", time.Minute))
		for zone, want := range map[string][]string{
			"":  {"active a00", "active a01", "active b01", "active c00", "active c01", "suspect b00"},
			"b": {"active b01", "active a00", "active a01", "active c00", "active c01", "suspect b00"},
			"c": {"active c00", "active c01", "active a00", "active a01", "active b01", "suspect b00"},
			"x": {"active a00", "active a01", "active b01", "active c00", "active c01", "suspect b00"},
		} {
			for _, endpoint := range []string{"", "http"} {
				res, err := w.client().Resolve(t.Context(), &routerv1.ResolveRequest{Zone: zone, Endpoint: endpoint})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, lines(res.GetServers())); diff != "" {
					t.Errorf("zone %q (-want +got):\n%s", zone, diff)
				}
			}
		}
		for range 50 {
			res, err := w.client().Pick(t.Context(), &routerv1.PickRequest{Zone: "c", Count: 2})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range res.GetChoices() {
				if c.GetServerId()[0] != 'c' {
					t.Fatalf("picked %s from zone c", c.GetServerId())
				}
			}
		}
	}, first)
}

func TestPick_StartsNewcomersSlowly(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.slowStart = 10 * time.Second
		w.start()
		s := w.coordinators[first].next()
		s.send(catchUp(4)...)
		s.send(delta(&pb.Delta{Position: at(1, 11), Put: []*pb.Server{row("new")}}))
		client := w.client()
		share := func() float64 {
			t.Helper()
			picked := 0
			const n = 420
			for range n {
				res, err := client.Pick(t.Context(), &routerv1.PickRequest{Policy: routerv1.Policy_POLICY_ROUND_ROBIN})
				if err != nil {
					t.Fatal(err)
				}
				if res.GetChoices()[0].GetServerId() == "new" {
					picked++
				}
			}
			return float64(picked) / n
		}
		for _, want := range []float64{0.1 / 4.1, 0.5 / 4.5, 1. / 5} {
			if got := share(); math.Abs(got-want) > 0.01 {
				t.Errorf("the newcomer gets %.3f, want %.3f", got, want)
			}
			s.bookmarks(5, at(1, 11))
			time.Sleep(500 * time.Millisecond)
		}
	}, first)
}
