package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/buddyring/buddyring/coordinator/lease"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// errStopping is what everybody hears when the coordinator is told to stop.
var errStopping = fmt.Errorf("%w: the coordinator is stopping", member.ErrUnavailable)

// Server is a coordinator: it stands by until it may take the lead, leads until
// it is told to stop or another one does, and stands by again.
type Server struct {
	cfg     Config
	deps    Deps
	metrics *metrics
	alarms  *alarms
	own     ownAlarms
	health  *health
	shelf   *shelf
	guard   *quota.Guard
	// startedAt is when Run began.
	startedAt time.Time

	agentServer, adminServer *rpc.Server
	// settled ends when the coordinator knows for the first time what part it
	// plays. Nobody is served before, so that one that may lead at once never
	// turns anybody away.
	settled *ending

	// term is the present one, nil while the coordinator stands by.
	term atomic.Pointer[term]
	// sight is what it has seen of the lease while it did not lead.
	sight atomic.Pointer[lease.Sight]
	// loading is the lease that it has won, while the term loads.
	loading atomic.Pointer[member.Lease]
	// known is what it has seen of epochs, led the last one in which it has led,
	// claimed when it sent its last claim. Only compete's goroutine touches them.
	known   lease.Known
	led     member.Epoch
	claimed time.Time
	// others are the addresses of the other coordinators on the database.
	others atomic.Pointer[[]string]
	// asked has room for a question of one of them, and asking limits how many are
	// heard.
	asked  chan struct{}
	asking *rate.Limiter
}

// New returns a coordinator that does nothing until Run. Its metrics are on the
// registry from then on.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Check(deps.Credentials); err != nil {
		return nil, err
	}
	if cfg.Instance == "" {
		cfg.Instance = rand.Text()
	}
	m := newMetrics(deps.Registry)
	a := newAlarms(deps.Logger, m.alarmActive)
	own := newOwnAlarms(a)
	s := &Server{
		cfg: cfg, deps: deps, metrics: m, alarms: a, own: own,
		health: &health{alarms: own, up: m.storeUp}, settled: newEnding(), guard: quota.NewGuard(deps.Registry, deps.Logger),
		asked: make(chan struct{}, 1), asking: rate.NewLimiter(rate.Every(lease.PollEvery), 2),
	}
	s.shelf = newShelf(s)
	s.sight.Store(&lease.Sight{})
	s.others.Store(&[]string{})
	s.gauges(deps.Registry)
	s.makeServers()
	return s, nil
}

const (
	// adminRecvBytes bounds an operator's request.
	adminRecvBytes = 1 << 20
	// agentRecvBytes bounds what a router says: it acknowledges the positions of up
	// to a thousand pools, and names all servers that it keeps after a mass removal,
	// some 40 bytes each. An agent may say less; see agentMessageBytes.
	agentRecvBytes = 1 << 20
)

// makeServers makes the gRPC servers. Their services belong to the present term,
// if there is one.
func (s *Server) makeServers() {
	s.agentServer = rpc.NewServer(rpc.ServerConfig{
		Credentials: s.deps.Credentials, Registry: s.deps.Registry, Logger: s.deps.Logger,
		FixedWindows: true, MaxRecvBytes: agentRecvBytes,
		Roles: map[string][]rpc.Role{
			pb.AgentService_ServiceDesc.ServiceName:      {rpc.RoleAgent},
			pb.MembershipService_ServiceDesc.ServiceName: {rpc.RoleRouter},
			pb.PeerService_ServiceDesc.ServiceName:       {rpc.RoleCoordinator},
		},
	})
	pb.RegisterPeerServiceServer(s.agentServer.GRPC(), &peerService{lease: s.lease, asked: s.hasten})
	s.agentServer.GRPC().RegisterService(behind(pb.AgentService_ServiceDesc, s.agentDoor), nil)
	s.agentServer.GRPC().RegisterService(behind(pb.MembershipService_ServiceDesc, s.memberDoor), nil)
	s.adminServer = rpc.NewServer(rpc.ServerConfig{
		Credentials: s.deps.Credentials, Registry: s.deps.Registry, Logger: s.deps.Logger,
		MaxRecvBytes: adminRecvBytes, Reflection: true,
		Roles: map[string][]rpc.Role{pb.AdminService_ServiceDesc.ServiceName: {rpc.RoleAdmin}},
	})
	s.adminServer.GRPC().RegisterService(behind(pb.AdminService_ServiceDesc, s.adminDoor), nil)
}

