package server_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// xdsStream asks for resources of the router.
func (w *world) xdsStream(url string, names ...string) discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient {
	w.t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn()).StreamAggregatedResources(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: names}); err != nil {
		w.t.Fatal(err)
	}
	return stream
}

// answered returns the first response, and how long it took.
func answered(t *testing.T, s discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient) (*discoveryv3.DiscoveryResponse, time.Duration) {
	t.Helper()
	begun := time.Now()
	res, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return res, time.Since(begun)
}

// addressed is a row that xDS clients can be sent to.
func addressed(id, address string) *pb.Server {
	r := row(id)
	r.Spec.Endpoints = []*pb.Endpoint{{Address: address}}
	return r
}

// A router that has seen one of several pools does not say that there are no
// others.
func TestXDS_WaitsForTheWholeCatchUp(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 1), snapshot(at(1, 10), addressed("a", "10.0.0.1:80")), synced(1, 0))
		stream := w.xdsStream(resource.ListenerType, "default", "other")
		time.AfterFunc(time.Second, func() { _ = s.stream.Send(bookmark(at(1, 10))) })
		if res, took := answered(t, stream); took < time.Second || len(res.GetResources()) != 1 {
			t.Errorf("after %v: %v", took, res)
		}
	}, first)
}

// A router that never gets to know all pools sends its clients to another one.
func TestXDS_DoesNotKeepClientsWaiting(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next()
		begun := time.Now()
		_, err := w.xdsStream(resource.ListenerType, "default").Recv()
		if took := time.Since(begun); !errors.Is(err, member.ErrUnavailable) || took != 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	}, first)
}

// Until the whole catch-up is there, no door says that a pool is not.
func TestNothingIsMissedBeforeTheWholeCatchUp(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 1), snapshot(at(1, 10), addressed("a", "10.0.0.1:80")))
		synctest.Wait()
		router, health := w.client(), healthv1.NewHealthClient(w.conn())
		if _, err := router.Resolve(t.Context(), &routerv1.ResolveRequest{Pool: "default"}); err != nil {
			t.Errorf("a pool that is there: %v", err)
		}
		for _, name := range []string{"", "other"} {
			if _, err := router.Resolve(t.Context(), &routerv1.ResolveRequest{Pool: name}); !errors.Is(err, member.ErrUnavailable) {
				t.Errorf("pool %q: %v", name, err)
			}
		}
		state := func() []any {
			h, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{})
			ready, _ := w.get("/readyz")
			targets, _ := w.get("/sd/prometheus")
			pool, _ := w.get("/v1/pools/other")
			return []any{h.GetStatus() == healthv1.HealthCheckResponse_SERVING, err, ready, targets, pool}
		}
		if d := cmp.Diff([]any{false, nil, 503, 503, 503}, state()); d != "" {
			t.Errorf("before (-want +got):\n%s", d)
		}
		s.send(synced(1, 0), bookmark(at(1, 10)))
		synctest.Wait()
		if _, err := router.Resolve(t.Context(), &routerv1.ResolveRequest{Pool: "other"}); !errors.Is(err, member.ErrNotFound) {
			t.Errorf("a pool that is not there: %v", err)
		}
		if d := cmp.Diff([]any{true, nil, 200, 200, 404}, state()); d != "" {
			t.Errorf("afterwards (-want +got):\n%s", d)
		}
	}, first)
}

// Envoy begins with a list of all its extensions.
func TestXDS_TakesTheFirstRequestOfEnvoy(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next().send(catchUp(1)...)
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn()).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		node := &corev3.Node{Id: "edge-1"}
		for range 2000 {
			node.Extensions = append(node.Extensions, &corev3.Extension{Name: strings.Repeat("x", 50)})
		}
		if err := stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resource.ClusterType, Node: node}); err != nil {
			t.Fatal(err)
		}
		answered(t, stream)
	}, first)
}

// A router with the views of an earlier run waits a little for a coordinator.
func TestXDS_AnswersFromDiskAfterAWhile(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		w.coordinators[first].next().send(start("store", 1), snapshot(at(1, 10), addressed("a", "10.0.0.1:80")), synced(1, 0), bookmark(at(1, 10)))
		time.Sleep(time.Minute)
		w.stopRouter()
		w.remove(first)
		w.start()
		if res, took := answered(t, w.xdsStream(resource.EndpointType, "default")); took != 2*time.Second || len(res.GetResources()) != 1 {
			t.Errorf("after %v: %v", took, res)
		}
	}, first)
}

// A router acknowledges what its xDS clients have confirmed.
func TestXDS_AcknowledgesWhatClientsHaveConfirmed(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.start()
		s := w.coordinators[first].next()
		s.send(start("store", 1), snapshot(at(1, 10), addressed("a", "10.0.0.1:80"), addressed("b", "10.0.0.2:80")), synced(1, 0), bookmark(at(1, 10)))
		stream := w.xdsStream(resource.EndpointType, "default")
		confirm := func() {
			res, _ := answered(t, stream)
			if err := stream.Send(&discoveryv3.DiscoveryRequest{
				TypeUrl: resource.EndpointType, ResourceNames: []string{"default"}, VersionInfo: res.GetVersionInfo(), ResponseNonce: res.GetNonce(),
			}); err != nil {
				t.Error(err)
			}
		}
		confirm()
		s.send(delta(&pb.Delta{Position: at(1, 11), Removed: removed(pb.Cause_CAUSE_SHUTDOWN, "a")}))
		if got := s.ack().GetApplied()[0].GetRevision(); got != 10 {
			t.Errorf("acknowledged %d before the client has confirmed 11", got)
		}
		confirm()
		if got := s.ack().GetApplied()[0].GetRevision(); got != 11 {
			t.Errorf("acknowledged %d, want 11", got)
		}
		synctest.Wait()
	}, first)
}
