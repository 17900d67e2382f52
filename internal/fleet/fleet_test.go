package fleet_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/agent/daemon"
	"github.com/buddyring/buddyring/agent/prober"
	coordinator "github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	router "github.com/buddyring/buddyring/router/server"
)

func TestMain(m *testing.M) { leak.Main(m) }

// fleet is a coordinator, a router, and servers with their agents.
type fleet struct {
	t       *testing.T
	dir     string
	network *network
	servers map[string]*server

	table           *table
	stopCoordinator func()
	stopRouter      func()
	admin           coordinatorv1.AdminServiceClient
	picks           routerv1.RouterServiceClient
}

// table is the durable table, which can be made to hang.
type table struct {
	*store.Store

	mu   sync.Mutex
	held chan struct{}
}

func (t *table) Commit(ctx context.Context, c member.Change) error {
	t.mu.Lock()
	held := t.held
	t.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", member.ErrUnavailable, ctx.Err())
		}
	}
	return t.Store.Commit(ctx, c)
}

// hold makes commits hang until the returned function is called.
func (t *table) hold() (release func()) {
	held := make(chan struct{})
	t.mu.Lock()
	t.held = held
	t.mu.Unlock()
	return func() {
		t.mu.Lock()
		t.held = nil
		t.mu.Unlock()
		close(held)
	}
}

// server is a host with an agent, or without one.
type server struct {
	id      string
	address netip.Addr
	boot    int
	state   *memory
	checks  []daemon.Check
	agent   *daemon.Daemon
	stop    func()
	// told hears of removals by others.
	told chan daemon.Removal
}

// memory is an agent's state directory.
type memory struct {
	mu    sync.Mutex
	state daemon.State
}

func (m *memory) Load() (daemon.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, nil
}

func (m *memory) Save(s daemon.State) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
	return nil
}

func (m *memory) Path() string { return "memory" }

// newFleet starts a coordinator and a router. dir is for their files; it must
// have been made outside of virtual time.
func newFleet(t *testing.T, dir string) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: dir, network: newNetwork(), servers: map[string]*server{}}
	f.startCoordinator()
	f.startRouter()
	return f
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (f *fleet) credentials() *rpc.Credentials {
	f.t.Helper()
	c, err := rpc.NewCredentials(rpc.Security{}, discard())
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// background runs something until the returned function is called, or the test
// ends.
func (f *fleet) background(what string, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("%s: %v", what, err)
		}
	})
	f.t.Cleanup(stop)
	return stop
}

