package xdsbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/xds"

	"github.com/buddyring/buddyring/internal/freeport"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	router "github.com/buddyring/buddyring/router/server"
)

// Config is what a lab is made of.
type Config struct {
	// Dir is where the router keeps its state.
	Dir string
	// RouterAddress is where the router is to listen; anywhere on loopback if empty.
	RouterAddress string
	// Coordinator and Router are their certificates; plaintext if zero.
	Coordinator, Router rpc.Security
}

// Lab is a router between a played coordinator, servers and xDS clients.
type Lab struct {
	*Coordinator

	// Registry has the router's metrics.
	Registry *prometheus.Registry
	// RouterAddress is where the router listens, the same after a restart.
	RouterAddress string

	cfg         Config
	coordinator string
	stops       []func()
	stopRouter  func() error
}

// NewLab returns a lab without a router.
func NewLab(ctx context.Context, cfg Config) (*Lab, error) {
	l := &Lab{Coordinator: newCoordinator(), cfg: cfg}
	credentials, err := rpc.NewCredentials(cfg.Coordinator, silent())
	if err != nil {
		return nil, fmt.Errorf("start coordinator: %w", err)
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start coordinator: %w", err)
	}
	l.coordinator = lis.Addr().String()
	srv := rpc.NewServer(rpc.ServerConfig{Credentials: credentials, Logger: silent()})
	pb.RegisterMembershipServiceServer(srv.GRPC(), l.Coordinator)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(serving, lis)
	}()
	l.stops = append(l.stops, func() { stop(); <-served })
	if l.RouterAddress = cfg.RouterAddress; l.RouterAddress == "" {
		if l.RouterAddress, err = freeport.Find(ctx); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	return l, nil
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// Servers starts n servers, which the lab stops.
func (l *Lab) Servers(ctx context.Context, n int) ([]*Server, error) {
	servers := make([]*Server, n)
	for i := range servers {
		s, err := NewServer(ctx, fmt.Sprintf("s%d", i+1))
		if err != nil {
			return nil, err
		}
		l.stops = append(l.stops, s.grpc.Stop)
		servers[i] = s
	}
	return servers, nil
}

// StartRouter starts the router, or starts it again, and returns when it listens.
func (l *Lab) StartRouter(ctx context.Context) error {
	credentials, err := rpc.NewCredentials(l.cfg.Router, silent())
	if err != nil {
		return fmt.Errorf("start router: %w", err)
	}
	listening := make(chan struct{})
	listen := func(ctx context.Context, name, address string) (net.Listener, error) {
		if name == "http" {
			defer close(listening)
		}
		return credentials.Listen(ctx, name, address)
	}
	l.Registry = prometheus.NewRegistry()
	s, err := router.New(router.Config{
		ID: "r1", Listen: l.RouterAddress, HTTPListen: "127.0.0.1:0",
		Coordinators: []string{l.coordinator}, StateDir: l.cfg.Dir, Version: "lab",
	}, router.Deps{Credentials: credentials, Registry: l.Registry, Logger: silent(), Listen: listen})
	if err != nil {
		return fmt.Errorf("start router: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	l.stopRouter = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	select {
	case <-listening:
		return nil
	case err := <-ended:
		ended <- err
		return fmt.Errorf("start router: %w", err)
	}
}

// StopRouter stops the router, which can be started again.
func (l *Lab) StopRouter() error { return l.stopRouter() }

// Confirmations is how often clients have confirmed assignments of this run of
// the router.
func (l *Lab) Confirmations() int {
	families, err := l.Registry.Gather()
	if err != nil {
		return 0 // it will be asked again
	}
	total := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := m.GetLabel()
			if f.GetName() == "buddyring_router_xds_answers_total" && labels[0].GetValue() == "eds" && labels[1].GetValue() == "ack" {
				total += m.GetCounter().GetValue()
			}
		}
	}
	return int(total)
}

// Forget removes the state of a router that does not run.
func (l *Lab) Forget() error {
	if err := os.RemoveAll(l.cfg.Dir); err != nil {
		return fmt.Errorf("forget router state: %w", err)
	}
	return nil
}

// Close stops everything.
func (l *Lab) Close() error {
	var err error
	if l.stopRouter != nil {
		err = l.stopRouter()
	}
	for _, stop := range l.stops {
		stop()
	}
	return err
}

// Bootstrap is a plaintext client's bootstrap, as GRPC_XDS_BOOTSTRAP_CONFIG would
// have it.
func (l *Lab) Bootstrap() []byte {
	out, err := json.Marshal(map[string]any{
		"xds_servers": []any{map[string]any{
			"server_uri": l.RouterAddress, "channel_creds": []any{map[string]any{"type": "insecure"}},
			"server_features": []string{"xds_v3", "ignore_resource_deletion"},
		}},
		"node": map[string]any{"id": "lab"},
	})
	if err != nil {
		return nil // strings can be encoded
	}
	return out
}

// Dial returns an xDS client of a target like xds:///web.
func Dial(bootstrap []byte, target string) (*grpc.ClientConn, error) {
	resolver, err := xds.NewXDSResolverWithConfigForTesting(bootstrap)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	conn, err := grpc.NewClient(target, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return conn, nil
}
