package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/rpc"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	"github.com/buddyring/buddyring/router/server"
)

// What the examples use besides this package.
var (
	routerCreds = insecure.NewCredentials()
	serverCreds = insecure.NewCredentials()
)

// shop is a real router on loopback, and servers of a pool "web" that serve HTTP
// and gRPC.
type shop struct {
	routers []string
	cancel  context.CancelFunc
	running sync.WaitGroup
	dir     string
}

// openShop starts a router, and returns when that knows the servers.
func openShop(servers ...*coordinatorv1.Server) *shop {
	dir, err := os.MkdirTemp("", "shop")
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &shop{cancel: cancel, dir: dir}
	lis := listen()
	s.routers = []string{lis.Addr().String()}
	hub := &oneSnapshot{servers: servers, applied: make(chan struct{})}
	wire := bufconn.Listen(1 << 16)
	s.run(func() error {
		return serveGRPC(ctx, wire, func(g *grpc.Server) { coordinatorv1.RegisterMembershipServiceServer(g, hub) })
	})
	creds, err := rpc.NewCredentials(rpc.Security{}, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	r, err := server.New(server.Config{
		ID: "r1", Listen: s.routers[0], HTTPListen: "127.0.0.1:7502", Coordinators: []string{"coordinator.test:7400"},
		StateDir: dir, Version: "test",
	}, server.Deps{
		Credentials: creds, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return wire.DialContext(ctx) },
		Listen: func(_ context.Context, name, _ string) (net.Listener, error) {
			if name == "grpc" {
				return lis, nil
			}
			return bufconn.Listen(1), nil
		},
	})
	if err != nil {
		panic(err)
	}
	s.run(func() error { return r.Run(ctx) })
	<-hub.applied
	return s
}

func (s *shop) run(f func() error) {
	s.running.Go(func() {
		if err := f(); err != nil {
			panic(err)
		}
	})
}

func (s *shop) close() {
	s.cancel()
	s.running.Wait()
	if err := os.RemoveAll(s.dir); err != nil {
		panic(err)
	}
}

// openWeb opens a shop with servers that answer: web-1 and web-2 over HTTP and
// gRPC.
func openWeb() *shop {
	ctx, cancel := context.WithCancel(context.Background())
	var (
		started []func() error
		rows    []*coordinatorv1.Server
	)
	for _, id := range []string{"web-1", "web-2"} {
		h, g := listen(), listen()
		srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			_, _ = fmt.Fprintf(rw, "%s sells %s", req.Host, req.URL.Path)
		})}
		started = append(started, func() error {
			defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
			if err := srv.Serve(h); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}, func() error {
			return serveGRPC(ctx, g, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
		})
		rows = append(rows, serverRow(id, h.Addr().String(), g.Addr().String()))
	}
	s := openShop(rows...)
	router := s.cancel
	s.cancel = func() {
		cancel()
		router()
	}
	for _, f := range started {
		s.run(f)
	}
	return s
}

func serverRow(id, httpAddress, grpcAddress string) *coordinatorv1.Server {
	weight := uint32(100)
	return &coordinatorv1.Server{
		ServerId: id, Pool: "web", Phase: coordinatorv1.Phase_PHASE_ACTIVE, Incarnation: 1,
		Spec: &coordinatorv1.ServerSpec{Weight: &weight, Endpoints: []*coordinatorv1.Endpoint{
			{Name: "http", Address: httpAddress, Protocol: "http"}, {Name: "grpc", Address: grpcAddress, Protocol: "grpc"},
		}},
	}
}

func listen() net.Listener {
	lis, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return lis
}

func serveGRPC(ctx context.Context, lis net.Listener, register func(*grpc.Server)) error {
	srv := grpc.NewServer()
	register(srv)
	defer context.AfterFunc(ctx, srv.Stop)()
	return srv.Serve(lis)
}

// oneSnapshot is a coordinator whose pool never changes.
type oneSnapshot struct {
	coordinatorv1.UnimplementedMembershipServiceServer

	servers []*coordinatorv1.Server
	// applied is closed when a router has applied it.
	applied chan struct{}
	once    sync.Once
}

func (o *oneSnapshot) Subscribe(stream coordinatorv1.MembershipService_SubscribeServer) error {
	at := &coordinatorv1.Position{Pool: "web", Epoch: 1, Revision: 7}
	for _, m := range []*coordinatorv1.SubscribeResponse{
		{Message: &coordinatorv1.SubscribeResponse_Start{Start: &coordinatorv1.StreamStart{
			StoreId: "store", Epoch: 1, BookmarkInterval: durationpb.New(time.Second),
		}}},
		{Message: &coordinatorv1.SubscribeResponse_Snapshot{Snapshot: &coordinatorv1.Snapshot{Position: at, Servers: o.servers}}},
		{Message: &coordinatorv1.SubscribeResponse_SoftSynced{SoftSynced: &coordinatorv1.SoftSynced{Epoch: 1}}},
	} {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if len(req.GetAck().GetApplied()) > 0 {
			o.once.Do(func() { close(o.applied) })
		}
	}
}
