package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/agent/prober"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// coordinator is a coordinator that does what a test says, over bufconn.
type coordinator struct {
	pb.UnimplementedAgentServiceServer

	t        *testing.T
	lis      *bufconn.Listener
	sessions chan *peer
}

func newCoordinator(t *testing.T) *coordinator {
	c := &coordinator{t: t, lis: bufconn.Listen(1 << 20), sessions: make(chan *peer, 100)}
	srv := grpc.NewServer(grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	pb.RegisterAgentServiceServer(srv, c)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(c.lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return c
}

func (c *coordinator) Session(stream pb.AgentService_SessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	p := &peer{
		t: c.t, stream: stream, hello: first.GetHello(), at: time.Now(), epoch: 1,
		in: make(chan *pb.SessionRequest, 1000), end: make(chan error, 1),
	}
	go p.receive()
	c.sessions <- p
	select {
	case err := <-p.end:
		return rpc.ToStatus(err)
	case <-stream.Context().Done():
		return nil
	}
}

// next waits for the next session.
func (c *coordinator) next() *peer {
	c.t.Helper()
	select {
	case p := <-c.sessions:
		return p
	case <-time.After(time.Hour):
		c.t.Fatal("no session in an hour")
		return nil
	}
}

// peer is one session as the coordinator sees it. It acknowledges digests unless
// deaf is set.
type peer struct {
	t      *testing.T
	stream pb.AgentService_SessionServer
	hello  *pb.Hello
	at     time.Time
	epoch  uint64
	in     chan *pb.SessionRequest
	end    chan error

	mu      sync.Mutex
	deaf    bool
	digests []*pb.Digest
}

func (p *peer) receive() {
	for {
		m, err := p.stream.Recv()
		if err != nil {
			close(p.in)
			return
		}
		d := m.GetDigest()
		if d == nil {
			p.in <- m
			continue
		}
		p.mu.Lock()
		p.digests = append(p.digests, d)
		if !p.deaf {
			p.sendLocked(&pb.SessionResponse{Message: &pb.SessionResponse_DigestAck{DigestAck: &pb.DigestAck{Seq: d.GetSeq()}}})
		}
		p.mu.Unlock()
	}
}

func (p *peer) seen() []*pb.Digest {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.digests
}

// trouble is what the newest digest says of the agent's disk.
func (p *peer) trouble() string {
	p.t.Helper()
	all := p.seen()
	if len(all) == 0 {
		p.t.Fatal("no digest")
	}
	return all[len(all)-1].GetStateTrouble()
}

// lead makes all that is sent from now on be of an epoch.
func (p *peer) lead(epoch uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch = epoch
}

func (p *peer) send(m *pb.SessionResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendLocked(m)
}

func (p *peer) sendLocked(m *pb.SessionResponse) {
	if m.Epoch == 0 {
		m.Epoch = p.epoch
	}
	if err := p.stream.Send(m); err != nil && p.stream.Context().Err() == nil {
		p.t.Errorf("send: %v", err)
	}
}

const testStore = "store-a"

func (p *peer) welcome(incarnation uint64, a *pb.Assignment) {
	p.send(&pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: &pb.Welcome{
		Incarnation: incarnation, StoreId: testStore, Assignment: a,
		ReconnectSpread: durationpb.New(time.Second), DigestInterval: durationpb.New(5 * time.Second),
	}}})
}

func (p *peer) stand(s *pb.Standing) {
	p.send(&pb.SessionResponse{Message: &pb.SessionResponse_Standing{Standing: s}})
}

func (p *peer) assign(a *pb.Assignment) {
	p.send(&pb.SessionResponse{Message: &pb.SessionResponse_Assignment{Assignment: a}})
}

func (p *peer) ask(round uint64, s *pb.Subject) {
	p.question(&pb.Question{
		Round: round, Subject: s, Probes: 3, Over: durationpb.New(500 * time.Millisecond), ProbeTimeout: durationpb.New(50 * time.Millisecond),
	})
}