func (f *fleet) startCoordinator() {
	f.t.Helper()
	opened, err := store.Open(f.t.Context(), store.Config{URL: "sqlite:" + filepath.Join(f.dir, "coordinator.db")})
	if err != nil {
		f.t.Fatal(err)
	}
	f.table = &table{Store: opened}
	listeners := map[string]*bufconn.Listener{}
	for _, name := range []string{"agent", "admin", "http"} {
		listeners[name] = bufconn.Listen(1 << 16)
	}
	s, err := coordinator.New(coordinator.Config{
		ID: "c1", Listen: "c1:7400", AdminListen: "c1:7401", HTTPListen: "c1:7402", AutoCreatePools: true,
	}, coordinator.Deps{
		Store: f.table, Credentials: f.credentials(), Registry: prometheus.NewRegistry(), Logger: discard(),
		Listen: func(_ context.Context, name, _ string) (net.Listener, error) { return listeners[name], nil },
		Dialer: func(ctx context.Context, address string) (net.Conn, error) {
			to := netip.MustParseAddrPort(address).Addr()
			if f.network.answers(netip.MustParseAddr("10.255.255.1"), to) {
				near, far := net.Pipe()
				return near, far.Close()
			}
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	stop := f.background("coordinator", s.Run)
	f.network.set(func(n *network) { n.coordinator = listeners["agent"] })
	conn := f.dial(func(ctx context.Context) (net.Conn, error) { return listeners["admin"].DialContext(ctx) })
	f.admin = coordinatorv1.NewAdminServiceClient(conn)
	f.stopCoordinator = func() {
		f.network.set(func(n *network) { n.coordinator = nil })
		_ = conn.Close()
		stop()
		if err := opened.Close(); err != nil {
			f.t.Errorf("close: %v", err)
		}
	}
	f.t.Cleanup(func() {
		stop()
		_ = opened.Close()
	})
}

func (f *fleet) dial(open func(context.Context) (net.Conn, error)) *grpc.ClientConn {
	f.t.Helper()
	conn, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{"c1:7400"}, Credentials: f.credentials(), ServerRole: rpc.RoleCoordinator, Logger: discard(),
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return open(ctx) },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// routerAddress is the router's host.
var routerAddress = netip.MustParseAddr("10.255.255.2")

func (f *fleet) startRouter() {
	f.t.Helper()
	listeners := map[string]*bufconn.Listener{"grpc": bufconn.Listen(1 << 16), "http": bufconn.Listen(1 << 16)}
	s, err := router.New(router.Config{
		ID: "r1", Listen: "r1:7500", HTTPListen: "r1:7502", Coordinators: []string{"c1:7400"},
		StateDir: filepath.Join(f.dir, "router"), Version: "test",
	}, router.Deps{
		Credentials: f.credentials(), Registry: prometheus.NewRegistry(), Logger: discard(),
		Listen: func(_ context.Context, name, _ string) (net.Listener, error) { return listeners[name], nil },
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) {
			return f.network.connect(ctx, routerAddress)
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.stopRouter = f.background("router", s.Run)
	f.picks = routerv1.NewRouterServiceClient(f.dial(func(ctx context.Context) (net.Conn, error) {
		return listeners["grpc"].DialContext(ctx)
	}))
}

// add makes servers with agents, but does not wait for them.
func (f *fleet) add(ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		n := len(f.servers) + 1
		s := &server{id: id, address: netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), boot: 1, state: &memory{}, told: make(chan daemon.Removal, 8)}
		f.servers[id] = s
		f.startAgent(id)
	}
}

// startAgent starts the agent of a server that has none.
func (f *fleet) startAgent(id string) {
	f.t.Helper()
	s := f.servers[id]
	agent, err := daemon.New(daemon.Config{
		Pool: "default", ID: member.ID(id), Coordinators: []string{"c1:7400"}, BootID: fmt.Sprintf("%s-boot-%d", id, s.boot),
		Version: "test", DrainTimeout: 10 * time.Second, Checks: s.checks,
		Spec: member.Spec{
			ProbeAddresses: []netip.Addr{s.address}, Weight: member.DefaultWeight,
			Endpoints: []member.Endpoint{{Address: netip.AddrPortFrom(s.address, 80).String(), Protocol: "http"}},
		},
	}, daemon.Deps{
		Dial: func(string) (daemon.Conn, error) {
			return f.dial(func(ctx context.Context) (net.Conn, error) { return f.network.connect(ctx, s.address) }), nil
		},
		Route:    func(context.Context, string) []netip.Addr { return []netip.Addr{s.address} },
		Prober:   probes{f.network, s.address},
		Loopback: prober.Target{Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
		OnRemoved: func(_ context.Context, r daemon.Removal) (string, error) {
			s.told <- r
			return "", nil
		},
		Store: s.state, Registry: prometheus.NewRegistry(), Logger: discard(),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	s.agent = agent
	s.stop = f.background("agent of "+id, agent.Run)
}

// crash takes hosts off the network and ends what runs on them, at one moment.
// unbraked lets any number of servers be removed at once.
func (f *fleet) unbraked() {
	f.t.Helper()
	off := uint32(100)
	_, err := f.admin.UpdatePool(f.t.Context(), &coordinatorv1.UpdatePoolRequest{
		Settings: &coordinatorv1.PoolSettings{BrakePercent: &off, BrakeZonePercent: &off, FloorPercent: &off},
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) crash(ids ...string) {
	f.network.set(func(n *network) {
		for _, id := range ids {
			n.down[f.servers[id].address] = true
		}
	})
	for _, id := range ids {
		go f.servers[id].stop()
	}
}

// reboot brings a crashed host back.
func (f *fleet) reboot(id string) {
	s := f.servers[id]
	s.stop() // it has ended, or is about to
	s.boot++
	f.network.set(func(n *network) { delete(n.down, s.address) })
	f.startAgent(id)
}

// leave is a normal shutdown.
func (f *fleet) leave(id string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	if err := f.servers[id].agent.Leave(ctx, "test"); err != nil {
		f.t.Errorf("leave of %s: %v", id, err)
	}
	f.servers[id].stop()
}

// routed are the servers that the router gives to clients, the suspect ones
// apart.
func (f *fleet) routed() (active, others []string) {
	f.t.Helper()
	res, err := f.picks.Resolve(f.t.Context(), &routerv1.ResolveRequest{Pool: "default"})
	if err != nil {
		return nil, nil
	}
	for _, s := range res.GetServers() {
		if s.GetState() == routerv1.State_STATE_ACTIVE {
			active = append(active, s.GetServerId())
		} else {
			others = append(others, s.GetServerId())
		}
	}
	slices.Sort(active)
	return active, others
}

// settled waits until the router has exactly these servers, all active.
func (f *fleet) settled(within time.Duration, ids ...string) {
	f.t.Helper()
	want := slices.Sorted(slices.Values(ids))
	f.until(within, func() error {
		if active, others := f.routed(); !slices.Equal(active, want) || len(others) > 0 {
			return fmt.Errorf("routed to %v and %v, not to %v", active, others, want)
		}
		return nil
	})
}

// disturbance runs what disturbs the fleet and returns the longest time for
// which a server was suspect meanwhile.
func (f *fleet) disturbance(disturb func()) time.Duration {
	done := make(chan struct{})
	go func() {
		defer close(done)
		disturb()
	}()
	var longest time.Duration
	since := map[string]time.Time{}
	for {
		select {
		case <-done:
			return longest
		case <-time.After(50 * time.Millisecond):
		}
		_, suspects := f.routed()
		maps.DeleteFunc(since, func(id string, _ time.Time) bool { return !slices.Contains(suspects, id) })
		for _, id := range suspects {
			if _, known := since[id]; !known {
				since[id] = time.Now()
			}
			longest = max(longest, time.Since(since[id]))
		}
	}
}

// until waits in virtual time and returns how long it took.
func (f *fleet) until(within time.Duration, check func() error) time.Duration {
	f.t.Helper()
	begin := time.Now()
	for {
		err := check()
		took := time.Since(begin)
		if err == nil {
			return took
		}
		if took > within {
			f.t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// consistent checks the ring, the table and what the agents watch.
func (f *fleet) consistent() {
	f.t.Helper()
	res, err := f.admin.CheckRing(f.t.Context(), &coordinatorv1.CheckRingRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	if !res.GetConsistent() || len(res.GetProblems()) > 0 {
		f.t.Errorf("ring: %v", res.GetProblems())
	}
}

// removals counts the removals by verdict in the history.
func (f *fleet) removals() map[string]int {
	f.t.Helper()
	res, err := f.admin.ListEvents(f.t.Context(), &coordinatorv1.ListEventsRequest{Kinds: []string{"removed"}, PageSize: 1000})
	if err != nil {
		f.t.Fatal(err)
	}
	counts := map[string]int{}
	for _, e := range res.GetEvents() {
		if e.GetCause() != coordinatorv1.Cause_CAUSE_SHUTDOWN {
			counts[e.GetServerId()]++
		}
	}
	return counts
}

// names are prefix-1 to prefix-n.
func names(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", prefix, i+1)
	}
	return ids
}

// without returns ids but for some.
func without(ids []string, some ...string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return slices.Contains(some, id) })
}
