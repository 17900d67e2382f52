package rpc_test

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// service is a RouterService whose Pick and Watch do what a test wants.
type service struct {
	routerv1.UnimplementedRouterServiceServer

	pick  func(ctx context.Context) error
	watch func(stream grpc.ServerStream) error
}

func (s *service) Pick(ctx context.Context, _ *routerv1.PickRequest) (*routerv1.PickResponse, error) {
	if err := s.pick(ctx); err != nil {
		return nil, err
	}
	return &routerv1.PickResponse{}, nil
}

func (s *service) Watch(_ *routerv1.WatchRequest, stream grpc.ServerStreamingServer[routerv1.WatchResponse]) error {
	return s.watch(stream)
}

var silent = slog.New(slog.DiscardHandler)

func newCredentials(t *testing.T, s rpc.Security) *rpc.Credentials {
	t.Helper()
	c, err := rpc.NewCredentials(s, silent)
	must(t, err)
	return c
}

// serve runs a server with the service until the test ends.
func serve(t *testing.T, cfg rpc.ServerConfig, svc *service, lis net.Listener) *rpc.Server {
	t.Helper()
	if cfg.Credentials == nil {
		cfg.Credentials = newCredentials(t, rpc.Security{})
	}
	if cfg.Logger == nil {
		cfg.Logger = silent
	}
	s := rpc.NewServer(cfg)
	routerv1.RegisterRouterServiceServer(s.GRPC(), svc)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, lis) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func dial(t *testing.T, cfg rpc.DialConfig) *grpc.ClientConn {
	t.Helper()
	if cfg.Credentials == nil {
		cfg.Credentials = newCredentials(t, rpc.Security{})
	}
	cfg.Logger = silent
	conn, err := rpc.Dial(cfg)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// pair is a server and a client over memory.
func pair(t *testing.T, cfg rpc.ServerConfig, svc *service) routerv1.RouterServiceClient {
	t.Helper()
	lis := bufconn.Listen(1 << 16)
	serve(t, cfg, svc, lis)
	return routerv1.NewRouterServiceClient(dial(t, rpc.DialConfig{
		Addresses: []string{"memory:1"},
		Dialer:    func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) },
	}))
}

func listen(t *testing.T, c *rpc.Credentials) net.Listener {
	t.Helper()
	lis, err := c.Listen(t.Context(), "grpc", "127.0.0.1:0")
	must(t, err)
	return lis
}

// soon is a context that ends a hanging test, and the calls of one that passed.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ended waits until a stream ends.
func ended(stream grpc.ServerStreamingClient[routerv1.WatchResponse]) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}