func (p *peer) question(q *pb.Question) {
	p.send(&pb.SessionResponse{Message: &pb.SessionResponse_Question{Question: q}})
}

func (p *peer) challenge(nonce uint64) {
	p.send(&pb.SessionResponse{Message: &pb.SessionResponse_Challenge{Challenge: &pb.Challenge{Nonce: nonce}}})
}

// expect returns the next message but digests of which want makes something.
func expect[M any](p *peer, want func(*pb.SessionRequest) *M) *M {
	p.t.Helper()
	deadline := time.After(time.Hour)
	for {
		select {
		case m, ok := <-p.in:
			if !ok {
				p.t.Fatal("the agent ended the session")
			}
			if got := want(m); got != nil {
				return got
			}
		case <-deadline:
			p.t.Fatalf("no %T in an hour", *new(M))
		}
	}
}

// pending returns what the agent has sent by now, but digests.
func (p *peer) pending() []*pb.SessionRequest {
	synctest.Wait()
	var all []*pb.SessionRequest
	for {
		select {
		case m, ok := <-p.in:
			if !ok {
				return all
			}
			all = append(all, m)
		default:
			return all
		}
	}
}

func subjectOf(id string, address string) *pb.Subject {
	return &pb.Subject{ServerId: id, Incarnation: 7, ProbeAddresses: []string{address}, Role: pb.Role_ROLE_FIRST_BUDDY}
}

func assignmentOf(seq uint64, subjects ...*pb.Subject) *pb.Assignment {
	return &pb.Assignment{
		Revision: 10 + seq, Seq: seq, Subjects: subjects, ProbeInterval: durationpb.New(500 * time.Millisecond),
	}
}

// network is a Prober whose hosts answer after a millisecond unless the test
// says otherwise. It is safe for concurrent use.
type network struct {
	mu     sync.Mutex
	fate   map[netip.Addr]prober.Outcome
	probes map[netip.Addr]int
	// busy counts the probes under way, most is how many there were at a time.
	busy, most int
}

func newNetwork() *network {
	return &network{fate: map[netip.Addr]prober.Outcome{}, probes: map[netip.Addr]int{}}
}

func (n *network) set(address string, o prober.Outcome) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fate[netip.MustParseAddr(address)] = o
}

// sent is how many probes have gone to an address.
func (n *network) sent(address string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.probes[netip.MustParseAddr(address)]
}

func (n *network) Probe(ctx context.Context, t prober.Target, timeout time.Duration) prober.Result {
	n.mu.Lock()
	fate := n.fate[t.Addresses[0]]
	n.probes[t.Addresses[0]]++
	n.busy++
	n.most = max(n.most, n.busy)
	n.mu.Unlock()
	defer n.ended()
	wait := time.Millisecond
	switch fate {
	case prober.NotSent:
		return prober.Result{Outcome: prober.NotSent, Err: errors.New("no route to host")}
	case prober.Lost:
		wait = timeout
	case prober.Replied:
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return prober.Result{Outcome: prober.NotSent, Err: ctx.Err()}
	}
	if fate == prober.Lost {
		return prober.Result{Outcome: prober.Lost}
	}
	return prober.Result{Outcome: prober.Replied, RTT: time.Millisecond}
}

func (n *network) Volley(ctx context.Context, t prober.Target, _ int, _ time.Duration) func(int, time.Duration) prober.Result {
	return func(_ int, timeout time.Duration) prober.Result { return n.Probe(ctx, t, timeout) }
}

func (n *network) ended() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.busy--
}

func (n *network) high() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.most
}

// Connect has the fate that is set for connectAddr of the first address.
func (n *network) Connect(ctx context.Context, to []netip.AddrPort, timeout time.Duration) prober.Result {
	return n.Probe(ctx, prober.Target{Addresses: []netip.Addr{connectAddr(to[0])}}, timeout)
}

// connectAddr is what a network knows the connects to an address by: a host that
// answers no probe may answer a connect.
func connectAddr(to netip.AddrPort) netip.Addr {
	four := to.Addr().As4()
	return netip.AddrFrom4([4]byte{10, four[3], byte(to.Port() >> 8), byte(to.Port())})
}

