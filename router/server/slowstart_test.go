package server_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/miekg/dns"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// newcomer is a server that has joined an old one.
const newcomer = "10.0.0.2:80"

// startNewcomer lets a server join that takes 10 s to its whole weight.
func (w *world) startNewcomer() *session {
	w.slowStart, w.zone = 10*time.Second, "test."
	w.start()
	s := w.coordinators[first].next()
	s.send(start("store", 1), snapshot(at(1, 10), addressed("old", "10.0.0.1:80")), synced(1, 0), bookmark(at(1, 10)))
	s.send(delta(&pb.Delta{Position: at(1, 11), Put: []*pb.Server{addressed("new", newcomer)}}))
	return s
}

// Whichever door a client uses, a newcomer has the weight that it has for picks.
func TestSlowStartIsSeenAtEveryDoor(t *testing.T) {
	t.Parallel()
	for door, weigh := range map[string]func(w *world) uint32{
		"Resolve": (*world).resolvedWeight, "HTTP": (*world).webWeight, "DNS": (*world).dnsWeight, "xDS": (*world).xdsWeight,
	} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				s := w.startNewcomer()
				for _, want := range []uint32{10, 50, 100} {
					if got := weigh(w); got != want {
						t.Errorf("weight %d, want %d", got, want)
					}
					s.bookmarks(5, at(1, 11))
					time.Sleep(500 * time.Millisecond)
				}
			}, first)
		})
	}
}

func (w *world) resolvedWeight() uint32 {
	w.t.Helper()
	res, err := w.client().Resolve(w.t.Context(), &routerv1.ResolveRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	return weightIn(res.GetServers())
}

func weightIn(servers []*routerv1.Server) uint32 {
	for _, s := range servers {
		if s.GetServerId() == "new" {
			return s.GetWeight()
		}
	}
	return 0
}

func (w *world) webWeight() (weight uint32) {
	w.t.Helper()
	_, text := w.get("/v1/pools/default")
	found := regexp.MustCompile(`"server_id":"new".*?"weight":(\d+)`).FindStringSubmatch(text)
	if len(found) != 2 {
		w.t.Fatal(text)
	}
	if _, err := fmt.Sscan(found[1], &weight); err != nil {
		w.t.Fatal(err)
	}
	return weight
}

// dnsWeight: in SRV records, the default weight is 100 times scale.
func (w *world) dnsWeight() uint32 {
	const scale = 256
	w.t.Helper()
	for _, rr := range w.lookup("default.test.").Answer {
		if srv, ok := rr.(*dns.SRV); ok && srv.Target == "new.default.test." {
			return uint32(srv.Weight) / scale
		}
	}
	return 0
}

func (w *world) xdsWeight() uint32 {
	w.t.Helper()
	stream := w.xdsStream(resource.EndpointType, "default")
	res, _ := answered(w.t, stream)
	assignment := new(endpointv3.ClusterLoadAssignment)
	if err := res.GetResources()[0].UnmarshalTo(assignment); err != nil {
		w.t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		w.t.Fatal(err)
	}
	for _, l := range assignment.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			if a := e.GetEndpoint().GetAddress().GetSocketAddress(); fmt.Sprintf("%s:%d", a.GetAddress(), a.GetPortValue()) == newcomer {
				return l.GetLoadBalancingWeight().GetValue() / uint32(len(l.GetLbEndpoints()))
			}
		}
	}
	return 0
}

// Watchers are told each tenth as it comes, and nothing when nobody is new.
func TestWatch_TellsTheWeightsOfASlowStart(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.startNewcomer()
		stream, err := w.client().Watch(t.Context(), &routerv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var told []uint32
		for begun := time.Now(); time.Since(begun) < 15*time.Second; {
			res, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if servers := append(res.GetSnapshot().GetServers(), res.GetDelta().GetPut()...); len(servers) > 0 {
				told = append(told, weightIn(servers))
			}
			s.send(bookmark(at(1, 11)))
		}
		if got := fmt.Sprint(told); got != "[10 20 30 40 50 60 70 80 90 100]" {
			t.Errorf("weights %s", got)
		}
	}, first)
}
