package client_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/buddyring/buddyring/client"
)

// server serves gRPC under the address that a session gives to an id, and says in
// a header who it is.
func (w *world) server(id, port string) (stop func()) {
	srv := grpc.NewServer(grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := grpc.SetHeader(ctx, metadata.Pairs("server", id)); err != nil {
				return nil, err
			}
			return handler(ctx, req)
		}), grpc.StreamInterceptor(
		func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := stream.SetHeader(metadata.Pairs("server", id)); err != nil {
				return err
			}
			return handler(srv, stream)
		}))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	return w.serve(id+".test:"+port, srv)
}

// connect returns a connection to a target.
func (w *world) connect(target string, cfg client.Config) *grpc.ClientConn {
	w.t.Helper()
	cfg.Pool = ""
	conn, err := grpc.NewClient(target, client.DialOption(cfg), grpc.WithContextDialer(w.dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// call makes one call and returns who answered.
func call(ctx context.Context, conn *grpc.ClientConn, opts ...grpc.CallOption) (string, error) {
	var header metadata.MD
	_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, append(opts, grpc.Header(&header))...)
	return strings.Join(header.Get("server"), ""), err
}

// calls counts who answers n calls.
func calls(t *testing.T, conn *grpc.ClientConn, n int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range n {
		id, err := call(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		counts[id]++
	}
	return counts
}

// connected has all connections come about.
func connected(t *testing.T, conn *grpc.ClientConn, s *session, servers ...string) {
	t.Helper()
	conn.Connect()
	synctest.Wait()
	s.snapshot(1, 1, servers...)
	synctest.Wait()
}

func TestGRPC_CallsGoToThePool(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		for _, id := range []string{"a", "b", "c"} {
			w.server(id, "80")
		}
		r := w.router(first)
		conn := w.connect("buddyring:///web", w.config(first))
		conn.Connect()
		s := r.session()
		connected(t, conn, s, "a", "b", "suspect c")
		if got := calls(t, conn, 100); got["a"] < 20 || got["b"] < 20 || got["c"] > 0 {
			t.Errorf("with c suspect: %v", got)
		}
		s.delta(1, 2, []string{"suspect a"}, nil)
		if got := calls(t, conn, 50); got["b"] != 50 {
			t.Errorf("with a suspect: %v", got)
		}
		s.delta(1, 3, nil, []string{"b"})
		if got := calls(t, conn, 100); got["a"] < 20 || got["c"] < 20 || got["b"] > 0 {
			t.Errorf("with suspects only: %v", got)
		}
		r.kill()
		time.Sleep(time.Minute)
		if got := calls(t, conn, 100); got["a"]+got["c"] != 100 {
			t.Errorf("without a router: %v", got)
		}
	})
}

func TestGRPC_SuspectTakesOverAtOnceWhenNobodyElseIsConnected(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.server("a", "80")
		w.server("b", "80")
		conn := w.connect("buddyring:///web", w.config(first))
		r := w.router(first)
		conn.Connect()
		connected(t, conn, r.session(), "a", "suspect b")
		if got := calls(t, conn, 50); got["a"] != 50 {
			t.Errorf("with a connected: %v", got)
		}
		stop()
		// Until the client has read the end of its connection, a call on it is lost.
		synctest.Wait()
		if got := calls(t, conn, 50); got["b"] != 50 {
			t.Errorf("with a dead: %v", got)
		}
	})
}

// TestGRPC_RollingRestartFailsNothing drains, stops and starts each server under
// load, and kills the router after the last one.
func TestGRPC_RollingRestartFailsNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		ids := []string{"a", "b", "c"}
		stops := map[string]func(){}
		for _, id := range ids {
			stops[id] = w.server(id, "80")
		}
		conn := w.connect("buddyring:///web", w.config(first))
		r := w.router(first)
		conn.Connect()
		s := r.session()
		connected(t, conn, s, ids...)
		ctx, cancel := context.WithCancel(t.Context())
		var load sync.WaitGroup
		var asked, failed atomic.Int64
		for range 4 {
			load.Go(func() {
				for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
					asked.Add(1)
					if _, err := call(context.WithoutCancel(ctx), conn); err != nil {
						failed.Add(1)
						t.Log(err)
					}
				}
			})
		}
		for i, id := range ids {
			s.delta(1, uint64(2*i+2), nil, []string{id})
			time.Sleep(10 * time.Millisecond)
			stops[id]()
			time.Sleep(10 * time.Millisecond)
			w.server(id, "80")
			s.delta(1, uint64(2*i+3), []string{id}, nil)
			time.Sleep(10 * time.Millisecond)
		}
		r.kill()
		time.Sleep(100 * time.Millisecond)
		cancel()
		load.Wait()
		if failed.Load() > 0 || asked.Load() < 400 {
			t.Errorf("%d of %d calls failed", failed.Load(), asked.Load())
		}
	})
}