// memory is a Store without a disk, which can be full or hang.
type memory struct {
	mu    sync.Mutex
	state State
	saves int
	fail  error
	// hang, when not nil, holds up Save until it is closed.
	hang chan struct{}
	// hangLoad does the same to Load; it is set before the agent starts.
	hangLoad chan struct{}
}

func (m *memory) Load() (State, error) {
	if m.hangLoad != nil {
		<-m.hangLoad
	}
	return m.get(), nil
}

func (m *memory) Path() string { return "memory" }

func (m *memory) get() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.clone()
}

func (m *memory) set(fail error, hang chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.hang = fail, hang
}

func (m *memory) Save(s State) error {
	m.mu.Lock()
	hang := m.hang
	m.mu.Unlock()
	if hang != nil {
		<-hang
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.state, m.saves = s.clone(), m.saves+1
	return nil
}

// fence is an --on-removed command that takes its time.
type fence struct {
	mu   sync.Mutex
	took time.Duration
	// stuck, when not nil, holds it up until it is closed, whatever becomes of its
	// context.
	stuck chan struct{}
	runs  []Removal
	// ended is when the last run did, how with which error.
	ended time.Time
	how   error
}

func (f *fence) run(ctx context.Context, r Removal) (string, error) {
	f.mu.Lock()
	f.runs = append(f.runs, r)
	took, stuck := f.took, f.stuck
	f.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	var err error
	select {
	case <-time.After(took):
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.how = time.Now(), err
	return "fenced", err
}

func (f *fence) takes(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took = d
}

func (f *fence) sticks(until chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck = until
}

func (f *fence) did() (runs []Removal, ended time.Time, how error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs, f.ended, f.how
}

// fixture is an agent with everything around it.
type fixture struct {
	*Daemon

	t        *testing.T
	network  *network
	store    *memory
	fence    *fence
	registry *prometheus.Registry
	// end stops the agent and waits for it.
	end func()
}

// start runs an agent of server "me" that knows these coordinators by the names
// c0:1, c1:1 and so on.
func start(t *testing.T, st Store, coordinators ...*coordinator) *fixture {
	t.Helper()
	return startWith(t, st, Config{}, coordinators...)
}

// startWith runs an agent with a part of its configuration given.
func startWith(t *testing.T, st Store, cfg Config, coordinators ...*coordinator) *fixture {
	t.Helper()
	f := &fixture{t: t, network: newNetwork(), fence: &fence{}, registry: prometheus.NewRegistry()}
	f.store, _ = st.(*memory)
	byName := map[string]*coordinator{}
	var names []string
	for i, c := range coordinators {
		name := "c" + string(rune('0'+i)) + ":1"
		byName[name] = c
		names = append(names, name)
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	credentials, err := rpc.NewCredentials(rpc.Security{Insecure: true}, log)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(address string) (Conn, error) {
		return rpc.Dial(rpc.DialConfig{
			Addresses: []string{address}, Credentials: credentials, ServerRole: rpc.RoleCoordinator, Logger: log,
			Dialer: func(ctx context.Context, address string) (net.Conn, error) {
				c := byName[address]
				if c == nil {
					return nil, errors.New("connection refused")
				}
				return c.lis.DialContext(ctx)
			},
		})
	}
	if len(names) == 0 {
		names = []string{"nobody:1"}
	}
	cfg.Pool, cfg.ID, cfg.Spec.Weight = "default", "me", 100
	cfg.Coordinators, cfg.BootID, cfg.Version = names, "boot", "test"
	f.Daemon, err = New(cfg, Deps{
		Dial:   dial,
		Route:  func(context.Context, string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.2.1")} },
		Prober: f.network, Loopback: prober.Target{Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}},
		Store: st, OnRemoved: f.fence.run, Registry: f.registry, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(f.end)
	return f
}

// metric is the value of a gauge or counter, summed over its labels.
func (f *fixture) metric(name string) float64 {
	f.t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p[:len(p)-1]))
	return len(p), nil
}
