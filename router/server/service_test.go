package server_test

import (
	"errors"
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
			"pool":     {pick(&routerv1.PickRequest{Pool: "A"}), resolve(&routerv1.ResolveRequest{Pool: "a b"})},
			"policy":   {pick(&routerv1.PickRequest{Policy: 99})},
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
