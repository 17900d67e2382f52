package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	"github.com/buddyring/buddyring/router/server"
)

const (
	pool    = "default"
	storeID = "bench"
	// firstRevision is that of the snapshot.
	firstRevision = 1
	// maxConnections is more than any experiment makes.
	maxConnections = 50_000
)

// feed is a coordinator that publishes what it is told to.
type feed struct {
	pb.UnimplementedMembershipServiceServer

	servers  []*pb.Server
	revision uint64
	// publish carries one delta at a time, or none for a bookmark; it is taken once
	// the delta is sent.
	publish chan *pb.Delta
}

// Subscribe serves one router.
func (f *feed) Subscribe(stream pb.MembershipService_SubscribeServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				return
			}
		}
	}()
	revision := uint64(firstRevision)
	position := func() *pb.Position { return &pb.Position{Pool: pool, Epoch: 1, Revision: revision} }
	bookmark := func() *pb.SubscribeResponse {
		return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Bookmark{Bookmark: &pb.Bookmark{Positions: []*pb.Position{position()}}}}
	}
	for _, m := range []*pb.SubscribeResponse{
		{Message: &pb.SubscribeResponse_Start{Start: &pb.StreamStart{StoreId: storeID, Epoch: 1, BookmarkInterval: durationpb.New(time.Second)}}},
		{Message: &pb.SubscribeResponse_Snapshot{Snapshot: &pb.Snapshot{Position: position(), Servers: f.servers}}},
		{Message: &pb.SubscribeResponse_SoftSynced{SoftSynced: &pb.SoftSynced{Epoch: 1}}},
		bookmark(),
	} {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		m := bookmark()
		select {
		case d := <-f.publish:
			d.FromRevision = revision
			revision++
			d.Position = position()
			m = &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Delta{Delta: d}}
		case <-tick.C:
		case <-stream.Context().Done():
			return nil
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// fleet returns rows of n servers, as large as usual ones.
func fleet(n int, weight uint32) []*pb.Server {
	rows := make([]*pb.Server, n)
	for i := range rows {
		id := fmt.Sprintf("web-%05d", i)
		rows[i] = &pb.Server{
			ServerId: id, Pool: pool, Phase: pb.Phase_PHASE_ACTIVE, Incarnation: 1,
			Spec: &pb.ServerSpec{
				Endpoints: []*pb.Endpoint{{Name: "http", Address: fmt.Sprintf("10.%d.%d.%d:8080", i>>16&255, i>>8&255, i&255), Protocol: "http"}},
				Zone:      fmt.Sprintf("eu-%d", i%3), Weight: &weight, Labels: map[string]string{"version": "2026.11"},
			},
		}
	}
	return rows
}

// router is a running router and its coordinator.
type router struct {
	feed     *feed
	registry *prometheus.Registry
	address  string
	stop     func() error
}

// startRouter runs a router of a pool of n servers, and returns once it serves.
func startRouter(ctx context.Context, n int) (_ *router, err error) {
	dir, err := os.MkdirTemp("", "bench-router-")
	if err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	log := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(rpc.Security{}, log)
	if err != nil {
		return nil, err
	}
	f := &feed{servers: fleet(n, 100), publish: make(chan *pb.Delta)}
	upstream := bufconn.Listen(8 << 20)
	coordinator := rpc.NewServer(rpc.ServerConfig{Credentials: credentials, Logger: log})
	pb.RegisterMembershipServiceServer(coordinator.GRPC(), f)

	listening := make(chan string, 1)
	r := &router{feed: f, registry: prometheus.NewRegistry()}
	s, err := server.New(server.Config{
		ID: "bench", Listen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0", Coordinators: []string{"feed:1"}, StateDir: dir, Version: "bench",
		// All clients are on this host.
		Connections: quota.Limits{Total: maxConnections, PerSource: maxConnections},
	}, server.Deps{
		Credentials: credentials, Registry: r.registry, Logger: log,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return upstream.DialContext(ctx) },
		Listen: func(ctx context.Context, name, address string) (net.Listener, error) {
			lis, err := credentials.Listen(ctx, name, address)
			if err == nil && name == "grpc" {
				listening <- lis.Addr().String()
			}
			return lis, err
		},
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return coordinator.Serve(ctx, upstream) })
	g.Go(func() error { return s.Run(ctx) })
	r.stop = func() error {
		cancel()
		return errors.Join(g.Wait(), os.RemoveAll(dir))
	}
	for r.value("buddyring_router_connected") == 0 {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, r.stop()
		}
	}
	r.address = <-listening
	return r, nil
}

// change publishes a change and returns the revision that it leads to.
func (r *router) change(ctx context.Context, put []*pb.Server) (uint64, error) {
	if r.feed.revision == 0 {
		r.feed.revision = firstRevision
	}
	select {
	case r.feed.publish <- &pb.Delta{Put: put}:
		r.feed.revision++
		return r.feed.revision, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// value returns the sum of one of the router's metrics.
func (r *router) value(name string) float64 {
	families, err := r.registry.Gather()
	if err != nil {
		return 0
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
