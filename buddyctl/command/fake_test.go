package command_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/buddyctl/command"
	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// noon is when all tests run.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(noon.Add(-d)) }

// network connects a command line to servers by address.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
}

// dial refuses addresses at which nobody listens, as a kernel does.
func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	lis := n.listeners[address]
	n.mu.Unlock()
	if lis == nil {
		addr, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			return nil, err
		}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	return lis.DialContext(ctx)
}

// serve serves the fakes at an address until the test ends; either may be nil.
func (n *network) serve(t *testing.T, address string, admin *fakeAdmin, router *fakeRouter) {
	t.Helper()
	n.serveServices(t, address, func(server grpc.ServiceRegistrar) {
		if admin != nil {
			coordinatorv1.RegisterAdminServiceServer(server, admin)
		}
		if router != nil {
			routerv1.RegisterRouterServiceServer(server, router)
		}
	})
}

func (n *network) serveServices(t *testing.T, address string, register func(grpc.ServiceRegistrar)) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(rpc.Security{}, log)
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.ServerConfig{Credentials: credentials, Logger: log})
	register(server.GRPC())
	lis := bufconn.Listen(1 << 16)
	n.mu.Lock()
	if n.listeners == nil {
		n.listeners = map[string]*bufconn.Listener{}
	}
	n.listeners[address] = lis
	n.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, lis) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// result is what a command line came to.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a command line at noon without a terminal.
func (n *network) run(t *testing.T, args ...string) result {
	t.Helper()
	return n.runOn(t, output.Terminal{}, args...)
}

func (n *network) runOn(t *testing.T, terminal output.Terminal, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := command.Run(t.Context(), args, n.world(&stdout, &stderr, terminal))
	return result{code, stdout.String(), stderr.String()}
}

func (n *network) world(stdout, stderr io.Writer, terminal output.Terminal) command.World {
	return command.World{
		Stdout: stdout, Stderr: stderr, Terminal: terminal,
		Now:    func() time.Time { return noon },
		Dialer: n.dial,
	}
}

// fakeAdmin answers from fixed lists, two items a page, and keeps the requests.
type fakeAdmin struct {
	coordinatorv1.UnimplementedAdminServiceServer

	pools    []*coordinatorv1.Pool
	servers  []*coordinatorv1.Server
	events   []*coordinatorv1.Event
	alarms   []*coordinatorv1.Alarm
	intents  []*coordinatorv1.Intent
	routers  []*coordinatorv1.Router
	sessions []*coordinatorv1.AgentSession
	ring     *coordinatorv1.GetRingResponse
	check    *coordinatorv1.CheckRingResponse
	explain  *coordinatorv1.ExplainServerResponse
	brake    *coordinatorv1.GetBrakeResponse
	repair   *coordinatorv1.RepairRingResponse
	// standby makes GetStatus answer as a standby does.
	standby bool
	drained *coordinatorv1.DrainServerResponse
	// drains is how long the drain of a server takes.
	drains map[string]time.Duration
	// fail, if set, is asked before every call.
	fail func(method string) error
	// listed, if set, hears of each list of events that is made.
	listed func()
	// watch, if set, serves WatchEvents.
	watch func(context.Context, *coordinatorv1.WatchEventsRequest, func(*coordinatorv1.Event) error) error

	mu       sync.Mutex
	requests []proto.Message
}

func (f *fakeAdmin) heard(method string, m proto.Message) error {
	f.mu.Lock()
	f.requests = append(f.requests, proto.Clone(m))
	f.mu.Unlock()
	if f.fail != nil {
		return f.fail(method)
	}
	return nil
}

// first returns the oldest request.
func (f *fakeAdmin) first() proto.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[0]
}

// last returns the newest request.
func (f *fakeAdmin) last() proto.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[len(f.requests)-1]
}

// page cuts a page of two; tokens are offsets.
func page[T any](all []T, token string) ([]T, string) {
	from := 0
	for range token {
		from++
	}
	to := min(from+2, len(all))
	next := ""
	if to < len(all) {
		next = string(bytes.Repeat([]byte("."), to))
	}
	return all[from:to], next
}

func (f *fakeAdmin) ListPools(_ context.Context, r *coordinatorv1.ListPoolsRequest) (*coordinatorv1.ListPoolsResponse, error) {
	items, next := page(f.pools, r.GetPageToken())
	return &coordinatorv1.ListPoolsResponse{Pools: items, NextPageToken: next}, f.heard("ListPools", r)
}

