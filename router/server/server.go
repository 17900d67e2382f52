// Package server is the router: it subscribes to a coordinator, keeps the last
// good view of each pool in memory and on disk, and answers clients from that.
//
// Views change in one place, pools, under a lock that nobody takes who answers a
// client. It decides nothing about who may get work (package view does), never
// asks the coordinator while a client waits, and never stops serving because a
// coordinator or the disk is gone.
package server

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/internal/statedir"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/xds"
)

// maxRecvBytes bounds a request. Envoy's first one lists all its extensions.
const (
	maxRecvBytes = 256 << 10
	// callsAtOnce is enough for the calls that the processors of one host can have
	// under way.
	callsAtOnce = 256
)

// Server is a router.
type Server struct {
	cfg        Config
	deps       Deps
	pools      *pools
	disk       *disk
	subscriber *subscriber
	service    *service
	xds        *xds.Door
	rpc        *rpc.Server
	http       *observe.HTTP
	listeners  *listeners
	// dns and web are nil where those listeners are off.
	dns *dnsDoor
	web *webDoor
}

// New returns a router that does nothing until Run. Its metrics are on the
// registry from then on.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := cfg.Check(deps.Credentials); err != nil {
		return nil, err
	}
	m := newMetrics(deps.Registry)
	p := newPools(m, deps.Logger)
	p.slowStart = cfg.SlowStart
	deps.Registry.MustRegister(newStates(p))
	everybody := newAudience()
	listeners := newListeners(cfg, deps)
	pages, web := newWebDoor(cfg, deps, p, listeners)
	s := &Server{
		cfg: cfg, deps: deps, pools: p, listeners: listeners,
		disk:    &disk{dir: statedir.New(cfg.StateDir, "router"), pools: p, dirty: newSignal(), metrics: m, log: deps.Logger},
		service: &service{pools: p, audience: everybody, metrics: m, senders: senders{next: make(chan sending)}},
		xds:     xds.New(xds.Config{Registry: deps.Registry, Logger: deps.Logger}),
		rpc: rpc.NewServer(rpc.ServerConfig{
			Credentials: deps.Credentials, Registry: deps.Registry, Logger: deps.Logger, Reflection: true,
			MaxRecvBytes: maxRecvBytes,
			CallsAtOnce:  callsAtOnce,
		}),
		http: observe.NewHTTP(observe.HTTPConfig{
			TLS: deps.Credentials.HTTPConfig(), Registry: deps.Registry, Ready: p.ready, Logger: deps.Logger,
			Pages: pages,
		}),
		web: web,
	}
	var err error
	if s.dns, err = newDNSDoor(cfg, deps, p); err != nil {
		return nil, err
	}
	s.subscriber = &subscriber{
		id: cfg.ID, version: cfg.Version, addresses: cfg.Coordinators, dial: s.dial,
		pools: p, settlers: append(cfg.settlers(), everybody, xdsDoor{s.xds}), changed: s.disk.dirty, metrics: m, log: deps.Logger,
	}
	s.rpc.GRPC().RegisterService(serviceDesc(), s.service)
	s.xds.Register(s.rpc.GRPC())
	return s, nil
}

// Run serves until ctx ends, and returns when everything that it started has
// ended. It is called once. What an earlier run left on disk is served from the
// first moment on.
func (s *Server) Run(ctx context.Context) (err error) {
	if err := s.disk.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.disk.dir.Close()) }()
	last, restored := s.disk.load(ctx)
	if restored {
		s.pools.restore(last)
		s.deps.Logger.InfoContext(ctx, "serving the views of the last run", "pools", len(last.pools))
	}
	grpcListener, err := s.listeners.open(ctx, "grpc", s.cfg.Listen)
	if err != nil {
		return err
	}
	httpListener, err := s.listeners.open(ctx, "http", s.cfg.HTTPListen)
	if err != nil {
		return errors.Join(err, grpcListener.Close())
	}
	s.deps.Logger.InfoContext(ctx, "router listens", "router_id", s.cfg.ID,
		"address", grpcListener.Addr().String(), "http_address", httpListener.Addr().String())

	g, ctx := errgroup.WithContext(ctx)
	s.service.closing = ctx.Done()
	g.Go(func() error { return s.rpc.Serve(ctx, grpcListener) })
	g.Go(func() error { return s.http.Serve(ctx, httpListener) })
	if s.dns != nil {
		g.Go(func() error { return s.dns.run(ctx) })
	}
	if s.web != nil {
		g.Go(func() error { return s.web.run(ctx) })
	}
	g.Go(func() error { s.serveXDS(ctx, len(last.pools) > 0); return nil })
	g.Go(func() error { s.announce(ctx); return nil })
	g.Go(func() error { s.subscriber.run(ctx); return nil })
	g.Go(func() error { s.disk.run(ctx); return nil })
	g.Go(func() error { s.pools.keepTime(ctx); return nil })
	err = g.Wait()
	s.service.senders.running.Wait()
	s.xds.Wait()
	return err
}

// announce turns health to SERVING once there is a whole state to serve.
func (s *Server) announce(ctx context.Context) {
	select {
	case <-s.pools.seen:
		s.rpc.SetServing("", true)
		s.rpc.SetServing(routerv1.RouterService_ServiceDesc.ServiceName, true)
	case <-ctx.Done():
	}
}

func (s *Server) dial(address string) (*grpc.ClientConn, error) {
	return rpc.Dial(rpc.DialConfig{
		Addresses: []string{address}, Credentials: s.deps.Credentials, ServerRole: rpc.RoleCoordinator,
		Logger: s.deps.Logger, Dialer: s.deps.Dialer,
	})
}

// keepTime lets marks expire, loads fade and servers warm up. A mark may outlive its time by one
// half-life of the loads.
func (p *pools) keepTime(ctx context.Context) {
	tick := time.NewTicker(loadHalfLife)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			p.decay()
			p.expire(now)
			p.warm(now)
		case <-ctx.Done():
			return
		}
	}
}
