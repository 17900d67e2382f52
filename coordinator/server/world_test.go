package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestMain(m *testing.M) { leak.Main(m) }

// world is a coordinator that listens in memory, for use in a bubble of virtual
// time.
type world struct {
	t        *testing.T
	table    server.Store
	registry *prometheus.Registry
	network  *network
	log      *slog.Logger
	// free is the room on the database's disk.
	free atomic.Uint64
	dial func(ctx context.Context, address string) (net.Conn, error)
	// peers are the coordinators that it can reach, by their addresses.
	peers atomic.Pointer[map[string]*world]

	listeners map[string]*bufconn.Listener
	stop      context.CancelFunc
	done      chan error

	adminConn *grpc.ClientConn
	admin     pb.AdminServiceClient
}

// start runs a coordinator on a table until the test ends. edit may change the
// configuration.
func start(t *testing.T, table server.Store, edit ...func(*server.Config)) *world {
	t.Helper()
	return startLogging(t, slog.New(slog.DiscardHandler), table, edit...)
}

func startLogging(t *testing.T, log *slog.Logger, table server.Store, edit ...func(*server.Config)) *world {
	t.Helper()
	w := &world{
		t: t, table: table, network: newNetwork(), log: log,
		listeners: map[string]*bufconn.Listener{},
	}
	w.free.Store(1 << 40)
	w.run(edit...)
	t.Cleanup(w.shutDown)
	return w
}