func (f *fakeAdmin) GetPool(_ context.Context, r *coordinatorv1.GetPoolRequest) (*coordinatorv1.GetPoolResponse, error) {
	return &coordinatorv1.GetPoolResponse{Pool: f.pools[0]}, f.heard("GetPool", r)
}

func (f *fakeAdmin) CreatePool(_ context.Context, r *coordinatorv1.CreatePoolRequest) (*coordinatorv1.CreatePoolResponse, error) {
	return &coordinatorv1.CreatePoolResponse{Pool: &coordinatorv1.Pool{Pool: r.GetPool(), Settings: r.GetSettings()}}, f.heard("CreatePool", r)
}

func (f *fakeAdmin) UpdatePool(_ context.Context, r *coordinatorv1.UpdatePoolRequest) (*coordinatorv1.UpdatePoolResponse, error) {
	return &coordinatorv1.UpdatePoolResponse{Pool: &coordinatorv1.Pool{Pool: "default", Revision: 43}}, f.heard("UpdatePool", r)
}

func (f *fakeAdmin) ListServers(_ context.Context, r *coordinatorv1.ListServersRequest) (*coordinatorv1.ListServersResponse, error) {
	items, next := page(f.present(), r.GetPageToken())
	return &coordinatorv1.ListServersResponse{Servers: items, NextPageToken: next, Revision: 42}, f.heard("ListServers", r)
}

func (f *fakeAdmin) GetServer(_ context.Context, r *coordinatorv1.GetServerRequest) (*coordinatorv1.GetServerResponse, error) {
	servers := f.present()
	i := slices.IndexFunc(servers, func(s *coordinatorv1.Server) bool { return s.GetServerId() == r.GetServerId() })
	if i < 0 {
		return nil, errors.Join(member.ErrNotFound, f.heard("GetServer", r))
	}
	return &coordinatorv1.GetServerResponse{Server: servers[i], Revision: 42}, f.heard("GetServer", r)
}

func (f *fakeAdmin) UpdateServer(_ context.Context, r *coordinatorv1.UpdateServerRequest) (*coordinatorv1.UpdateServerResponse, error) {
	return &coordinatorv1.UpdateServerResponse{Revision: 43}, f.heard("UpdateServer", r)
}

func (f *fakeAdmin) RemoveServer(_ context.Context, r *coordinatorv1.RemoveServerRequest) (*coordinatorv1.RemoveServerResponse, error) {
	return &coordinatorv1.RemoveServerResponse{Revision: 43}, f.heard("RemoveServer", r)
}

// DrainServer answers f.drained, or else that it is safe, and drains it.
func (f *fakeAdmin) DrainServer(_ context.Context, r *coordinatorv1.DrainServerRequest) (*coordinatorv1.DrainServerResponse, error) {
	if err := f.heard("DrainServer", r); err != nil {
		return nil, err
	}
	f.turn(r.GetServerId(), coordinatorv1.Phase_PHASE_DRAINING)
	time.Sleep(f.drains[r.GetServerId()])
	if f.drained != nil {
		return f.drained, nil
	}
	return &coordinatorv1.DrainServerResponse{State: coordinatorv1.DrainState_DRAIN_STATE_SAFE, Revision: 43}, nil
}

func (f *fakeAdmin) ResumeServer(_ context.Context, r *coordinatorv1.ResumeServerRequest) (*coordinatorv1.ResumeServerResponse, error) {
	if err := f.heard("ResumeServer", r); err != nil {
		return nil, err
	}
	return &coordinatorv1.ResumeServerResponse{Revision: 43, Server: f.turn(r.GetServerId(), coordinatorv1.Phase_PHASE_ACTIVE)}, nil
}

// present are the servers of this moment.
func (f *fakeAdmin) present() []*coordinatorv1.Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.servers)
}

// edit changes a server.
func (f *fakeAdmin) edit(id string, change func(*coordinatorv1.Server)) *coordinatorv1.Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range f.servers {
		if s.GetServerId() == id {
			f.servers[i] = proto.CloneOf(s)
			change(f.servers[i])
			return f.servers[i]
		}
	}
	return nil
}

