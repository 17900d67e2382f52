package demo

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// world is a scripted pool behind the two APIs: it does what a coordinator, a
// router and their agents would, at set times. Its fields with "lie" break one
// promise each.
type world struct {
	coordinatorv1.UnimplementedAdminServiceServer
	routerv1.UnimplementedRouterServiceServer

	lieRemoveKilled, lieRouteRemoved, lieRouteHeld, lieNoSuspect, lieBadRing, lieCause bool

	mu       sync.Mutex
	changed  chan struct{}
	ended    sync.WaitGroup
	revision uint64
	ring     []string
	rows     map[string]*coordinatorv1.Server
	gone     map[string]bool
	dead     map[string]bool
	events   []*coordinatorv1.Event
	decided  map[string][]*coordinatorv1.Decision
	sessions map[string]*coordinatorv1.AgentSession
	alarms   []*coordinatorv1.Alarm
	views    []*routerv1.WatchResponse
	routed   []*routerv1.Server
	picks    int
}

func newWorld() *world {
	return &world{
		rows: map[string]*coordinatorv1.Server{}, gone: map[string]bool{}, dead: map[string]bool{},
		decided: map[string][]*coordinatorv1.Decision{}, sessions: map[string]*coordinatorv1.AgentSession{},
	}
}

// serve begins the world and returns its clients.
func (w *world) serve(t *testing.T) (coordinatorv1.AdminServiceClient, routerv1.RouterServiceClient) {
	t.Helper()
	w.changed = make(chan struct{})
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	coordinatorv1.RegisterAdminServiceServer(server, w)
	routerv1.RegisterRouterServiceServer(server, w)
	w.ended.Go(func() { _ = server.Serve(lis) })
	conn, err := grpc.NewClient("passthrough:///world", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		w.ended.Wait()
	})
	return coordinatorv1.NewAdminServiceClient(conn), routerv1.NewRouterServiceClient(conn)
}

// after does something to the world in a while.
func (w *world) after(d time.Duration, do func()) {
	w.ended.Go(func() {
		time.Sleep(d)
		w.mu.Lock()
		defer w.mu.Unlock()
		do()
		close(w.changed)
		w.changed = make(chan struct{})
	})
}

// tell adds an event of the present revision.
func (w *world) tell(kind, id string, cause coordinatorv1.Cause) {
	w.events = append(w.events, &coordinatorv1.Event{
		Pool: pool, Revision: w.revision, At: timestamppb.Now(), Kind: kind, ServerId: id,
		Incarnation: w.rows[id].GetIncarnation(), Cause: cause,
	})
}

// route shows a server to the router's clients.
func (w *world) route(id string, state routerv1.State) {
	s := &routerv1.Server{ServerId: id, Incarnation: w.rows[id].GetIncarnation(), State: state}
	w.routed = slices.DeleteFunc(w.routed, func(o *routerv1.Server) bool { return o.GetServerId() == id })
	w.routed = append(w.routed, s)
	w.views = append(w.views, &routerv1.WatchResponse{Message: &routerv1.WatchResponse_Delta{Delta: &routerv1.WatchDelta{Put: []*routerv1.Server{s}}}})
}

func (w *world) joined(id string, phase coordinatorv1.Phase) {
	w.revision++
	w.ring = append(w.ring, id)
	w.rows[id] = &coordinatorv1.Server{ServerId: id, Incarnation: w.revision, Phase: phase, HeldUntil: timestamppb.New(time.Now().Add(5 * time.Second))}
	w.sessions[id] = &coordinatorv1.AgentSession{ServerId: id, Incarnation: w.revision, Since: timestamppb.Now()}
	w.tell("joined", id, 0)
}

func (w *world) removed(id string, cause coordinatorv1.Cause, e *coordinatorv1.Explanation) {
	w.revision++
	if w.lieCause {
		cause = coordinatorv1.Cause_CAUSE_OPERATOR
	}
	w.tell("removed", id, cause)
	e.Revision, e.ServerId = w.revision, id
	w.decided[id] = append([]*coordinatorv1.Decision{{
		Explanation: e,
		Routers:     []*coordinatorv1.RouterProgress{{RouterId: routerID, AppliedAt: timestamppb.New(time.Now().Add(3 * time.Millisecond))}},
	}}, w.decided[id]...)
	w.ring = slices.DeleteFunc(w.ring, func(o string) bool { return o == id })
	delete(w.rows, id)
	delete(w.sessions, id)
	w.gone[id] = true
	if !w.lieRouteRemoved {
		w.routed = slices.DeleteFunc(w.routed, func(o *routerv1.Server) bool { return o.GetServerId() == id })
	}
	w.views = append(w.views, &routerv1.WatchResponse{Message: &routerv1.WatchResponse_Delta{Delta: &routerv1.WatchDelta{Removed: []string{id}}}})
}