// Run serves until ctx ends, and returns when everything that it started has
// ended: nil for ctx's end, and an error that wraps ErrAlreadyExists when another
// live coordinator has the same id. It is called once.
func (s *Server) Run(ctx context.Context) error {
	// The listeners come first: a second coordinator on the same host must fail
	// at them before it competes with the first.
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	s.startedAt = time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return observe.NewHTTP(observe.HTTPConfig{
			TLS: s.deps.Credentials.HTTPConfig(), Registry: s.deps.Registry, Ready: s.ready, Says: s.says, Logger: s.deps.Logger,
		}).Serve(ctx, listeners.http)
	})
	g.Go(func() error { return s.serve(ctx, listeners) })
	g.Go(func() error { return s.compete(ctx) })
	g.Go(func() error { s.watchDisk(ctx); return nil })
	g.Go(func() error { s.meet(ctx); return nil })
	return g.Wait()
}

// listeners are those of a coordinator.
type listeners struct{ agent, admin, http net.Listener }

// listen opens the listeners, with limits.
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
	agents := s.guard.Share(s.cfg.Connections.Or(DefaultConnections()), 1)
	l.agent = s.guard.Listener(l.agent, "agent", agents)
	l.admin, l.http = s.guard.Listener(l.admin, "admin", quota.Few()), s.guard.Listener(l.http, "http", quota.Few())
	return l, nil
}

// serve serves gRPC from when the coordinator knows its part until ctx ends.
func (s *Server) serve(ctx context.Context, lis listeners) error {
	select {
	case <-s.settled.done():
	case <-ctx.Done():
		return errors.Join(lis.agent.Close(), lis.admin.Close())
	}
	s.adminServer.SetServing("", true)
	s.adminServer.SetServing(pb.AdminService_ServiceDesc.ServiceName, true)
	s.deps.Logger.InfoContext(ctx, "coordinator listens", "address", lis.agent.Addr().String(),
		"admin_address", lis.admin.Addr().String(), "http_address", lis.http.Addr().String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.agentServer.Serve(ctx, lis.agent) })
	g.Go(func() error { return s.adminServer.Serve(ctx, lis.admin) })
	return g.Wait()
}

// admit says to health checks whether agents and routers are served, so that
// clients with several addresses find the leader.
func (s *Server) admit(leads bool) {
	for _, service := range []string{
		"", pb.AgentService_ServiceDesc.ServiceName, pb.MembershipService_ServiceDesc.ServiceName,
	} {
		s.agentServer.SetServing(service, leads)
	}
}

// ready says why the coordinator can neither change anything nor take over, or
// nil. A standby that sees the lease is ready.
func (s *Server) ready() error {
	if !s.settled.ended() {
		return errors.New("starting")
	}
	return s.health.error()
}

// says tells what part the coordinator plays.
func (s *Server) says() string {
	at := s.standing(time.Now())
	switch {
	case at.leads:
		return fmt.Sprintf("leads in epoch %d", at.epoch)
	case at.leaderID == "":
		return "standby; nobody leads"
	}
	return fmt.Sprintf("standby; %s leads in epoch %d", at.leaderID, at.epoch)
}

// standing is what a coordinator tells of the lead.
type standing struct {
	leads bool
	// leaderID and leader name the coordinator that leads and where agents and
	// routers reach it; "" when that is not known.
	leaderID member.ID
	leader   string
	epoch    member.Epoch
	storeID  string
	// leaseAge is how long ago the lease was renewed, as far as it was seen.
	leaseAge time.Duration
}

func (s *Server) standing(now time.Time) standing {
	if t := s.term.Load(); t != nil {
		return standing{
			leads: true, leaderID: member.ID(s.cfg.ID), leader: s.cfg.Advertise,
			epoch: t.lead.epoch, storeID: t.lead.storeID, leaseAge: t.tenure.age(now),
		}
	}
	sight := s.sight.Load()
	at := standing{epoch: sight.Lease.Epoch, storeID: sight.Lease.StoreID}
	if !sight.MovedAt.IsZero() {
		at.leaseAge = now.Sub(sight.MovedAt)
	}
	if sight.Alive(now) && sight.Lease.Holder != member.ID(s.cfg.ID) {
		at.leaderID, at.leader = sight.Lease.Holder, sight.Lease.Advertise
	}
	return at
}

// notLeader sends a caller to the leader, if one is known.
func (s *Server) notLeader() error {
	return &member.NotLeaderError{Leader: s.standing(time.Now()).leader}
}
