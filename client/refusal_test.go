package client_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/client"
)

func TestGRPC_UnknownPoolFailsTheFirstCall(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.server("a", "80")
		r := w.refusing(first, status.Error(codes.NotFound, "pool web: not found"))
		conn := w.connect("buddyring:///web", w.config(first))
		_, err := call(t.Context(), conn)
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "pool web: not found") {
			t.Errorf("the call: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := call(ctx, conn, grpc.WaitForReady(true)); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("a call that waits: %v", err)
		}
		r.refuse(nil)
		go call(t.Context(), conn, grpc.WaitForReady(true))
		r.session().snapshot(1, 1, "a")
		if got := calls(t, conn, 1); got["a"] != 1 {
			t.Errorf("once there is a pool: %v", got)
		}
	})
}

func TestGRPC_EmptyPoolFailsCallsWithTheReason(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		w.server("a", "80")
		conn := w.connect("buddyring:///web", w.config(first))
		r := w.router(first)
		conn.Connect()
		s := r.session()
		for _, before := range [][]string{nil, {"a"}} {
			connected(t, conn, s, before...)
			s.snapshot(1, 1)
			synctest.Wait()
			_, err := call(t.Context(), conn)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), client.ErrNoServer.Error()) {
				t.Errorf("after %v: %v", before, err)
			}
		}
		s.snapshot(1, 2, "a")
		synctest.Wait()
		if got := calls(t, conn, 1); got["a"] != 1 {
			t.Errorf("with a server again: %v", got)
		}
	})
}

func TestGRPC_MistakesFailCallsWithTheReason(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		target, reason string
		change         func(*client.Config)
	}{
		"pool":           {"buddyring:///Web!", "Pool", func(*client.Config) {}},
		"routers":        {"buddyring:///web", "Routers", func(c *client.Config) { c.Routers = nil }},
		"service config": {"buddyring:///web", "ServiceConfig", func(c *client.Config) { c.ServiceConfig = "{" }},
		"balancer": {"buddyring:///web", "ServiceConfig", func(c *client.Config) {
			c.ServiceConfig = `{"loadBalancingConfig": [{"buddyring": {"policy": "best"}}]}`
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(t *testing.T, w *world) {
				cfg := w.config(first)
				c.change(&cfg)
				_, err := call(t.Context(), w.connect(c.target, cfg))
				if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), c.reason) {
					t.Errorf("the call: %v", err)
				}
			})
		})
	}
}

func TestGRPC_BalancerNeedsThisResolver(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		conn, err := grpc.NewClient("passthrough:///a.test:80", grpc.WithContextDialer(w.dial),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"buddyring": {}}]}`))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := call(ctx, conn); err == nil {
			t.Error("a call through a balancer without a pool succeeds")
		}
	})
}
