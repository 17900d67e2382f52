package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

var fine = &service{pick: func(context.Context) error { return nil }}

func TestDialTakesTheFirstThatAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		up := map[string]*bufconn.Listener{"b.example:7400": bufconn.Listen(1 << 16)}
		serve(t, rpc.ServerConfig{}, fine, up["b.example:7400"])
		var asked []string
		var mu sync.Mutex
		conn := dial(t, rpc.DialConfig{
			Addresses: []string{"a.example:7400", "b.example:7400"},
			Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
				mu.Lock()
				asked = append(asked, addr)
				mu.Unlock()
				if up[addr] == nil {
					return nil, errors.New("connection refused")
				}
				return up[addr].DialContext(ctx)
			},
		})
		_, err := routerv1.NewRouterServiceClient(conn).Pick(t.Context(), &routerv1.PickRequest{})
		must(t, err)
		if !slices.Equal(asked, []string{"a.example:7400", "b.example:7400"}) {
			t.Errorf("asked %v", asked)
		}
	})
}

func TestDialComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 16)
		serve(t, rpc.ServerConfig{}, fine, lis)
		var mu sync.Mutex
		var attempts []time.Duration
		start, up := time.Now(), false
		conn := dial(t, rpc.DialConfig{
			Addresses: []string{"name.example:7400"},
			Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
				// The name comes unresolved each time.
				if addr != "name.example:7400" {
					t.Errorf("asked for %s", addr)
				}
				mu.Lock()
				defer mu.Unlock()
				attempts = append(attempts, time.Since(start))
				if !up {
					return nil, errors.New("connection refused")
				}
				return lis.DialContext(ctx)
			},
		})
		client := routerv1.NewRouterServiceClient(conn)
		for time.Since(start) < time.Minute {
			if _, err := client.Pick(t.Context(), &routerv1.PickRequest{}); !errors.Is(err, member.ErrUnavailable) {
				t.Fatalf("got %v", err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		mu.Lock()
		for i, at := range attempts[1:] {
			if gap := at - attempts[i]; gap < 100*time.Millisecond || gap > 4*time.Second {
				t.Errorf("attempts %v and %v are %v apart", i, i+1, gap)
			}
		}
		up = true
		mu.Unlock()
		time.Sleep(4 * time.Second)
		_, err := client.Pick(t.Context(), &routerv1.PickRequest{})
		must(t, err)
	})
}

func TestUnreachableServerFailsAtOnceAndPlainly(t *testing.T) {
	t.Parallel()
	const addr = "127.0.0.1:1" // which is given to nobody who asks for any
	conn := dial(t, rpc.DialConfig{Addresses: []string{addr}})
	_, err := routerv1.NewRouterServiceClient(conn).Pick(soon(t), &routerv1.PickRequest{})
	if !errors.Is(err, member.ErrUnavailable) || err.Error() != "dial tcp "+addr+": connect: connection refused" {
		t.Errorf("got %v", err)
	}
}

// far is a connection whose other end is on another host.
type far struct{ net.Conn }

func (far) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 7400} }

func TestPlaintextDialBeyondLoopback(t *testing.T) {
	t.Parallel()
	refused := func(err error) bool {
		return err != nil && strings.Contains(err.Error(), "insecure") && strings.Contains(err.Error(), "10.0.0.1:7400")
	}
	plain := newCredentials(t, rpc.Security{})
	if _, err := rpc.Dial(rpc.DialConfig{Addresses: []string{"10.0.0.1:7400"}, Credentials: plain}); !refused(err) {
		t.Errorf("an address beyond loopback: %v", err)
	}

	// A name shows where it leads only when it is resolved.
	lis := bufconn.Listen(1 << 16)
	serve(t, rpc.ServerConfig{}, fine, lis)
	log := &lockedBuffer{}
	pick := func(s rpc.Security) error {
		conn, err := rpc.Dial(rpc.DialConfig{
			Addresses: []string{"name.example:7400"}, Credentials: newCredentials(t, s),
			Logger: slog.New(slog.NewTextHandler(log, nil)),
			Dialer: func(ctx context.Context, _ string) (net.Conn, error) {
				c, err := lis.DialContext(ctx)
				return far{c}, err
			},
		})
		must(t, err)
		defer conn.Close()
		_, err = routerv1.NewRouterServiceClient(conn).Pick(soon(t), &routerv1.PickRequest{})
		return err
	}
	if err := pick(rpc.Security{}); !refused(err) {
		t.Errorf("a name beyond loopback: %v", err)
	}
	must(t, pick(rpc.Security{Insecure: true}))
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, log)
	}
}

func TestDialRefusesBadAddresses(t *testing.T) {
	t.Parallel()
	for _, addrs := range [][]string{nil, {""}, {"host"}, {"host:0"}, {"host:http"}, {"host:7400", "a b:1"}} {
		if _, err := rpc.Dial(rpc.DialConfig{
			Addresses: addrs, Credentials: newCredentials(t, rpc.Security{}),
		}); !errors.Is(err, member.ErrInvalid) {
			t.Errorf("%q: %v", addrs, err)
		}
	}
}
