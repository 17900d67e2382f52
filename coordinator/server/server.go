package server

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// startTime bounds what is asked of the database before anything is served.
const startTime = 30 * time.Second

// errStopping is what everybody hears when the coordinator is told to stop.
var errStopping = fmt.Errorf("%w: the coordinator is stopping", member.ErrUnavailable)

// Server is a coordinator.
type Server struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	alarms  *alarms
	own     ownAlarms
	health  *health
	bell    *bell
	marks   *marks
	routers *routers
	closing *ending
	// leads is set once the coordinator has taken the lead.
	leads atomic.Bool
}

// New returns a coordinator that does nothing until Run. Its metrics are on the
// registry from then on.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Check(deps.Credentials); err != nil {
		return nil, err
	}
	m := newMetrics(deps.Registry)
	a := newAlarms(deps.Logger, m.alarmActive)
	own := newOwnAlarms(a)
	b := newBell()
	return &Server{
		cfg: cfg, deps: deps, metrics: m, alarms: a, own: own, bell: b,
		health: &health{alarms: own, up: m.storeUp}, marks: newMarks(b), routers: newRouters(own), closing: newEnding(),
	}, nil
}

// Run takes the lead, serves until ctx ends, and returns when everything that it
// started has ended: nil for ctx's end, and an error that wraps ErrFenced when
// another coordinator has started. It is called once.
func (s *Server) Run(ctx context.Context) error {
	// The listeners come first: a second coordinator on the same host must fail
	// at them before it fences the first.
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	stopped := ctx.Err
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return observe.NewHTTP(observe.HTTPConfig{
			TLS: s.deps.Credentials.HTTPConfig(), Registry: s.deps.Registry, Ready: s.ready, Logger: s.deps.Logger,
		}).Serve(ctx, listeners.http)
	})
	g.Go(func() error {
		term, err := s.start(ctx, g)
		if err != nil {
			return errors.Join(err, listeners.agent.Close(), listeners.admin.Close())
		}
		return term.serve(ctx, listeners)
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) || stopped() == nil {
		return err
	}
	// It was told to stop while it was starting.
	return nil
}

// listeners are those of a coordinator.
type listeners struct{ agent, admin, http net.Listener }

func (s *Server) listen(ctx context.Context) (l listeners, err error) {
	if l.agent, err = s.deps.listen(ctx, "agent", s.cfg.Listen); err != nil {
		return l, err
	}
	if l.admin, err = s.deps.listen(ctx, "admin", s.cfg.AdminListen); err != nil {
		return l, errors.Join(err, l.agent.Close())
	}
	if l.http, err = s.deps.listen(ctx, "http", s.cfg.HTTPListen); err != nil {
		return l, errors.Join(err, l.agent.Close(), l.admin.Close())
	}
	return l, nil
}

// ready says why nothing can be changed now, or nil.
func (s *Server) ready() error {
	if !s.leads.Load() {
		return errors.New("not leading yet")
	}
	return s.health.error()
}

// term is the time in which a coordinator leads.
type term struct {
	*Server

	lead  leadership
	pools *pools
	// stopHosts ends the hosts, which outlive the streams.
	stopHosts context.CancelFunc

	agents  *agentService
	members *membershipService
	admin   *adminService
}

// start takes the lead and starts a host for every pool.
func (s *Server) start(ctx context.Context, group *errgroup.Group) (*term, error) {
	within, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	won, err := s.deps.Store.Lead(within, s.cfg.ID, s.cfg.Advertise)
	if err != nil {
		return nil, err
	}
	states, err := s.deps.Store.LoadPools(within)
	if err != nil {
		return nil, err
	}
	rows, err := s.deps.Store.Routers(within)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		s.routers.remember(r, time.Now())
	}
	hosts, stopHosts := context.WithCancel(context.WithoutCancel(ctx))
	t := &term{Server: s, lead: leadership{epoch: won.Epoch, storeID: won.StoreID}, stopHosts: stopHosts}
	if s.cfg.Advertise != "" {
		t.lead.addresses = []string{s.cfg.Advertise}
	}
	t.pools = newPools(s.deps.Store, t.lead, s.bell, s.cfg.AutoCreatePools)
	t.pools.start = func(state member.PoolState) (*host, error) {
		h, err := t.newHost(state)
		if err == nil {
			group.Go(func() error { return h.run(hosts) })
		}
		return h, err
	}
	if err := t.addPools(within, states); err != nil {
		stopHosts()
		return nil, err
	}
	t.makeServices()
	s.metrics.epoch.Set(float64(won.Epoch))
	s.metrics.leader.Set(1)
	s.health.renewed(nil, time.Now())
	s.leads.Store(true)
	s.deps.Logger.InfoContext(ctx, "leading", "coordinator_id", s.cfg.ID, "epoch", won.Epoch,
		"store_id", won.StoreID, "store_kind", s.deps.Store.Kind(), "pools", len(t.pools.list()))
	return t, nil
}

