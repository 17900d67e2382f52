package xdsbench

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Server is one server of a pool: it answers health checks, each after the time
// that its service name says.
type Server struct {
	healthv1.UnimplementedHealthServer

	// ID and Address are the server's.
	ID, Address string
	// Calls counts what has arrived, last is when the latest did, in nanoseconds.
	Calls atomic.Int64
	last  atomic.Int64
	grpc  *grpc.Server
}

// NewServer starts a server on a free port of loopback.
func NewServer(ctx context.Context, id string) (*Server, error) {
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	s := &Server{ID: id, Address: lis.Addr().String(), grpc: grpc.NewServer(grpc.WaitForHandlers(true))}
	healthv1.RegisterHealthServer(s.grpc, s)
	go func() { _ = s.grpc.Serve(lis) }()
	return s, nil
}

// Check implements healthv1.HealthServer.
func (s *Server) Check(_ context.Context, req *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	s.Calls.Add(1)
	s.last.Store(time.Now().UnixNano())
	if pause, err := time.ParseDuration(req.GetService()); err == nil {
		time.Sleep(pause)
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

// Last is when the latest call arrived.
func (s *Server) Last() time.Time { return time.Unix(0, s.last.Load()) }

// Stop ends the server when its calls have ended.
func (s *Server) Stop() { s.grpc.GracefulStop() }

// Row is the server as a member, active and with the default weight.
func (s *Server) Row(change ...func(*pb.Server)) *pb.Server {
	weight := uint32(100)
	row := &pb.Server{
		ServerId: s.ID, Phase: pb.Phase_PHASE_ACTIVE, Incarnation: 1,
		Spec: &pb.ServerSpec{
			Endpoints: []*pb.Endpoint{{Name: "grpc", Address: s.Address, Protocol: "grpc"}}, Zone: "a", Weight: &weight,
		},
	}
	for _, f := range change {
		f(row)
	}
	return row
}