// Boot is of scene.
func (w *world) Boot(id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.dead, id)
	join := 10*time.Millisecond + time.Duration(len(w.dead)+int(id[len(id)-1]-'0'))*time.Millisecond
	if w.gone[id] {
		w.after(join, func() {
			w.joined(id, coordinatorv1.Phase_PHASE_HELD)
			if w.lieRouteHeld {
				w.route(id, routerv1.State_STATE_ACTIVE)
			}
		})
		w.after(join+5*time.Second, func() {
			w.rows[id].Phase = coordinatorv1.Phase_PHASE_ACTIVE
			w.route(id, routerv1.State_STATE_ACTIVE)
		})
		return nil
	}
	w.after(join, func() { w.joined(id, coordinatorv1.Phase_PHASE_JOINING) })
	w.after(join+14*time.Millisecond, func() { w.route(id, routerv1.State_STATE_ACTIVE) })
	return nil
}

// Crash is of scene.
func (w *world) Crash(id string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[id] = true
	i := slices.Index(w.ring, id)
	first, second := w.ring[(i+1)%len(w.ring)], w.ring[(i+len(w.ring)-1)%len(w.ring)]
	moment := func(at int, kind, who, role, result string, sent, lost uint32) *coordinatorv1.Moment {
		return &coordinatorv1.Moment{
			At: durationpb.New(time.Duration(at) * time.Millisecond), Kind: kind, Round: 1, Who: who, Role: role, Result: result, Sent: sent, Lost: lost,
		}
	}
	e := &coordinatorv1.Explanation{
		Started: timestamppb.New(time.Now().Add(231 * time.Millisecond)), Verdict: "crashed", Rule: "observers_agree",
		Timeline: []*coordinatorv1.Moment{
			moment(0, "doubt", first, "buddy", "down", 1, 1),
			moment(0, "round", "coordinator", "", "", 0, 0),
			moment(1, "nonce", "coordinator", "coordinator", "", 0, 0),
			moment(1, "asked", first, "buddy", "", 0, 0),
			moment(2, "asked", second, "buddy", "", 0, 0),
			moment(2, "asked", "web-9", "witness", "", 0, 0),
			moment(182, "answer", first, "buddy", "down", 1, 1),
			moment(221, "doubt", second, "buddy", "down", 1, 1),
			moment(221, "suspect", "coordinator", "", "", 0, 0), // the text follows
			moment(480, "answer", first, "buddy", "down", 3, 3),
			moment(481, "answer", second, "buddy", "down", 3, 3),
			moment(490, "answer", "web-9", "witness", "down", 3, 3),
			moment(502, "verdict", "coordinator", "", "crashed", 0, 0),
		},
	}
	e.Timeline[8].Text = "routers are told to prefer others; missed by " + first + ", " + second
	e.Timeline[12].Text = "all 3 observers that could judge miss it (3 are needed) and its stream is silent"
	if !w.lieNoSuspect {
		w.after(455*time.Millisecond, func() { w.route(id, routerv1.State_STATE_SUSPECT) })
	}
	w.after(741*time.Millisecond, func() { w.removed(id, coordinatorv1.Cause_CAUSE_CRASHED, e) })
	return nil
}

// Shutdown is of scene.
func (w *world) Shutdown(_ context.Context, id string) error {
	w.after(4*time.Millisecond, func() {
		w.revision++
		w.tell("draining", id, coordinatorv1.Cause_CAUSE_UNSPECIFIED)
	})
	w.after(7*time.Millisecond, func() {
		w.removed(id, coordinatorv1.Cause_CAUSE_SHUTDOWN, &coordinatorv1.Explanation{Started: timestamppb.Now()})
	})
	time.Sleep(13 * time.Millisecond)
	return nil
}

// PowerOff is of scene.
func (w *world) PowerOff(string) {}

// KillAgent is of scene.
func (w *world) KillAgent(id string) error {
	w.after(5*time.Second, func() {
		if w.lieRemoveKilled {
			w.removed(id, coordinatorv1.Cause_CAUSE_CRASHED, &coordinatorv1.Explanation{Started: timestamppb.Now()})
		}
		w.alarms = append(w.alarms, &coordinatorv1.Alarm{
			Name: "AGENT_DOWN", Pool: pool, Subject: id, Since: timestamppb.Now(), Text: "the agent of " + id + " is gone; the host answers pings",
		})
	})
	return nil
}

// StartAgent is of scene.
func (w *world) StartAgent(id string) error {
	w.after(31*time.Millisecond, func() { w.sessions[id].Since = timestamppb.Now() })
	return nil
}

// call is the service of all servers: the dead ones never answer.
func (w *world) call(ctx context.Context, address string) error {
	w.mu.Lock()
	dead := w.dead[address]
	w.mu.Unlock()
	if dead {
		<-ctx.Done()
		return errors.New("no answer")
	}
	return nil
}

