package xds_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

func TestNoAnswerBeforeTheDoorIsOpen(t *testing.T) {
	t.Parallel()
	inWorldThatIs(t, false, func(t *testing.T, w *world) {
		w.put(pool("web", row("a", "10.0.0.1:80")))
		client := w.client()
		client.ask(lds, "web", "other")
		begun := time.Now()
		time.AfterFunc(4*time.Second, func() { w.change(func() { w.ready = true }) })
		if res := client.recv(); len(res.GetResources()) != 1 || time.Since(begun) != 4*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), res)
		}
		client.close()
	})
}

func TestAClientThatAsksForNothingGetsAllClusters(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.put(pool("web", row("a", "10.0.0.1:80")))
		w.put(pool("db"))
		client := w.client()
		client.ask(cds)
		res := client.recv()
		names := clusters(t, res)
		slices.Sort(names)
		if diff := cmp.Diff([]string{"db", "web", "web/http"}, names); diff != "" {
			t.Error(diff)
		}
		client.ack(res)
		client.ask(lds)
		if res := client.recv(); len(res.GetResources()) > 0 {
			t.Errorf("listeners %v", res)
		}
		w.remove("db")
		names = clusters(t, client.recv())
		slices.Sort(names)
		if diff := cmp.Diff([]string{"web", "web/http"}, names); diff != "" {
			t.Error(diff)
		}
		client.close()
	})
}

func TestAPoolThatIsMadeLaterIsSentToThoseWhoWait(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		client := w.client()
		client.ask(lds, "web")
		res := client.recv()
		if len(res.GetResources()) > 0 {
			t.Errorf("response %v", res)
		}
		client.ack(res, "web")
		w.put(pool("web", row("a", "10.0.0.1:80")))
		if res := client.recv(); len(res.GetResources()) != 1 {
			t.Errorf("response %v", res)
		}
		client.close()
	})
}

// While a pool has members, no state of theirs makes its set empty, and none of
// its names goes away.
func TestASetNeverTurnsEmptyByAccident(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		v := pool("web", row("a", "10.0.0.1:80"))
		w.put(v)
		client := w.client()
		client.ask(eds, "web", "web/http")
		res := client.recv()
		client.ack(res, "web", "web/http")
		for _, p := range []member.Phase{member.PhaseDraining, member.PhaseJoining, member.PhaseHeld} {
			v = after(t, v, []*view.Server{row("a", "10.0.0.1:80", in(p))})
			w.put(v)
		}
		// It is another one that has no such endpoint.
		v = after(t, v, []*view.Server{row("b", "10.0.0.2:80", func(s *view.Server) { s.Endpoints[0].Name = "other" })}, left("a"))
		w.put(v)
		res = client.recv()
		if diff := cmp.Diff(map[string][]string{"web": {"0 10.0.0.2:80 healthy a/weight-100 100"}}, hosts(t, res)); diff != "" {
			t.Error(diff)
		}
		client.ack(res, "web", "web/http")
		client.ask(cds, "web/http", "web/other")
		if names := clusters(t, client.recv()); len(names) != 2 {
			t.Errorf("clusters %v", names)
		}
		// All of them have left by their own wish.
		w.put(after(t, v, nil, left("b")))
		if diff := cmp.Diff(map[string][]string{"web": {}, "web/http": {}}, hosts(t, client.recv())); diff != "" {
			t.Error(diff)
		}
		client.close()
	})
}

func TestWhatHasNotChangedIsNotSent(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		v := pool("web", row("a", "10.0.0.1:80"))
		w.put(v)
		client := w.client()
		client.ask(eds, "web")
		client.ack(client.recv(), "web")
		w.put(after(t, v, []*view.Server{row("a", "10.0.0.1:80", func(s *view.Server) { s.Labels = map[string]string{"rev": "b"} })}))
		client.quiet()
		client.close()
	})
}

// Every resource is valid by its schema, and clusters say what keeps work from
// servers that are gone or bad.
func TestResourcesAreComplete(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.put(pool("web", row("a", "10.0.0.1:80")))
		client := w.client()
		for _, url := range []string{lds, rds, cds, eds} {
			client.ask(url, "web")
			res := client.recv()
			m, err := res.GetResources()[0].UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			if err := m.(interface{ ValidateAll() error }).ValidateAll(); err != nil {
				t.Error(err)
			}
			if c, ok := m.(*clusterv3.Cluster); ok {
				od := c.GetOutlierDetection()
				if od.GetMaxEjectionPercent().GetValue() != 10 || od.GetInterval().AsDuration() != 10*time.Second ||
					!c.GetIgnoreHealthOnHostRemoval() || c.GetCommonLbConfig().GetLocalityWeightedLbConfig() == nil ||
					c.GetCommonLbConfig().GetHealthyPanicThreshold() == nil || c.GetCommonLbConfig().GetHealthyPanicThreshold().GetValue() != 0 {
					t.Errorf("cluster %v", c)
				}
			}
		}
		client.close()
	})
}

