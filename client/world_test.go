package client_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/client"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

const first, second = "first.test:7500", "second.test:7500"

// world is a network of fake routers and servers, within a bubble.
type world struct {
	t   *testing.T
	dir string

	mu sync.Mutex
	// listeners are those that can be reached, by address.
	listeners map[string]*bufconn.Listener
}

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		test(t, &world{t: t, dir: dir, listeners: map[string]*bufconn.Listener{}})
	})
}

func (w *world) dial(ctx context.Context, address string) (net.Conn, error) {
	w.mu.Lock()
	lis := w.listeners[address]
	w.mu.Unlock()
	if lis == nil {
		return nil, &net.OpError{Op: "dial", Err: errors.New("nobody is there")}
	}
	return lis.DialContext(ctx)
}

// serve serves at an address until the function it returns is called.
func (w *world) serve(address string, srv *grpc.Server) (stop func()) {
	lis := bufconn.Listen(1 << 20)
	w.mu.Lock()
	w.listeners[address] = lis
	w.mu.Unlock()
	var ended sync.WaitGroup
	ended.Go(func() { _ = srv.Serve(lis) })
	stop = sync.OnceFunc(func() {
		w.mu.Lock()
		if w.listeners[address] == lis {
			delete(w.listeners, address)
		}
		w.mu.Unlock()
		srv.Stop()
		ended.Wait()
	})
	w.t.Cleanup(stop)
	return stop
}

// router is a fake: each Watch is a session that the test plays.
type router struct {
	routerv1.UnimplementedRouterServiceServer

	w        *world
	sessions chan *session
	// refusal ends every Watch at once, if set.
	refusal error
	// refused counts those.
	refused int
	// kill ends the router and all its streams.
	kill func()
}

func (w *world) router(address string) *router {
	r := &router{w: w, sessions: make(chan *session, 16)}
	srv := grpc.NewServer()
	routerv1.RegisterRouterServiceServer(srv, r)
	r.kill = w.serve(address, srv)
	return r
}

// refusing is a router that answers every Watch with an error.
func (w *world) refusing(address string, err error) *router {
	r := w.router(address)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.refusal = err
	return r
}

func (r *router) refuse(err error) {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	r.refusal = err
}

func (r *router) refusals() int {
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	return r.refused
}

