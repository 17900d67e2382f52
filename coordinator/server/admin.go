package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// adminService serves operators. Reads come from the machines and the history;
// changes go through the machines.
type adminService struct {
	pb.UnimplementedAdminServiceServer

	id        string
	version   string
	startedAt time.Time
	kind      string

	lead       leadership
	pools      *pools
	events     EventTable
	table      Table
	backups    Backups
	routers    *routers
	alarms     *alarms
	health     *health
	bell       *bell
	closing    *ending
	agents     *agentService
	members    *membershipService
	allowLocal bool
	// standing is who leads. term is the present one; nil for a standby.
	standing func(time.Time) standing
	term     *term
}

// ListPools lists the pools by name.
func (a *adminService) ListPools(ctx context.Context, req *pb.ListPoolsRequest) (*pb.ListPoolsResponse, error) {
	p, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	hosts, next := cut(a.pools.list(), p, func(h *host) string { return string(h.pool) })
	res := &pb.ListPoolsResponse{NextPageToken: next}
	for _, h := range hosts {
		status, err := poolStatus(ctx, h)
		if err != nil {
			return nil, err
		}
		res.Pools = append(res.Pools, status)
	}
	return res, nil
}

func poolStatus(ctx context.Context, h *host) (*pb.Pool, error) {
	var status pool.Status
	err := h.view(ctx, func(m *pool.Machine) { status = m.Status() })
	if err != nil {
		return nil, err
	}
	out := toPool(h.pool, status)
	if h.frozen != nil {
		// Only the leader knows.
		out.WarmingUp, out.BrakeEngaged = nil, nil
	}
	return out, nil
}

// GetPool returns one pool.
func (a *adminService) GetPool(ctx context.Context, req *pb.GetPoolRequest) (*pb.GetPoolResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	status, err := poolStatus(ctx, h)
	if err != nil {
		return nil, err
	}
	return &pb.GetPoolResponse{Pool: status}, nil
}

// CreatePool creates an empty pool.
func (a *adminService) CreatePool(ctx context.Context, req *pb.CreatePoolRequest) (*pb.CreatePoolResponse, error) {
	name, err := member.ParsePool("pool", req.GetPool())
	if err != nil {
		return nil, err
	}
	settings, err := parseNewSettings(req.GetSettings())
	if err != nil {
		return nil, err
	}
	call, err := parseCall(req, nil, peerOf(ctx))
	if err != nil {
		return nil, err
	}
	h, err := a.pools.createFor(ctx, newPool{name: name, settings: settings, call: call})
	if err != nil {
		return nil, err
	}
	if h == nil {
		return &pb.CreatePoolResponse{Pool: toPool(name, pool.Status{
			Position: member.Position{Epoch: a.lead.epoch}, Settings: settings,
		})}, nil
	}
	status, err := poolStatus(ctx, h)
	if err != nil {
		return nil, err
	}
	return &pb.CreatePoolResponse{Pool: status}, nil
}

// UpdatePool changes settings of a pool.
func (a *adminService) UpdatePool(ctx context.Context, req *pb.UpdatePoolRequest) (*pb.UpdatePoolResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	edit, err := parseSettingsEdit(req.GetSettings(), req.GetUpdateMask())
	if err != nil {
		return nil, err
	}
	var status pool.Status
	command := func(c pool.Call) pool.Input { return pool.UpdateSettings{Call: c, Edit: edit} }
	err = o.give(ctx, command, func(m *pool.Machine, _ pool.Reply) {
		status = m.Status()
		if o.call.ValidateOnly {
			status.Settings = preview(edit, status.Settings)
		}
	})
	if err != nil {
		return nil, err
	}
	return &pb.UpdatePoolResponse{Pool: toPool(o.host.pool, status)}, nil
}

// preview is what an edit that was checked would make of the present value.
func preview[T any](edit func(T) (T, error), present T) T {
	if next, err := edit(present); err == nil {
		return next
	}
	return present
}