// turn gives a server another phase.
func (f *fakeAdmin) turn(id string, phase coordinatorv1.Phase) *coordinatorv1.Server {
	return f.edit(id, func(s *coordinatorv1.Server) { s.Phase = phase })
}

func (f *fakeAdmin) SetIntent(_ context.Context, r *coordinatorv1.SetIntentRequest) (*coordinatorv1.SetIntentResponse, error) {
	intent := &coordinatorv1.Intent{Pool: "default", ServerId: r.GetServerId(), Wish: r.GetWish(), Reason: r.GetReason()}
	if r.GetExpiresIn() != nil {
		intent.ExpiresAt = timestamppb.New(noon.Add(r.GetExpiresIn().AsDuration()))
	}
	return &coordinatorv1.SetIntentResponse{Intent: intent, Revision: 43}, f.heard("SetIntent", r)
}

func (f *fakeAdmin) ListIntents(_ context.Context, r *coordinatorv1.ListIntentsRequest) (*coordinatorv1.ListIntentsResponse, error) {
	items, next := page(f.intents, r.GetPageToken())
	return &coordinatorv1.ListIntentsResponse{Intents: items, NextPageToken: next, Revision: 42}, f.heard("ListIntents", r)
}

func (f *fakeAdmin) GetRing(_ context.Context, r *coordinatorv1.GetRingRequest) (*coordinatorv1.GetRingResponse, error) {
	f.mu.Lock()
	ring := f.ring
	f.mu.Unlock()
	return ring, f.heard("GetRing", r)
}

