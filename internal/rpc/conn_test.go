package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// scripted is a connection whose reads and writes fail as told.
type scripted struct {
	net.Conn

	read, write error
}

func (s scripted) Read([]byte) (int, error)  { return 0, s.read }
func (s scripted) Write([]byte) (int, error) { return 0, s.write }
func (s scripted) Close() error              { return nil }

func TestConnTellsItsEnd(t *testing.T) {
	t.Parallel()
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	timeout := &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ETIMEDOUT)}
	unreachable := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.EHOSTUNREACH)}
	for name, tt := range map[string]struct {
		conn       scripted
		first      func(*rpc.Conn)
		byPeer     bool
		staysOpen  bool
		closeAfter bool
	}{
		"FIN":                    {conn: scripted{read: io.EOF}, byPeer: true},
		"FIN, then our close":    {conn: scripted{read: io.EOF}, byPeer: true, closeAfter: true},
		"RST":                    {conn: scripted{read: reset}, byPeer: true},
		"RST told to the writer": {conn: scripted{write: reset, read: io.EOF}, first: write, byPeer: true},
		"time-out":               {conn: scripted{read: syscall.ETIMEDOUT}},
		// The kernel tells a time-out once; the reader then sees an EOF.
		"time-out told to the writer": {conn: scripted{write: timeout, read: io.EOF}, first: write},
		"unreachable":                 {conn: scripted{read: unreachable}},
		"our close":                   {conn: scripted{read: net.ErrClosed}, first: closeConn},
		"FIN after our close":         {conn: scripted{read: io.EOF}, first: closeConn},
		"a deadline of ours":          {conn: scripted{read: os.ErrDeadlineExceeded}, staysOpen: true},
		"nothing":                     {staysOpen: true},
	} {
		c := &rpc.Conn{Conn: tt.conn}
		if tt.first != nil {
			tt.first(c)
		}
		_, _ = c.Read(nil)
		if tt.closeAfter {
			closeConn(c)
		}
		if c.ClosedByPeer() != tt.byPeer || c.Open() != tt.staysOpen {
			t.Errorf("%s: ClosedByPeer %v, Open %v", name, c.ClosedByPeer(), c.Open())
		}
	}
}

func write(c *rpc.Conn)     { _, _ = c.Write(nil) }
func closeConn(c *rpc.Conn) { _ = c.Close() }

// end is how a stream's connection was when the stream ended.
type end struct{ byPeer, open bool }

// watchedStream is a service whose Watch reports how its connection ended.
func watchedStream(ends chan<- end) *service {
	return &service{watch: func(stream grpc.ServerStream) error {
		if err := stream.SendMsg(&routerv1.WatchResponse{}); err != nil {
			return err
		}
		<-stream.Context().Done()
		conn := rpc.PeerConn(stream.Context())
		ends <- end{conn.ClosedByPeer(), conn.Open()}
		return stream.Context().Err()
	}}
}

func TestStreamKnowsHowItsConnectionEnded(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for name, security := range map[string][2]rpc.Security{
		"plaintext": {},
		"tls":       {ca.issue("c1", coordinatorURI), ca.issue("db-1", agentURI)},
	} {
		for how, want := range map[string]end{
			"FIN": {byPeer: true}, "RST": {byPeer: true}, "cancelled": {open: true},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				ends := make(chan end, 1)
				creds := newCredentials(t, security[0])
				lis := listen(t, creds)
				serve(t, rpc.ServerConfig{Credentials: creds}, watchedStream(ends), lis)
				var raw atomic.Pointer[net.TCPConn]
				conn := dial(t, rpc.DialConfig{
					Addresses: []string{lis.Addr().String()}, ServerRole: rpc.RoleCoordinator,
					Credentials: newCredentials(t, security[1]),
					Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
						c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
						if tcp, ok := c.(*net.TCPConn); ok {
							raw.Store(tcp)
						}
						return c, err
					},
				})
				ctx, cancel := context.WithCancel(soon(t))
				defer cancel()
				stream, err := routerv1.NewRouterServiceClient(conn).Watch(ctx, &routerv1.WatchRequest{})
				must(t, err)
				_, err = stream.Recv()
				must(t, err)
				switch how {
				case "FIN":
					must(t, conn.Close())
				case "RST":
					must(t, raw.Load().SetLinger(0))
					must(t, raw.Load().Close())
				case "cancelled":
					cancel()
				}
				if got := <-ends; got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			})
		}
	}
}

// silenced is a connection that can fall silent without ending.
type silenced struct {
	net.Conn

	silent atomic.Bool
}

func (s *silenced) Write(b []byte) (int, error) {
	if s.silent.Load() {
		return len(b), nil
	}
	return s.Conn.Write(b)
}

func TestSilentPeerIsCutOffButNotClosedByPeer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan end, 1)
		lis := bufconn.Listen(1 << 16)
		serve(t, rpc.ServerConfig{}, watchedStream(ends), lis)
		var wire *silenced
		conn := dial(t, rpc.DialConfig{
			Addresses: []string{"memory:1"},
			Dialer: func(ctx context.Context, _ string) (net.Conn, error) {
				c, err := lis.DialContext(ctx)
				wire = &silenced{Conn: c}
				return wire, err
			},
		})
		stream, err := routerv1.NewRouterServiceClient(conn).Watch(t.Context(), &routerv1.WatchRequest{})
		must(t, err)
		_, err = stream.Recv()
		must(t, err)
		start := time.Now()
		wire.silent.Store(true)
		if got := <-ends; got != (end{}) {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(start); took > 45*time.Second {
			t.Errorf("took %v", took)
		}
		if err := ended(stream); !errors.Is(err, member.ErrUnavailable) {
			t.Errorf("the client got %v", err)
		}
	})
}