func TestGRPC_WeightsCount(t *testing.T) {
	t.Parallel()
	for _, policy := range []client.Policy{client.P2C, client.RoundRobin, client.Random} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				w.server("a", "80")
				w.server("b", "80")
				cfg := w.config(first)
				cfg.Policy = policy
				conn := w.connect("buddyring:///web", cfg)
				r := w.router(first)
				conn.Connect()
				connected(t, conn, r.session(), "a*300", "b*100")
				if got := calls(t, conn, 400); got["a"] < 260 || got["a"] > 340 {
					t.Errorf("three to one: %v", got)
				}
			})
		})
	}
}

func TestGRPC_P2CGoesByCallsInFlight(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.server("a", "80")
		w.server("b", "80")
		conn := w.connect("buddyring:///web", w.config(first))
		r := w.router(first)
		conn.Connect()
		connected(t, conn, r.session(), "a", "b")
		ctx, cancel := context.WithCancel(t.Context())
		counts := map[string]int{}
		for range 20 {
			stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			header, err := stream.Header()
			if err != nil {
				t.Fatal(err)
			}
			counts[strings.Join(header.Get("server"), "")]++
		}
		cancel()
		if counts["a"] != 10 {
			t.Errorf("twenty streams: %v", counts)
		}
	})
}

func TestGRPC_KeyOfACallAndZoneOfTheProgram(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		for _, id := range []string{"a", "b", "c"} {
			w.server(id, "80")
		}
		cfg := w.config(first)
		cfg.Zone = "z1"
		conn := w.connect("buddyring:///web", cfg)
		r := w.router(first)
		conn.Connect()
		s := r.session()
		connected(t, conn, s, "z1/a", "z2/b", "z2/c")
		homes := map[string]bool{}
		s.snapshot(1, 2, "a", "b", "c")
		for i := range 20 {
			ctx := client.WithKey(t.Context(), fmt.Sprintf("user-%d", i))
			home, err := call(ctx, conn)
			if err != nil {
				t.Fatal(err)
			}
			homes[home] = true
			for range 5 {
				if id, err := call(ctx, conn); err != nil || id != home {
					t.Fatalf("user-%d is at %s and %s, %v", i, home, id, err)
				}
			}
		}
		if len(homes) != 3 {
			t.Errorf("twenty keys are at %v", homes)
		}
		s.snapshot(1, 3, "z1/a", "z2/b", "z3/c")
		synctest.Wait()
		if got := calls(t, conn, 50); got["a"] != 50 {
			t.Errorf("of three zones: %v", got)
		}
	})
}

func TestGRPC_EndpointByName(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.server("a", "80")
		w.server("b", "81")
		conn := w.connect("buddyring:///web?endpoint=admin", w.config(first))
		r := w.router(first)
		conn.Connect()
		connected(t, conn, r.session(), "a", "b")
		if got := calls(t, conn, 10); got["b"] != 10 {
			t.Errorf("admin endpoints: %v", got)
		}
	})
}

func TestGRPC_BalancersOfGRPCGetTheBestStateOnly(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		for _, id := range []string{"a", "b", "c"} {
			w.server(id, "80")
		}
		cfg := w.config(first)
		cfg.ServiceConfig = `{"loadBalancingConfig": [{"round_robin": {}}]}`
		conn := w.connect("buddyring:///web", cfg)
		r := w.router(first)
		conn.Connect()
		s := r.session()
		connected(t, conn, s, "a", "b", "suspect c")
		if got := calls(t, conn, 100); got["a"] != 50 || got["b"] != 50 {
			t.Errorf("with c suspect: %v", got)
		}
		s.snapshot(1, 2, "suspect c", "held_back a")
		synctest.Wait()
		if got := calls(t, conn, 10); got["c"] != 10 {
			t.Errorf("with c suspect and nobody active: %v", got)
		}
	})
}

// Connections of one DialOption that have been idle begin with the same list, and
// go their own ways from there.
func TestGRPC_ConnectionsAfterIdleShareNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.server("a", "80")
		w.server("b", "80")
		option := client.DialOption(w.config(first))
		r := w.router(first)
		var conns [2]*grpc.ClientConn
		for i := range conns {
			conn, err := grpc.NewClient("buddyring:///web", option, grpc.WithContextDialer(w.dial),
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			conns[i] = conn
			conn.Connect()
			connected(t, conn, r.session(), "a")
			calls(t, conn, 1)
		}
		r.kill()
		time.Sleep(31 * time.Minute)
		r = w.router(first)
		for i, conn := range conns {
			calls(t, conn, 1)
			s := r.session()
			for revision, server := range []string{"b", "a", "b"} {
				s.snapshot(1, uint64(2+revision), server)
				synctest.Wait()
				if got := calls(t, conn, 1); got[server] != 1 {
					t.Errorf("connection %d: %v, want %s", i, got, server)
				}
			}
		}
	})
}

func TestGRPC_IdleConnectionForgetsNothing(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.server("a", "80")
		conn := w.connect("buddyring:///web", w.config(first))
		r := w.router(first)
		conn.Connect()
		connected(t, conn, r.session(), "a")
		r.kill()
		if got := calls(t, conn, 1); got["a"] != 1 {
			t.Error(got)
		}
		time.Sleep(31 * time.Minute)
		if got := conn.GetState().String(); got != "IDLE" {
			t.Fatalf("the connection is %s", got)
		}
		if got := calls(t, conn, 1); got["a"] != 1 {
			t.Error(got)
		}
	})
}