// ListAlarms lists the active alarms.
func (a *adminService) ListAlarms(_ context.Context, req *pb.ListAlarmsRequest) (*pb.ListAlarmsResponse, error) {
	only := member.Pool(req.GetPool())
	if _, err := a.pools.pick(req.GetPool()); err != nil && only != "" && a.pools.whyAside(only) == nil {
		return nil, err
	}
	res := &pb.ListAlarmsResponse{}
	for _, alarm := range a.alarms.list() {
		if only == "" || alarm.Pool == only {
			res.Alarms = append(res.Alarms, toAlarm(alarm))
		}
	}
	return res, nil
}

// GetStatus tells how this coordinator is.
func (a *adminService) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	at := a.standing(time.Now())
	res := &pb.GetStatusResponse{
		CoordinatorId: a.id,
		Version:       a.version,
		StartedAt:     toTime(a.startedAt),
		State:         pb.LeaderState_LEADER_STATE_STANDBY,
		Leader:        at.leader,
		LeaderId:      string(at.leaderID),
		LeaseAge:      durationpb.New(at.leaseAge),
		Epoch:         uint64(at.epoch),
		StoreId:       at.storeID,
		StoreKind:     a.kind,
		StoreState:    pb.StoreState_STORE_STATE_OK,
		Sessions:      toCount(int(a.agents.live.Load())),
		Subscriptions: toCount(int(a.members.live.Load())),
		Alarms:        toCount(a.alarms.count()),
	}
	if a.term != nil {
		res.State = pb.LeaderState_LEADER_STATE_LEADER
	}
	if err := a.health.error(); err != nil {
		res.StoreState, res.StoreError = pb.StoreState_STORE_STATE_FAILING, err.Error()
	}
	for _, h := range a.pools.list() {
		status, err := poolStatus(ctx, h)
		if err != nil {
			return nil, err
		}
		res.Pools = append(res.Pools, status)
	}
	return res, nil
}

// ListRouters lists the routers seen lately.
func (a *adminService) ListRouters(_ context.Context, req *pb.ListRoutersRequest) (*pb.ListRoutersResponse, error) {
	p, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	routers, next := cut(a.routers.list(), p, func(r routerInfo) string { return string(r.id) })
	res := &pb.ListRoutersResponse{NextPageToken: next}
	for _, r := range routers {
		out := toRouter(r)
		out.Lags = a.lagsOf(r)
		res.Routers = append(res.Routers, out)
	}
	return res, nil
}

func toRouter(r routerInfo) *pb.Router {
	out := &pb.Router{
		RouterId: string(r.id), LastSeen: toTime(r.lastSeen), Connected: &r.connected, Version: r.version,
	}
	for _, p := range r.applied {
		out.Applied = append(out.Applied, toPosition(p.pool, p.Position))
	}
	for _, s := range r.held {
		out.Held = append(out.Held, &pb.HeldByRouter{Pool: string(s.pool), ServerId: string(s.id)})
	}
	return out
}

// ListSessions lists the agents' live sessions.
func (a *adminService) ListSessions(ctx context.Context, req *pb.ListSessionsRequest) (*pb.ListSessionsResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	p, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	var all []pool.SessionStatus
	if err := h.view(ctx, func(m *pool.Machine) { all = m.Sessions() }); err != nil {
		return nil, err
	}
	sessions, next := cut(all, p, func(s pool.SessionStatus) string { return string(s.ID) })
	res := &pb.ListSessionsResponse{NextPageToken: next}
	for _, s := range sessions {
		res.Sessions = append(res.Sessions, toSession(s))
	}
	return res, nil
}

func toSession(s pool.SessionStatus) *pb.AgentSession {
	out := &pb.AgentSession{
		ServerId:        string(s.ID),
		Incarnation:     uint64(s.Incarnation),
		Peer:            s.Peer,
		Version:         s.Version,
		Since:           toTime(s.Since),
		LastHeard:       toTime(s.LastHeard),
		AcknowledgedSeq: s.Acked,
		AssignedSeq:     s.Assigned,
		SelfScore:       toCount(s.SelfScore),
	}
	for _, d := range s.Subjects {
		out.Subjects = append(out.Subjects, &pb.SessionSubject{
			ServerId: string(d.Subject), Sight: d.Evidence.Sight.String(),
			Rtt: toOptionalDuration(d.Evidence.RTT), LostOfTen: toCount(d.LostOfTen),
		})
	}
	return out
}
