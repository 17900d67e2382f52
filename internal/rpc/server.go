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
)

// Limits of every server.
const (
	maxHeaderBytes   = 8 << 10
	maxStreams       = 64
	handshakeTimeout = 10 * time.Second
	defaultRecvBytes = 64 << 10
	// readBufferBytes is held by each connection, and messages are small.
	readBufferBytes = 4 << 10

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
	// MaxRecvBytes bounds a received message; 64 KiB when 0.
	MaxRecvBytes int
	// Reflection serves the descriptors, so that grpcurl needs no files.
	Reflection bool
	// Roles says which roles may call a service, by the service's full name. A
	// service that is not named may be called with any certificate of the CA.
	Roles map[string][]Role
}

// Server is a gRPC server with the limits, metrics, error mapping and health
// service that all of buddyring's have.
type Server struct {
	grpc    *grpc.Server
	health  *health.Server
	metrics *metrics
}

// NewServer returns a server without services, NOT_SERVING until SetServing.
func NewServer(cfg ServerConfig) *Server {
	if cfg.MaxRecvBytes == 0 {
		cfg.MaxRecvBytes = defaultRecvBytes
	}
	m := newMetrics(cfg.Registry)
	edge := &edge{log: cfg.Logger, roles: cfg.Roles}
	s := &Server{
		grpc: grpc.NewServer(
			grpc.Creds(&serverTransport{files: cfg.Credentials.files, log: cfg.Logger}),
			grpc.MaxHeaderListSize(maxHeaderBytes),
			grpc.MaxConcurrentStreams(maxStreams),
			grpc.MaxRecvMsgSize(cfg.MaxRecvBytes),
			grpc.ForceServerCodecV2(newCodec()),
			grpc.ReadBufferSize(readBufferBytes),
			grpc.ConnectionTimeout(handshakeTimeout),
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPingAfter, Timeout: serverPingTimeout}),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
			grpc.WaitForHandlers(true),
			grpc.ChainUnaryInterceptor(m.unary, m.counters.UnaryServerInterceptor(), edge.unary),
			grpc.ChainStreamInterceptor(m.counters.StreamServerInterceptor(), edge.stream),
		),
		health:  health.NewServer(),
		metrics: m,
	}
	s.SetServing("", false)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	if cfg.Reflection {
		reflection.Register(s.grpc)
	}
	return s
}

// GRPC is where services are registered, before Serve.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

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
	s.metrics.counters.InitializeMetrics(s.grpc)
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(lis) }()
	select {
	case err := <-served:
		s.grpc.Stop()
		return fmt.Errorf("serve %s: %w", lis.Addr(), err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.stop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", lis.Addr(), err)
	}
	return nil
}

func (s *Server) stop() {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	timer := time.NewTimer(gracefulStop)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		s.grpc.Stop()
		<-stopped
	}
}
