package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/server"
)

const (
	first  = "c1.test:7400"
	second = "c2.test:7400"
)

// world is a router between fake coordinators and clients, in a bubble.
type world struct {
	t   *testing.T
	dir string
	log *slog.Logger
	// slowStart is the router's.
	slowStart time.Duration
	// connections are the limits of its listeners.
	connections quota.Limits
	registry    *prometheus.Registry

	mu           sync.Mutex
	coordinators map[string]*coordinator
	// grpc, http and web are the router's listeners, and dns with packets those of its
	// DNS door, which is off unless the zone is set.
	grpc, http, web, dns *bufconn.Listener
	packets              *mailbox
	zone                 string
	stop                 func()
}

// inWorld runs a test in a bubble, with coordinators that can be reached.
func inWorld(t *testing.T, test func(t *testing.T, w *world), addresses ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: dir, log: slog.New(slog.DiscardHandler), coordinators: map[string]*coordinator{}}
		for _, a := range addresses {
			w.coordinator(a)
		}
		test(t, w)
		w.stopRouter()
		for _, c := range w.coordinators {
			c.stop()
		}
	})
}

// router returns a router that does not run yet.
func (w *world) router() *server.Server {
	w.t.Helper()
	w.grpc, w.http, w.web = bufconn.Listen(64<<10), bufconn.Listen(64<<10), bufconn.Listen(64<<10)
	w.registry = prometheus.NewRegistry()
	cfg := server.Config{
		ID: "r1", Listen: "127.0.0.1:7500", HTTPListen: "127.0.0.1:7502", WebListen: "127.0.0.1:7503",
		Coordinators: []string{first, second}, StateDir: w.dir, Version: "test", SlowStart: w.slowStart,
		Connections: w.connections,
	}
	if w.zone != "" {
		cfg.DNSListen, cfg.DNSZone = "127.0.0.1:53", w.zone
		w.dns, w.packets = bufconn.Listen(64<<10), newMailbox()
	}
	s, err := server.New(cfg, server.Deps{
		Credentials: plaintext(w.t), Registry: w.registry, Logger: w.log, Dialer: w.dial,
		Listen: func(_ context.Context, name, _ string) (net.Listener, error) {
			return map[string]net.Listener{"grpc": w.grpc, "http": w.http, "web": w.web, "dns": w.dns}[name], nil
		},
		ListenPacket: func(context.Context, string, string) (net.PacketConn, error) { return w.packets, nil },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// start runs a router until stopRouter or the end of the test.
func (w *world) start() {
	w.t.Helper()
	s := w.router()
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

func (w *world) stopRouter() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

func plaintext(t *testing.T) *rpc.Credentials {
	t.Helper()
	c, err := rpc.NewCredentials(rpc.Security{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) dial(ctx context.Context, address string) (net.Conn, error) {
	w.mu.Lock()
	c := w.coordinators[address]
	w.mu.Unlock()
	if c == nil {
		return nil, errors.New("nobody is there")
	}
	return c.lis.DialContext(ctx)
}

// client returns a client of the router with a connection of its own.
func (w *world) client() routerv1.RouterServiceClient {
	return routerv1.NewRouterServiceClient(w.conn())
}

func (w *world) conn() *grpc.ClientConn {
	w.t.Helper()
	lis := w.grpc
	conn, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{"router.test:7500"}, Credentials: plaintext(w.t), Logger: w.log,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// slowClient returns a client that lets the router send it 64 KiB ahead of what
// it has read, and no more.
func (w *world) slowClient() routerv1.RouterServiceClient {
	w.t.Helper()
	lis := w.grpc
	conn, err := grpc.NewClient("passthrough:///router.test",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return routerv1.NewRouterServiceClient(conn)
}

// get asks the HTTP listener.
func (w *world) get(path string) (int, string) {
	w.t.Helper()
	return w.getFrom(w.http, path)
}

func (w *world) getFrom(lis *bufconn.Listener, path string) (int, string) {
	w.t.Helper()
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://router.test"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// value returns the sum of a metric over its labels.
func (w *world) value(name string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// coordinator is a fake: each Subscribe is a session that the test plays.
type coordinator struct {
	pb.UnimplementedMembershipServiceServer

	t        *testing.T
	lis      *bufconn.Listener
	sessions chan *session
	stop     func()
}

func (w *world) coordinator(address string) *coordinator {
	c := &coordinator{t: w.t, lis: bufconn.Listen(1 << 20), sessions: make(chan *session, 16)}
	srv := rpc.NewServer(rpc.ServerConfig{Credentials: plaintext(w.t), Logger: w.log})
	pb.RegisterMembershipServiceServer(srv.GRPC(), c)
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, c.lis) }()
	c.stop = func() {
		cancel()
		<-ended
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.coordinators[address] = c
	return c
}

// remove makes a coordinator unreachable, also for those connected.
func (w *world) remove(address string) {
	w.mu.Lock()
	c := w.coordinators[address]
	delete(w.coordinators, address)
	w.mu.Unlock()
	c.stop()
}

func (c *coordinator) Subscribe(stream pb.MembershipService_SubscribeServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	s := &session{t: c.t, hello: req.GetHello(), stream: stream, end: make(chan error, 1)}
	go s.listen()
	c.sessions <- s
	select {
	case err := <-s.end:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// next returns the next session that a router opens.
func (c *coordinator) next() *session {
	c.t.Helper()
	select {
	case s := <-c.sessions:
		return s
	case <-time.After(time.Minute):
		c.t.Fatal("no subscription within a minute")
		return nil
	}
}

// session is one Subscribe, seen from the coordinator.
type session struct {
	t      *testing.T
	hello  *pb.SubscribeHello
	stream pb.MembershipService_SubscribeServer
	end    chan error
	// deaf coordinators do not answer a goodbye.
	deaf atomic.Bool

	mu   sync.Mutex
	acks []*pb.Ack
	// goodbye says that the router has ended the stream.
	goodbye bool
}

func (s *session) listen() {
	for {
		req, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			s.mu.Lock()
			s.goodbye = true
			s.mu.Unlock()
			if !s.deaf.Load() {
				s.end <- nil
			}
		}
		if err != nil {
			return
		}
		s.mu.Lock()
		s.acks = append(s.acks, req.GetAck())
		s.mu.Unlock()
	}
}

func (s *session) saidGoodbye() bool {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.goodbye
}

// ack returns the last acknowledgement, once nothing moves any more.
func (s *session) ack() *pb.Ack {
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acks) == 0 {
		return nil
	}
	return s.acks[len(s.acks)-1]
}

func (s *session) send(messages ...*pb.SubscribeResponse) {
	s.t.Helper()
	for _, m := range messages {
		if err := s.stream.Send(m); err != nil {
			s.t.Errorf("send %v: %v", m, err)
		}
	}
	synctest.Wait()
}

// bookmarks sends one each second for so many seconds.
func (s *session) bookmarks(seconds int, at ...*pb.Position) {
	s.t.Helper()
	for range seconds {
		time.Sleep(time.Second)
		s.send(bookmark(at...))
	}
}

// catchUp is what a coordinator of epoch 1 sends to a router that knows
// nothing: n servers at revision 10.
func catchUp(n int) []*pb.SubscribeResponse {
	return []*pb.SubscribeResponse{start("store", 1), snapshot(at(1, 10), rows(n)...), synced(1, 0), bookmark(at(1, 10))}
}

func start(storeID string, epoch uint64) *pb.SubscribeResponse {
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Start{Start: &pb.StreamStart{
		StoreId: storeID, Epoch: epoch, BookmarkInterval: durationpb.New(time.Second),
	}}}
}

func at(epoch, revision uint64) *pb.Position {
	return &pb.Position{Pool: "default", Epoch: epoch, Revision: revision}
}

func row(id string) *pb.Server {
	weight := uint32(100)
	return &pb.Server{
		ServerId: id, Pool: "default", Phase: pb.Phase_PHASE_ACTIVE, Incarnation: 1,
		Spec: &pb.ServerSpec{
			Endpoints: []*pb.Endpoint{{Name: "http", Address: id + ":80", Protocol: "http"}, {Name: "admin", Address: id + ":81"}},
			Zone:      "z1", Weight: &weight, Labels: map[string]string{"rev": "a"},
		},
	}
}

func rows(n int) []*pb.Server {
	out := make([]*pb.Server, n)
	for i := range out {
		out[i] = row(fmt.Sprintf("s%03d", i))
	}
	return out
}

func snapshot(p *pb.Position, servers ...*pb.Server) *pb.SubscribeResponse {
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Snapshot{
		Snapshot: &pb.Snapshot{Position: p, Servers: servers},
	}}
}

// delta goes to a position from the revision before.
func delta(d *pb.Delta) *pb.SubscribeResponse {
	if d.FromRevision == 0 {
		d.FromRevision = d.GetPosition().GetRevision() - 1
	}
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Delta{Delta: d}}
}

func crashed(ids ...string) []*pb.RemovedServer { return removed(pb.Cause_CAUSE_CRASHED, ids...) }

func removed(cause pb.Cause, ids ...string) []*pb.RemovedServer {
	out := make([]*pb.RemovedServer, len(ids))
	for i, id := range ids {
		out[i] = &pb.RemovedServer{ServerId: id, Incarnation: 1, Cause: cause}
	}
	return out
}

func suspect(epoch, seq uint64, id string, ttl time.Duration) *pb.SubscribeResponse {
	yes := true
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftMarks{SoftMarks: &pb.SoftMarks{
		Epoch: epoch,
		Marks: []*pb.SoftMark{{Pool: "default", ServerId: id, Incarnation: 1, Suspect: &yes, SoftSeq: seq, Ttl: durationpb.New(ttl)}},
	}}}
}

func synced(epoch, seq uint64) *pb.SubscribeResponse {
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftSynced{SoftSynced: &pb.SoftSynced{Epoch: epoch, SoftSeq: seq}}}
}

func bookmark(positions ...*pb.Position) *pb.SubscribeResponse {
	return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Bookmark{Bookmark: &pb.Bookmark{Positions: positions}}}
}

// resolved returns "STATE ID" of each server in the pool, in order.
func (w *world) resolved() []string {
	w.t.Helper()
	res, err := w.client().Resolve(w.t.Context(), &routerv1.ResolveRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	return lines(res.GetServers())
}

func lines(servers []*routerv1.Server) []string {
	out := make([]string, len(servers))
	for i, s := range servers {
		out[i] = map[routerv1.State]string{
			routerv1.State_STATE_ACTIVE: "active ", routerv1.State_STATE_SUSPECT: "suspect ", routerv1.State_STATE_HELD_BACK: "held_back ",
			routerv1.State_STATE_SERVICE_DOWN: "service_down ",
		}[s.GetState()] + s.GetServerId()
	}
	return out
}

func (w *world) freshness() *routerv1.Freshness {
	w.t.Helper()
	res, err := w.client().Resolve(w.t.Context(), &routerv1.ResolveRequest{})
	if err != nil {
		w.t.Fatal(err)
	}
	return res.GetFreshness()
}