// GetRing is of AdminService.
func (w *world) GetRing(context.Context, *coordinatorv1.GetRingRequest) (*coordinatorv1.GetRingResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &coordinatorv1.GetRingResponse{Revision: w.revision, Epoch: 1}
	n := len(w.ring)
	for i, id := range w.ring {
		m := &coordinatorv1.RingMember{
			ServerId: id, FirstBuddy: w.ring[(i+1)%n], SecondBuddy: w.ring[(i+n-1)%n], Phase: coordinatorv1.Phase_PHASE_ACTIVE,
		}
		if w.lieBadRing && w.gone["web-4"] && i == 0 {
			m.SecondBuddy = m.GetFirstBuddy()
		}
		r.Members = append(r.Members, m)
	}
	return r, nil
}

// CheckRing is of AdminService.
func (w *world) CheckRing(context.Context, *coordinatorv1.CheckRingRequest) (*coordinatorv1.CheckRingResponse, error) {
	return &coordinatorv1.CheckRingResponse{Consistent: new(true)}, nil
}

// GetServer is of AdminService.
func (w *world) GetServer(_ context.Context, r *coordinatorv1.GetServerRequest) (*coordinatorv1.GetServerResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	row := w.rows[r.GetServerId()]
	if row == nil {
		return nil, status.Error(codes.NotFound, "no such server")
	}
	return &coordinatorv1.GetServerResponse{Server: proto.CloneOf(row)}, nil
}

// ExplainServer is of AdminService.
func (w *world) ExplainServer(_ context.Context, r *coordinatorv1.ExplainServerRequest) (*coordinatorv1.ExplainServerResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &coordinatorv1.ExplainServerResponse{Decisions: w.decided[r.GetServerId()]}, nil
}

// ListRouters is of AdminService.
func (w *world) ListRouters(context.Context, *coordinatorv1.ListRoutersRequest) (*coordinatorv1.ListRoutersResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &coordinatorv1.ListRoutersResponse{Routers: []*coordinatorv1.Router{
		{RouterId: routerID, Applied: []*coordinatorv1.Position{{Pool: pool, Epoch: 1, Revision: w.revision}}},
	}}, nil
}

// ListAlarms is of AdminService.
func (w *world) ListAlarms(context.Context, *coordinatorv1.ListAlarmsRequest) (*coordinatorv1.ListAlarmsResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &coordinatorv1.ListAlarmsResponse{Alarms: slices.Clone(w.alarms)}, nil
}

// ListSessions is of AdminService.
func (w *world) ListSessions(context.Context, *coordinatorv1.ListSessionsRequest) (*coordinatorv1.ListSessionsResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &coordinatorv1.ListSessionsResponse{}
	for _, s := range w.sessions {
		r.Sessions = append(r.Sessions, proto.CloneOf(s))
	}
	return r, nil
}

// ListServers is of AdminService.
func (w *world) ListServers(context.Context, *coordinatorv1.ListServersRequest) (*coordinatorv1.ListServersResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &coordinatorv1.ListServersResponse{}
	for _, s := range w.rows {
		r.Servers = append(r.Servers, proto.CloneOf(s))
	}
	return r, nil
}

// WatchEvents is of AdminService.
func (w *world) WatchEvents(_ *coordinatorv1.WatchEventsRequest, stream grpc.ServerStreamingServer[coordinatorv1.WatchEventsResponse]) error {
	return follow(stream.Context(), w, func(from int) (int, error) {
		for ; from < len(w.events); from++ {
			if err := stream.Send(&coordinatorv1.WatchEventsResponse{Event: w.events[from]}); err != nil {
				return 0, err
			}
		}
		return from, nil
	})
}

// Watch is of RouterService.
func (w *world) Watch(_ *routerv1.WatchRequest, stream grpc.ServerStreamingServer[routerv1.WatchResponse]) error {
	return follow(stream.Context(), w, func(from int) (int, error) {
		for ; from < len(w.views); from++ {
			if err := stream.Send(w.views[from]); err != nil {
				return 0, err
			}
		}
		return from, nil
	})
}

// follow sends what is new whenever the world changes.
func follow(ctx context.Context, w *world, send func(from int) (int, error)) error {
	sent := 0
	for {
		w.mu.Lock()
		var err error
		sent, err = send(sent)
		changed := w.changed
		w.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Pick is of RouterService: one after the other, suspects never.
func (w *world) Pick(context.Context, *routerv1.PickRequest) (*routerv1.PickResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var well []*routerv1.Server
	for _, s := range w.routed {
		if s.GetState() == routerv1.State_STATE_ACTIVE {
			well = append(well, s)
		}
	}
	if len(well) == 0 {
		return nil, status.Error(codes.Unavailable, "no server")
	}
	w.picks++
	s := well[w.picks%len(well)]
	return &routerv1.PickResponse{Choices: []*routerv1.Choice{{ServerId: s.GetServerId(), Incarnation: s.GetIncarnation(), Address: s.GetServerId()}}}, nil
}
