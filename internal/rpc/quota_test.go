package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// A connection has its place before the handshake, and gives it back when that fails
// or when it ends later.
func TestPlacesOfConnectionsWithTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	creds, client := newCredentials(t, ca.issue("c1", coordinatorURI)), newCredentials(t, ca.issue("db-1", agentURI))
	guard := quota.NewGuard(prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	lis := guard.Listener(listen(t, creds), "grpc", quota.Limits{Total: 2, PerSource: 2})
	serve(t, rpc.ServerConfig{Credentials: creds}, &service{pick: func(context.Context) error { return nil }}, lis)
	address := lis.Addr().String()

	silent, garbled := connect(t, address), connect(t, address)
	if !refused(address) {
		t.Error("a third connection is taken")
	}
	// There is a place again when the handshake has failed, and when a connection ends.
	_, err := garbled.Write([]byte("this is no handshake\n"))
	must(t, err)
	for range 2 {
		conn := dial(t, rpc.DialConfig{Addresses: []string{address}, Credentials: client, ServerRole: rpc.RoleCoordinator})
		picked(t, conn)
		if !refused(address) {
			t.Error("a third connection is taken besides one with TLS")
		}
		must(t, conn.Close())
	}
	must(t, silent.Close())
}

// picked returns when a call has come through.
func picked(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, tick := soon(t), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		_, err := routerv1.NewRouterServiceClient(conn).Pick(ctx, &routerv1.PickRequest{})
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

func connect(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// refused reports whether the next connection is closed at once, without a word: one
// that is taken waits for a handshake.
func refused(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return true // it was closed before it was known to be open
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return true
	}
	_, err = conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