// arrange makes the ring go round these servers.
func (f *fakeAdmin) arrange(ids ...string) {
	ring := &coordinatorv1.GetRingResponse{Revision: 43, Epoch: 3}
	for i, id := range ids {
		ring.Members = append(ring.Members, &coordinatorv1.RingMember{
			ServerId: id, FirstBuddy: ids[(i+1)%len(ids)], SecondBuddy: ids[(i+len(ids)-1)%len(ids)],
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring = ring
}

func (f *fakeAdmin) CheckRing(_ context.Context, r *coordinatorv1.CheckRingRequest) (*coordinatorv1.CheckRingResponse, error) {
	return f.check, f.heard("CheckRing", r)
}

func (f *fakeAdmin) DeletePool(_ context.Context, r *coordinatorv1.DeletePoolRequest) (*coordinatorv1.DeletePoolResponse, error) {
	return &coordinatorv1.DeletePoolResponse{Revision: 43, Servers: new(uint32(2))}, f.heard("DeletePool", r)
}

func (f *fakeAdmin) ReplaceServer(_ context.Context, r *coordinatorv1.ReplaceServerRequest) (*coordinatorv1.ReplaceServerResponse, error) {
	return &coordinatorv1.ReplaceServerResponse{Revision: 43}, f.heard("ReplaceServer", r)
}

func (f *fakeAdmin) RepairRing(_ context.Context, r *coordinatorv1.RepairRingRequest) (*coordinatorv1.RepairRingResponse, error) {
	return f.repair, f.heard("RepairRing", r)
}

func (f *fakeAdmin) ListEvents(_ context.Context, r *coordinatorv1.ListEventsRequest) (*coordinatorv1.ListEventsResponse, error) {
	items, next := page(f.events, r.GetPageToken())
	if f.listed != nil {
		f.listed()
	}
	return &coordinatorv1.ListEventsResponse{Events: items, NextPageToken: next}, f.heard("ListEvents", r)
}

func (f *fakeAdmin) WatchEvents(r *coordinatorv1.WatchEventsRequest, s coordinatorv1.AdminService_WatchEventsServer) error {
	if err := f.heard("WatchEvents", r); err != nil {
		return err
	}
	return f.watch(s.Context(), r, func(e *coordinatorv1.Event) error { return s.Send(&coordinatorv1.WatchEventsResponse{Event: e}) })
}

func (f *fakeAdmin) ExplainServer(_ context.Context, r *coordinatorv1.ExplainServerRequest) (*coordinatorv1.ExplainServerResponse, error) {
	return f.explain, f.heard("ExplainServer", r)
}

func (f *fakeAdmin) GetBrake(_ context.Context, r *coordinatorv1.GetBrakeRequest) (*coordinatorv1.GetBrakeResponse, error) {
	return f.brake, f.heard("GetBrake", r)
}

func (f *fakeAdmin) ReleaseBrake(_ context.Context, r *coordinatorv1.ReleaseBrakeRequest) (*coordinatorv1.ReleaseBrakeResponse, error) {
	answer := &coordinatorv1.ReleaseBrakeResponse{Revision: 43}
	for _, id := range r.GetServerIds() {
		answer.Released = append(answer.Released, &coordinatorv1.ReleasedRemoval{ServerId: id})
	}
	return answer, f.heard("ReleaseBrake", r)
}

func (f *fakeAdmin) ListAlarms(_ context.Context, r *coordinatorv1.ListAlarmsRequest) (*coordinatorv1.ListAlarmsResponse, error) {
	return &coordinatorv1.ListAlarmsResponse{Alarms: f.alarms}, f.heard("ListAlarms", r)
}

func (f *fakeAdmin) StepDown(_ context.Context, r *coordinatorv1.StepDownRequest) (*coordinatorv1.StepDownResponse, error) {
	return &coordinatorv1.StepDownResponse{Epoch: r.GetExpectedEpoch()}, f.heard("StepDown", r)
}

func (f *fakeAdmin) GetStatus(ctx context.Context, r *coordinatorv1.GetStatusRequest) (*coordinatorv1.GetStatusResponse, error) {
	if f.standby {
		_ = grpc.SetHeader(ctx, metadata.Pairs(rpc.StaleHeader, "0.2"))
	}
	return &coordinatorv1.GetStatusResponse{
		CoordinatorId: "c-1", Version: "v0.1.0", StartedAt: ago(3 * time.Hour),
		State: coordinatorv1.LeaderState_LEADER_STATE_LEADER, Leader: "127.0.0.1:7400", LeaderId: "c-1", Epoch: 3,
		LeaseAge: durationpb.New(412 * time.Millisecond),
		StoreId:  "2f1c", StoreKind: "sqlite", StoreState: coordinatorv1.StoreState_STORE_STATE_OK,
		Pools: f.pools, Sessions: uint32(len(f.sessions)), Subscriptions: uint32(len(f.routers)), Alarms: uint32(len(f.alarms)),
	}, f.heard("GetStatus", r)
}

func (f *fakeAdmin) ListRouters(_ context.Context, r *coordinatorv1.ListRoutersRequest) (*coordinatorv1.ListRoutersResponse, error) {
	items, next := page(f.routers, r.GetPageToken())
	return &coordinatorv1.ListRoutersResponse{Routers: items, NextPageToken: next}, f.heard("ListRouters", r)
}

func (f *fakeAdmin) ListSessions(_ context.Context, r *coordinatorv1.ListSessionsRequest) (*coordinatorv1.ListSessionsResponse, error) {
	items, next := page(f.sessions, r.GetPageToken())
	return &coordinatorv1.ListSessionsResponse{Sessions: items, NextPageToken: next}, f.heard("ListSessions", r)
}

// fakeRouter answers from a fixed list.
type fakeRouter struct {
	routerv1.UnimplementedRouterServiceServer

	servers []*routerv1.Server
	stale   bool
	// notServed makes the answers those of a pool that the coordinator does not serve.
	notServed *bool
}

func (f *fakeRouter) freshness() *routerv1.Freshness {
	return &routerv1.Freshness{
		StoreId: "2f1c", Epoch: 3, Revision: 42, Age: durationpb.New(412 * time.Millisecond), Stale: &f.stale, NotServed: f.notServed,
	}
}

func (f *fakeRouter) Resolve(context.Context, *routerv1.ResolveRequest) (*routerv1.ResolveResponse, error) {
	return &routerv1.ResolveResponse{Pool: "default", Servers: f.servers, Freshness: f.freshness()}, nil
}

func (f *fakeRouter) Pick(_ context.Context, r *routerv1.PickRequest) (*routerv1.PickResponse, error) {
	answer := &routerv1.PickResponse{Pool: "default", Freshness: f.freshness()}
	for _, s := range f.servers[:min(int(r.GetCount()), len(f.servers))] {
		answer.Choices = append(answer.Choices, &routerv1.Choice{
			ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Address: s.GetEndpoints()[0].GetAddress(), State: s.GetState(),
		})
	}
	if len(answer.GetChoices()) == 0 {
		return nil, errors.Join(errors.New("pool default has no server that may get work"), member.ErrUnavailable)
	}
	return answer, nil
}
