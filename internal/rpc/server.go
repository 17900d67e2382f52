package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/buddyring/buddyring/proto/described"
)

// Limits of every server.
const (
	maxHeaderBytes   = 8 << 10
	maxStreams       = 64
	handshakeTimeout = 10 * time.Second
	defaultRecvBytes = 64 << 10
	// readBufferBytes is held by each connection, and messages are small.
	readBufferBytes = 4 << 10
	// windowBytes is how much may be under way to whoever has fixed windows, and
	// writeBufferBytes what a connection takes to write to it.
	windowBytes      = 64 << 10
	writeBufferBytes = 8 << 10

	serverPingAfter   = 20 * time.Second
	serverPingTimeout = 10 * time.Second
	minClientPing     = 10 * time.Second

	gracefulStop = 2 * time.Second
)

// ServerConfig configures a Server.
type ServerConfig struct {
	Credentials *Credentials
	// Registry gets the RPC metrics. Servers of one process may share it.
	Registry *prometheus.Registry
	Logger   *slog.Logger
	// CallsAtOnce is how many calls are handled by goroutines that stay, with stacks
	// that have grown already, which makes short calls a fifth cheaper; further ones,
	// and all if 0, get a new goroutine each. A stream keeps its goroutine as long as
	// it lasts.
	CallsAtOnce uint32
	// FixedWindows is for clients that say little at a time, each in one call on a
	// connection of its own; see the same of DialConfig.
	FixedWindows bool
	// MaxRecvBytes bounds a received message; 64 KiB when 0.
	MaxRecvBytes int
	// Reflection serves the descriptors with their comments, so that grpcurl needs no
	// files.
	Reflection bool
	// Roles says which roles may call a service, by the service's full name. A
	// service that is not named may be called with any certificate of the CA.
	Roles map[string][]Role
}

// Server is a gRPC server with the limits, metrics, error mapping and health
// service that all of buddyring's have.
type Server struct {
	services services
	options  []grpc.ServerOption
	// reflection is set if the descriptors are served.
	reflection bool
	health     *health.Server
	calls      *calls
}

// services are what is registered before there is a gRPC server: that starts
// goroutines as soon as it is made.
type services []service

type service struct {
	desc *grpc.ServiceDesc
	impl any
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *services) RegisterService(desc *grpc.ServiceDesc, impl any) {
	*s = append(*s, service{desc, impl})
}

// NewServer returns a server without services, NOT_SERVING until SetServing.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxRecvBytes == 0 {
		cfg.MaxRecvBytes = defaultRecvBytes
	}
	edge := &edge{log: cfg.Logger, roles: cfg.Roles, calls: newCalls(cfg.Registry)}
	s := &Server{
		options: []grpc.ServerOption{
			grpc.Creds(&serverTransport{files: cfg.Credentials.files, log: cfg.Logger}),
			grpc.MaxHeaderListSize(maxHeaderBytes),
			grpc.MaxConcurrentStreams(maxStreams),
			grpc.MaxRecvMsgSize(cfg.MaxRecvBytes),
			grpc.ForceServerCodecV2(newCodec()),
			grpc.NumStreamWorkers(cfg.CallsAtOnce),
			grpc.ReadBufferSize(readBufferBytes),
			grpc.ConnectionTimeout(handshakeTimeout),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPingAfter, Timeout: serverPingTimeout}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
			grpc.WaitForHandlers(true),
			grpc.UnaryInterceptor(edge.unary),
			grpc.StreamInterceptor(edge.stream),
		},
		reflection: cfg.Reflection,
		health:     health.NewServer(),
		calls:      edge.calls,
	}
	if cfg.FixedWindows {
		s.options = append(s.options, grpc.StaticStreamWindowSize(windowBytes), grpc.StaticConnWindowSize(windowBytes),
			grpc.WriteBufferSize(writeBufferBytes),
			grpc.HeaderTableSize(0)) // the headers of an only call need not be remembered
	}
	s.SetServing("", false)
	healthv1.RegisterHealthServer(&s.services, s.health)
	return s
}

// GRPC is where services are registered, before Serve.
func (s *Server) GRPC() grpc.ServiceRegistrar { return &s.services }

// start makes the gRPC server.
func (s *Server) start() *grpc.Server {
	g := grpc.NewServer(s.options...)
	for _, service := range s.services {
		g.RegisterService(service.desc, service.impl)
	}
	if s.reflection {
		options := reflection.ServerOptions{Services: g, DescriptorResolver: described.Resolver()}
		reflectionv1.RegisterServerReflectionServer(g, reflection.NewServerV1(options))
		reflectionv1alpha.RegisterServerReflectionServer(g, reflection.NewServer(options))
	}
	s.calls.learn(g.GetServiceInfo())
	return g
}

// SetServing sets the health of a service; "" is the whole server's.
func (s *Server) SetServing(service string, ok bool) {
	state := healthv1.HealthCheckResponse_NOT_SERVING
	if ok {
		state = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(service, state)
}

// Serve serves lis, which it closes, until ctx ends: then health turns to
// NOT_SERVING, calls have 2 s to end, and what is left is cut off. It returns
// nil when ctx has ended and all handlers have returned. Long streams should
// end by themselves when their component does.
func (s *Server) Serve(ctx context.Context, lis net.Listener) error {
	g := s.start()
	served := make(chan error, 1)
	go func() { served <- g.Serve(lis) }()
	select {
	case err := <-served:
		g.Stop()
		return fmt.Errorf("serve %s: %w", lis.Addr(), err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	stop(g)
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", lis.Addr(), err)
	}
	return nil
}

func stop(g *grpc.Server) {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		g.GracefulStop()
	}()
	timer := time.NewTimer(gracefulStop)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		g.Stop()
		<-stopped
	}
}