// addPools starts the pools of the table, and makes the one that always exists.
func (t *term) addPools(ctx context.Context, states []member.PoolState) error {
	for _, state := range states {
		if _, err := t.pools.add(state); err != nil {
			return err
		}
	}
	if t.pools.find(member.DefaultPool) != nil {
		return nil
	}
	_, err := t.pools.create(ctx, newPool{
		name: member.DefaultPool, settings: member.DefaultSettings(),
		call: pool.Call{Actor: actorSelf, Reason: "it always exists"},
	})
	return err
}

// newHost makes the machine of a pool and its host.
func (t *term) newHost(state member.PoolState) (*host, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // it never fails
	history := newHistory(state, t.bell)
	machine, err := pool.New(state, pool.Config{Seed: binary.NativeEndian.Uint64(seed[:]), Now: time.Now()})
	if err != nil {
		return nil, fmt.Errorf("start pool %s: %w", state.Name, err)
	}
	t.metrics.pool(history)
	return &host{
		pool: state.Name, machine: machine, sessions: map[pool.SessionID]*session{}, calls: map[pool.Token]waiter{},
		lead: t.lead, table: t.deps.Store, dialer: newDialer(t.deps.Dialer), history: history, marks: t.marks,
		alarms: t.alarms, health: t.health, metrics: t.metrics, log: t.deps.Logger,
		inbox: make(chan work, inboxSize), outcomes: make(chan outcome, 1), over: newEnding(),
	}, nil
}

func (t *term) makeServices() {
	t.agents = &agentService{
		lead: t.lead, pools: t.pools, closing: t.closing, metrics: t.metrics, allowLocal: t.cfg.AllowLocalAddresses,
	}
	t.members = &membershipService{
		lead: t.lead, pools: t.pools, marks: t.marks, bell: t.bell, routers: t.routers, alarms: t.own,
		closing: t.closing, metrics: t.metrics, snapshots: make(chan struct{}, snapshotsAtOnce),
	}
	streamGauges(t.deps.Registry, &t.agents.live, &t.members.live)
	t.admin = &adminService{
		id: t.cfg.ID, version: t.cfg.Version, startedAt: time.Now(), kind: t.deps.Store.Kind(),
		lead: t.lead, pools: t.pools, events: t.deps.Store, table: t.deps.Store, backups: t.deps.Store, routers: t.routers,
		alarms: t.alarms, health: t.health, bell: t.bell, closing: t.closing,
		agents: t.agents, members: t.members, allowLocal: t.cfg.AllowLocalAddresses,
	}
}

// serve serves until ctx ends. The streams end first, then the servers, then the
// hosts, so that nobody is left without an answer.
func (t *term) serve(ctx context.Context, lis listeners) error {
	defer t.stopHosts()
	agentServer := rpc.NewServer(rpc.ServerConfig{
		Credentials: t.deps.Credentials, Registry: t.deps.Registry, Logger: t.deps.Logger,
		Roles: map[string][]rpc.Role{
			pb.AgentService_ServiceDesc.ServiceName:      {rpc.RoleAgent},
			pb.MembershipService_ServiceDesc.ServiceName: {rpc.RoleRouter},
		},
	})
	pb.RegisterAgentServiceServer(agentServer.GRPC(), t.agents)
	pb.RegisterMembershipServiceServer(agentServer.GRPC(), t.members)
	adminServer := rpc.NewServer(rpc.ServerConfig{
		Credentials: t.deps.Credentials, Registry: t.deps.Registry, Logger: t.deps.Logger,
		MaxRecvBytes: adminRecvBytes, Reflection: true,
		Roles: map[string][]rpc.Role{pb.AdminService_ServiceDesc.ServiceName: {rpc.RoleAdmin}},
	})
	pb.RegisterAdminServiceServer(adminServer.GRPC(), t.admin)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return agentServer.Serve(ctx, lis.agent) })
	g.Go(func() error { return adminServer.Serve(ctx, lis.admin) })
	g.Go(func() error { return t.keepLead(ctx) })
	g.Go(func() error { t.tendRouters(ctx); return nil })
	g.Go(func() error { t.prune(ctx); return nil })
	g.Go(func() error { t.watchDisk(ctx); return nil })
	g.Go(func() error { t.own.deliver(ctx, t.pools); return nil })
	g.Go(func() error {
		<-ctx.Done()
		t.closing.end(farewell(ctx))
		return nil
	})
	agentServer.SetServing("", true)
	agentServer.SetServing(pb.AgentService_ServiceDesc.ServiceName, true)
	agentServer.SetServing(pb.MembershipService_ServiceDesc.ServiceName, true)
	adminServer.SetServing("", true)
	adminServer.SetServing(pb.AdminService_ServiceDesc.ServiceName, true)
	t.deps.Logger.InfoContext(ctx, "coordinator listens", "address", lis.agent.Addr().String(),
		"admin_address", lis.admin.Addr().String(), "http_address", lis.http.Addr().String())

	err := g.Wait()
	t.agents.streams.Wait()
	t.members.streams.Wait()
	return err
}

// adminRecvBytes bounds an operator's request.
const adminRecvBytes = 1 << 20

// farewell is what streams are told, by what ended ctx.
func farewell(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, member.ErrFenced) || errors.Is(cause, errMoved) {
		return &member.NotLeaderError{}
	}
	return errStopping
}