func (r *router) Watch(req *routerv1.WatchRequest, stream routerv1.RouterService_WatchServer) error {
	r.w.mu.Lock()
	refusal := r.refusal
	if refusal != nil {
		r.refused++
	}
	r.w.mu.Unlock()
	if refusal != nil {
		return refusal
	}
	s := &session{t: r.w.t, req: req, store: "store", age: time.Second, out: make(chan *routerv1.WatchResponse), end: make(chan error, 1), ended: stream.Context().Done()}
	r.sessions <- s
	for {
		select {
		case msg := <-s.out:
			if err := stream.Send(msg); err != nil {
				return err
			}
		case err := <-s.end:
			return err
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// session returns the next Watch.
func (r *router) session() *session {
	r.w.t.Helper()
	select {
	case s := <-r.sessions:
		return s
	case <-time.After(time.Minute):
		r.w.t.Fatal("nobody watches")
		return nil
	}
}

// idle fails if somebody has begun to watch.
func (r *router) idle() {
	r.w.t.Helper()
	select {
	case <-r.sessions:
		r.w.t.Error("somebody watches")
	default:
	}
}

// session is one Watch as a test plays it.
type session struct {
	t   *testing.T
	req *routerv1.WatchRequest
	// store, stale and age go with every message.
	store string
	stale bool
	age   time.Duration
	// run goes with snapshots.
	run   string
	out   chan *routerv1.WatchResponse
	end   chan error
	ended <-chan struct{}
}

func (s *session) send(epoch, revision uint64, msg *routerv1.WatchResponse) {
	s.t.Helper()
	msg.Freshness = &routerv1.Freshness{
		StoreId: s.store, Epoch: epoch, Revision: revision, Stale: &s.stale, Age: durationpb.New(s.age),
	}
	select {
	case s.out <- msg:
	case <-s.ended:
		s.t.Error("the watch is over")
	}
	synctest.Wait()
}

// snapshot sends servers, each as "[STATE ]ID", and waits until that has arrived.
func (s *session) snapshot(epoch, revision uint64, servers ...string) {
	s.t.Helper()
	s.send(epoch, revision, &routerv1.WatchResponse{Message: &routerv1.WatchResponse_Snapshot{
		Snapshot: &routerv1.WatchSnapshot{Servers: serversOf(servers), Run: s.run},
	}})
}

func (s *session) delta(epoch, revision uint64, put, removed []string) {
	s.t.Helper()
	s.send(epoch, revision, &routerv1.WatchResponse{Message: &routerv1.WatchResponse_Delta{
		Delta: &routerv1.WatchDelta{Put: serversOf(put), Removed: removed},
	}})
}

func (s *session) bookmark(epoch, revision uint64) {
	s.t.Helper()
	s.send(epoch, revision, &routerv1.WatchResponse{Message: &routerv1.WatchResponse_Bookmark{
		Bookmark: &routerv1.WatchBookmark{},
	}})
}

// over reports whether the watch has ended.
func (s *session) over() bool {
	synctest.Wait()
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// keep sends bookmarks for a time, as a router does each second.
func (s *session) keep(d time.Duration, epoch, revision uint64) {
	s.t.Helper()
	for ; d > 0 && !s.over(); d -= time.Second {
		time.Sleep(time.Second)
		if !s.over() {
			s.bookmark(epoch, revision)
		}
	}
}

// serversOf: "suspect b*25" is b in the state SUSPECT with a weight of 25, and
// "z1/b" is b in the zone z1.
func serversOf(texts []string) []*routerv1.Server {
	states := map[string]routerv1.State{
		"active": routerv1.State_STATE_ACTIVE, "suspect": routerv1.State_STATE_SUSPECT,
		"service_down": routerv1.State_STATE_SERVICE_DOWN, "held_back": routerv1.State_STATE_HELD_BACK,
		"newer": 99,
	}
	out := make([]*routerv1.Server, len(texts))
	for i, text := range texts {
		state, id, ok := strings.Cut(text, " ")
		if !ok {
			state, id = "active", text
		}
		s := &routerv1.Server{State: states[state], Incarnation: 1}
		name, weight, ok := strings.Cut(id, "*")
		if ok {
			n := uint32(0)
			for _, c := range weight {
				n = n*10 + uint32(c-'0')
			}
			s.Weight = &n
		}
		if zone, id, ok := strings.Cut(name, "/"); ok {
			s.Zone, name = zone, id
		}
		s.ServerId = name
		s.Endpoints = []*routerv1.Endpoint{
			{Name: "main", Address: name + ".test:80"}, {Name: "admin", Address: name + ".test:81"},
		}
		out[i] = s
	}
	return out
}

func (w *world) config(routers ...string) client.Config {
	return client.Config{
		Pool: "web", Routers: routers, Credentials: insecure.NewCredentials(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(w.dial)},
	}
}

// open opens a pool until the end of the test.
func (w *world) open(cfg client.Config) *client.Pool {
	w.t.Helper()
	p, err := client.Open(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.Close() })
	return p
}

// shown is a view as "1/7 a, suspect b".
func shown(p *client.Pool) string {
	var out []string
	for _, s := range p.View().Servers {
		text := s.ID
		if s.State != client.Active {
			text = s.State.String() + " " + text
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func expect(t *testing.T, p *client.Pool, want string) {
	t.Helper()
	synctest.Wait()
	if got := shown(p); got != want {
		t.Errorf("the pool is %q, want %q", got, want)
	}
}

// picks counts what n picks choose.
func picks(t *testing.T, p *client.Pool, n int, r client.Request) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		c, err := p.Pick(r)
		if err != nil {
			t.Fatal(err)
		}
		counts[c.Server.ID]++
		c.Done()
	}
	return counts
}