func TestHTTP2IsForServersThatSaySo(t *testing.T) {
	t.Parallel()
	grpc := func(s *view.Server) { s.Endpoints[0].Protocol = "grpc" }
	inWorld(t, func(t *testing.T, w *world) {
		w.put(pool("web", row("a", "10.0.0.1:80", grpc), row("b", "10.0.0.2:80", grpc)))
		w.put(pool("mixed", row("a", "10.0.0.1:80", grpc), row("b", "10.0.0.2:80")))
		client := w.client()
		client.ask(cds, "web", "mixed")
		for _, r := range client.recv().GetResources() {
			http2 := strings.Contains(string(r.GetValue()), "HttpProtocolOptions")
			if web := strings.Contains(string(r.GetValue()), "web"); http2 != web {
				t.Errorf("HTTP/2 %v in %q", http2, r.GetValue())
			}
		}
		client.close()
	})
}

func TestAPoolThatCannotBePublishedIsAlone(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.put(pool("bad", row("a", "10.0.0.1:80", zone("\xff"))))
		w.put(pool("web", row("a", "10.0.0.2:80")))
		client := w.client()
		client.ask(eds, "bad", "web")
		if diff := cmp.Diff(map[string][]string{"web": {"0 10.0.0.2:80 healthy a/weight-100 100"}}, hosts(t, client.recv())); diff != "" {
			t.Error(diff)
		}
		client.close()
	})
}

func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	many := make([]string, 1_001)
	for i := range many {
		many[i] = fmt.Sprintf("p%d", i)
	}
	for _, c := range []struct {
		limit string
		req   *discoveryv3.DiscoveryRequest
		node  *corev3.Node
	}{
		{"type", &discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.service.runtime.v3.Runtime"}, nil},
		{"type", &discoveryv3.DiscoveryRequest{}, nil},
		{"names", &discoveryv3.DiscoveryRequest{TypeUrl: eds, ResourceNames: many}, nil},
		{"node", &discoveryv3.DiscoveryRequest{TypeUrl: eds}, &corev3.Node{Id: strings.Repeat("n", 257)}},
		{"node", &discoveryv3.DiscoveryRequest{TypeUrl: eds}, &corev3.Node{Cluster: strings.Repeat("n", 257)}},
	} {
		t.Run(c.limit, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				client := w.client()
				client.node = c.node
				client.send(c.req)
				if _, err := client.stream.Recv(); status.Code(err) != codes.InvalidArgument {
					t.Errorf("error %v", err)
				}
				if n := w.metric("refused_total", c.limit); n != 1 {
					t.Errorf("%v counted", n)
				}
				client.close()
			})
		})
	}
}

// A name that nobody can have is absent like any other that nobody has, and what
// else the client asks for is served.
func TestGiantNamesAreAbsent(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.put(pool("web", row("a", "10.0.0.1:80")))
		client := w.client()
		client.ask(cds, strings.Repeat("p", 128))
		if res := client.recv(); len(res.GetResources()) > 0 {
			t.Errorf("response %v", res)
		}
		client.ask(eds, strings.Repeat("p", 128), "web")
		if got := hosts(t, client.recv()); len(got) != 1 {
			t.Errorf("assignments %v", got)
		}
		if n := w.metric("refused_total", "name"); n != 2 {
			t.Errorf("%v counted", n)
		}
		client.close()
	})
}

func TestAClientThatDoesNotReadIsDropped(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		rows := make([]*view.Server, 5_000)
		for i := range rows {
			rows[i] = row(fmt.Sprintf("s%d", i), fmt.Sprintf("10.1.%d.%d:80", i/250, i%250+1))
		}
		w.put(pool("web", rows...))
		conn := w.conn(grpc.WithInitialWindowSize(64 << 10))
		client := w.clientOf(conn)
		client.ask(eds, "web", "web/http")
		synctest.Wait()
		// A second response does not fit into what gRPC buffers.
		client.ask(cds)
		time.Sleep(4 * time.Second)
		if n := w.metric("streams"); n != 1 {
			t.Errorf("%v streams", n)
		}
		time.Sleep(2 * time.Second)
		if streams, dropped := w.metric("streams"), w.metric("dropped_total"); streams != 0 || dropped != 1 {
			t.Errorf("%v streams, %v dropped", streams, dropped)
		}
		client.close()
	})
}

func TestStreamsEndWithTheDoor(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		client := w.client()
		client.ask(lds, "web")
		client.ack(client.recv(), "web")
		synctest.Wait()
		begun := time.Now()
		w.stop()
		if _, err := client.stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("stopped after %v", took)
		}
		client.close()
	})
}
