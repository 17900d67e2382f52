package doors

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/buddyring/buddyring/internal/netlab"
)

// The ports of the service that a server of the pool is there for.
const (
	httpPort = "8080"
	grpcPort = "9090"
)

// stopLimit is how long a service lets requests end that are under way.
const stopLimit = 10 * time.Second

// service is what a server of the pool is there for, by HTTP and by gRPC.
type service struct {
	http  *http.Server
	grpc  *grpc.Server
	ended sync.WaitGroup
}

// serve starts the service of a host, which answers with the host's name.
func serve(ctx context.Context, host *netlab.Host) (*service, error) {
	s := &service{
		http: &http.Server{
			ReadHeaderTimeout: stopLimit,
			Handler:           http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, host.Name()) }),
		},
		grpc: grpc.NewServer(grpc.WaitForHandlers(true)),
	}
	healthv1.RegisterHealthServer(s.grpc, health.NewServer())
	web, err := host.Listen(ctx, "tcp", net.JoinHostPort(host.Addr().String(), httpPort))
	if err != nil {
		return nil, err
	}
	rpc, err := host.Listen(ctx, "tcp", net.JoinHostPort(host.Addr().String(), grpcPort))
	if err != nil {
		return nil, errors.Join(err, web.Close())
	}
	s.ended.Go(func() { _ = s.http.Serve(web) })
	s.ended.Go(func() { _ = s.grpc.Serve(rpc) })
	return s, nil
}

// stop lets what is under way end, as a service does at SIGTERM.
func (s *service) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	var both sync.WaitGroup
	both.Go(s.grpc.GracefulStop)
	err := s.http.Shutdown(ctx)
	both.Wait()
	s.ended.Wait()
	return err
}

// close ends it at once.
func (s *service) close() error {
	s.grpc.Stop()
	err := s.http.Close()
	s.ended.Wait()
	return err
}
