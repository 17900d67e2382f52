package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/router/view"
	"github.com/buddyring/buddyring/router/xds"
)

// world is a door and what it is told, in a bubble.
type world struct {
	t        *testing.T
	door     *xds.Door
	registry *prometheus.Registry
	lis      *bufconn.Listener
	changed  chan struct{}
	stop     func()

	mu    sync.Mutex
	pools map[member.Pool]xds.Pool
	seq   uint64
	ready bool
}

// inWorld runs a test with a door that is open.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	inWorldThatIs(t, true, test)
}

func inWorldThatIs(t *testing.T, ready bool, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, registry: prometheus.NewRegistry(), lis: bufconn.Listen(64 << 10), changed: make(chan struct{}, 1),
			pools: map[member.Pool]xds.Pool{}, ready: ready,
		}
		log := slog.New(slog.DiscardHandler)
		w.door = xds.New(xds.Config{Registry: w.registry, Logger: log})
		credentials, err := rpc.NewCredentials(rpc.Security{}, log)
		if err != nil {
			t.Fatal(err)
		}
		srv := rpc.NewServer(rpc.ServerConfig{Credentials: credentials, Logger: log, MaxRecvBytes: 256 << 10})
		w.door.Register(srv.GRPC())
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() {
			if err := srv.Serve(ctx, w.lis); err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		work.Go(func() { w.door.Run(ctx, w.changed, w.current) })
		w.stop = sync.OnceFunc(func() { cancel(); work.Wait(); w.door.Wait() })
		test(t, w)
		w.stop()
	})
}

func (w *world) current() ([]xds.Pool, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]xds.Pool, 0, len(w.pools))
	for _, p := range w.pools {
		all = append(all, p)
	}
	return all, w.ready
}

// change does something to what the door is told, and returns when it knows.
func (w *world) change(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
	synctest.Wait()
}

// put makes v the view of its pool, and returns the number of that state.
func (w *world) put(v *view.View) uint64 {
	var seq uint64
	w.change(func() {
		w.seq++
		seq = w.seq
		w.pools[v.Pool()] = xds.Pool{Seq: seq, View: v, Table: v.Table()}
	})
	return seq
}

func (w *world) remove(pool member.Pool) { w.change(func() { delete(w.pools, pool) }) }

// client is one stream, played by the test.
type client struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node   *corev3.Node
	close  func()
}

func (w *world) client() *client { return w.clientOf(w.conn()) }

func (w *world) conn(options ...grpc.DialOption) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("passthrough:///router.test", append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return w.lis.DialContext(ctx) }))...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *world) clientOf(conn *grpc.ClientConn) *client {
	w.t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return &client{t: w.t, stream: stream, node: &corev3.Node{Id: "n1"}, close: func() { _ = conn.Close() }}
}

func (c *client) send(req *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	req.Node, c.node = c.node, nil
	if err := c.stream.Send(req); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) ask(url string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: names})
}

func (c *client) ack(res *discoveryv3.DiscoveryResponse, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{
		TypeUrl: res.GetTypeUrl(), ResourceNames: names, VersionInfo: res.GetVersionInfo(), ResponseNonce: res.GetNonce(),
	})
}

func (c *client) nack(res *discoveryv3.DiscoveryResponse, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{
		TypeUrl: res.GetTypeUrl(), ResourceNames: names, ResponseNonce: res.GetNonce(),
		ErrorDetail: &status.Status{Code: 3, Message: strings.Repeat("no ", 10_000)},
	})
}

func (c *client) recv() *discoveryv3.DiscoveryResponse {
	c.t.Helper()
	res, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	return res
}

// quiet fails if something arrives within a minute.
func (c *client) quiet() {
	c.t.Helper()
	got := make(chan *discoveryv3.DiscoveryResponse, 1)
	go func() {
		if res, err := c.stream.Recv(); err == nil {
			got <- res
		}
	}()
	select {
	case res := <-got:
		c.t.Errorf("unexpected response %v", res)
	case <-time.After(time.Minute):
	}
}

// hosts are the addresses in the assignments of a response, by name, with their
// health and priority.
func hosts(t *testing.T, res *discoveryv3.DiscoveryResponse) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, r := range res.GetResources() {
		a := &endpointv3.ClusterLoadAssignment{}
		if err := r.UnmarshalTo(a); err != nil {
			t.Fatal(err)
		}
		out[a.GetClusterName()] = lines(a)
	}
	return out
}

func lines(a *endpointv3.ClusterLoadAssignment) []string {
	out := []string{}
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			at := e.GetEndpoint().GetAddress().GetSocketAddress()
			out = append(out, fmt.Sprintf("%d %s:%d %s %s/%s %d", l.GetPriority(), at.GetAddress(), at.GetPortValue(),
				strings.ToLower(e.GetHealthStatus().String()), l.GetLocality().GetZone(), l.GetLocality().GetSubZone(),
				l.GetLoadBalancingWeight().GetValue()))
		}
	}
	return out
}

func clusters(t *testing.T, res *discoveryv3.DiscoveryResponse) []string {
	t.Helper()
	out := make([]string, 0, len(res.GetResources()))
	for _, r := range res.GetResources() {
		c := &clusterv3.Cluster{}
		if err := r.UnmarshalTo(c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c.GetName())
	}
	return out
}

// metric returns a metric with these label values.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if f.GetName() == "buddyring_router_xds_"+name && (len(labels) == 0 || strings.Join(values, " ") == strings.Join(labels, " ")) {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}

// row is an active server of the default weight.
func row(id, address string, change ...func(*view.Server)) *view.Server {
	s := &view.Server{
		ID: member.ID(id), Incarnation: 1, Phase: member.PhaseActive, Zone: "a", Weight: 100,
		Endpoints: []member.Endpoint{{Name: "http", Address: address}},
	}
	for _, f := range change {
		f(s)
	}
	return s
}

func in(p member.Phase) func(*view.Server) { return func(s *view.Server) { s.Phase = p } }

// pool is a view of the pool with these rows at revision 1.
func pool(name string, rows ...*view.Server) *view.View {
	v, err := view.New(member.Pool(name)).ApplySnapshot(view.Snapshot{
		StoreID: "store", Position: member.Position{Epoch: 1, Revision: 1}, Servers: rows,
	})
	if err != nil {
		panic(err)
	}
	return v
}

// after is the view after a delta.
func after(t *testing.T, v *view.View, put []*view.Server, removed ...member.Removal) *view.View {
	t.Helper()
	at := v.Position()
	next, err := v.ApplyDelta(view.Delta{
		From: at.Revision, To: member.Position{Epoch: at.Epoch, Revision: at.Revision + 1}, Put: put, Removed: removed,
	})
	if err != nil {
		t.Fatal(err)
	}
	return next
}

const (
	lds = resource.ListenerType
	rds = resource.RouteType
	cds = resource.ClusterType
	eds = resource.EndpointType
)