func (w *world) run(edit ...func(*server.Config)) {
	w.t.Helper()
	cfg := server.Config{
		ID: "c1", Version: "test", Listen: "127.0.0.1:7400", AdminListen: "127.0.0.1:7401",
		HTTPListen: "127.0.0.1:7402", AutoCreatePools: true,
	}
	for _, e := range edit {
		e(&cfg)
	}
	for _, name := range []string{"agent", "admin", "http"} {
		w.listeners[name] = bufconn.Listen(1 << 16)
	}
	w.registry = prometheus.NewRegistry()
	s, err := server.New(cfg, server.Deps{
		Store: w.table, Credentials: plaintext(w.t), Registry: w.registry, Logger: w.log,
		FreeBytes: func() (uint64, error) { return w.free.Load(), nil },
		Dialer: func(ctx context.Context, address string) (net.Conn, error) {
			if w.dial == nil {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return w.dial(ctx, address)
		},
		PeerDialer: func(ctx context.Context, address string) (net.Conn, error) {
			if peers := w.peers.Load(); peers != nil && (*peers)[address] != nil {
				return (*peers)[address].listeners["agent"].DialContext(ctx)
			}
			return nil, errors.New("nobody is there")
		},
		Listen: func(_ context.Context, name, _ string) (net.Listener, error) { return w.listeners[name], nil },
	})
	if err != nil {
		w.t.Fatalf("new: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	w.stop, w.done = cancel, done
	go func() { done <- s.Run(ctx) }()
	w.adminConn = w.connect("admin")
	w.admin = pb.NewAdminServiceClient(w.adminConn)
}

// shutDown stops the coordinator as SIGTERM does.
func (w *world) shutDown() {
	w.t.Helper()
	w.stop()
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Errorf("run: %v", err)
		}
		w.done <- nil
	case <-time.After(5 * time.Second):
		w.t.Error("the coordinator did not stop within 5 s")
	}
}

// ended waits for Run to end by itself and returns its error.
func (w *world) ended(within time.Duration) error {
	w.t.Helper()
	select {
	case err := <-w.done:
		w.done <- nil
		return err
	case <-time.After(within):
		w.t.Fatalf("the coordinator did not end within %s", within)
		return nil
	}
}

// standsBy waits until the coordinator says that it does not lead, leads until it
// says that it does.
func (w *world) standsBy(within time.Duration) {
	w.t.Helper()
	w.plays(pb.LeaderState_LEADER_STATE_STANDBY, within)
}

func (w *world) leads(within time.Duration) {
	w.t.Helper()
	w.plays(pb.LeaderState_LEADER_STATE_LEADER, within)
}

func (w *world) plays(part pb.LeaderState, within time.Duration) {
	w.t.Helper()
	eventually(w.t, within, func() error {
		status, err := w.admin.GetStatus(w.t.Context(), &pb.GetStatusRequest{})
		if err == nil && status.GetState() != part {
			return fmt.Errorf("it is %v", status.GetState())
		}
		return err
	})
}

func noAutoCreate(cfg *server.Config) { cfg.AutoCreatePools = false }

func plaintext(t *testing.T) *rpc.Credentials {
	t.Helper()
	c, err := rpc.NewCredentials(rpc.Security{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("credentials: %v", err)
	}
	return c
}

// connect opens a connection of its own to a listener.
func (w *world) connect(name string) *grpc.ClientConn {
	w.t.Helper()
	lis := w.listeners[name]
	conn, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{"127.0.0.1:7400"}, Credentials: plaintext(w.t), ServerRole: rpc.RoleCoordinator,
		Logger: slog.New(slog.DiscardHandler),
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
	})
	if err != nil {
		w.t.Fatalf("dial: %v", err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// eventually waits in virtual time until check returns nil.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// phases returns the members of the default pool with their phases.
func (w *world) phases() map[string]pb.Phase {
	w.t.Helper()
	res, err := w.admin.ListServers(w.t.Context(), &pb.ListServersRequest{Pool: "default"})
	if err != nil {
		w.t.Fatalf("list servers: %v", err)
	}
	found := map[string]pb.Phase{}
	for _, s := range res.GetServers() {
		found[s.GetServerId()] = s.GetPhase()
	}
	return found
}

// join starts agents and waits until all their servers are active.
func (w *world) join(ids ...string) []*agent {
	w.t.Helper()
	agents := make([]*agent, len(ids))
	for i, id := range ids {
		agents[i] = w.newAgent(id)
		agents[i].connect()
	}
	w.allActive(ids...)
	return agents
}

func (w *world) allActive(ids ...string) {
	w.t.Helper()
	eventually(w.t, 10*time.Second, func() error {
		phases := w.phases()
		for _, id := range ids {
			if phases[id] != pb.Phase_PHASE_ACTIVE {
				return fmt.Errorf("%s is %s", id, phases[id])
			}
		}
		return nil
	})
}

// gone waits until a server has left the table.
func (w *world) gone(id string, within time.Duration) {
	w.t.Helper()
	eventually(w.t, within, func() error {
		if phase, ok := w.phases()[id]; ok {
			return fmt.Errorf("%s is still there and %s", id, phase)
		}
		return nil
	})
}

// consistent checks the ring of the default pool.
func (w *world) consistent() {
	w.t.Helper()
	res, err := w.admin.CheckRing(w.t.Context(), &pb.CheckRingRequest{Pool: "default"})
	if err != nil {
		w.t.Fatalf("check ring: %v", err)
	}
	if !res.GetConsistent() {
		w.t.Fatalf("ring is not consistent: %v", res.GetProblems())
	}
}

// metric sums the samples of a metric with the given labels.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatalf("gather: %v", err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	samples:
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for i := 0; i+1 < len(labels); i += 2 {
				if has[labels[i]] != labels[i+1] {
					continue samples
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// page gets a page over HTTP and returns its status.
func (w *world) page(path string) int {
	w.t.Helper()
	lis := w.listeners["http"]
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
	}}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://coordinator"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		w.t.Fatalf("get %s: %v", path, err)
	}
	if err := res.Body.Close(); err != nil {
		w.t.Fatalf("get %s: %v", path, err)
	}
	return res.StatusCode
}

// edges checks which alarms began and ended, as the history tells it; each text
// is the beginning of one.
func (w *world) edges(pool string, want ...string) {
	w.t.Helper()
	res, err := w.admin.ListEvents(w.t.Context(), &pb.ListEventsRequest{
		Pool: pool, Kinds: []string{"alarm_raised", "alarm_cleared"}, PageSize: 100,
	})
	if err != nil {
		w.t.Fatalf("list events: %v", err)
	}
	var got []string
	for _, e := range slices.Backward(res.GetEvents()) {
		got = append(got, e.GetText())
	}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		w.t.Errorf("edges of alarms are %q, want %q", got, want)
	}
}

// alarms returns the names of the active alarms.
func (w *world) alarms() []string {
	w.t.Helper()
	res, err := w.admin.ListAlarms(w.t.Context(), &pb.ListAlarmsRequest{})
	if err != nil {
		w.t.Fatalf("list alarms: %v", err)
	}
	var names []string
	for _, a := range res.GetAlarms() {
		names = append(names, a.GetName())
	}
	return names
}

// heard waits for the end of a session or subscription and returns how it ended.
func heard(t *testing.T, over <-chan error) error {
	t.Helper()
	select {
	case err := <-over:
		return err
	case <-time.After(time.Minute):
		t.Fatal("it did not end within a minute")
		return nil
	}
}

// endOf receives until the stream ends, and returns how.
func endOf[T any](recv func() (T, error)) error {
	const most = 1000
	for range most {
		if _, err := recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return fmt.Errorf("the stream goes on after %d messages", most)
}
