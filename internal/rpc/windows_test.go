package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// tapped is a client's connection that keeps what goes over it.
type tapped struct {
	net.Conn

	mu             sync.Mutex
	sent, received bytes.Buffer
}

func (c *tapped) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent.Write(b[:n])
	return n, err
}

func (c *tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received.Write(b[:n])
	return n, err
}

// pings counts the pings that either side has sent.
func (c *tapped) pings(t *testing.T) (n int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, side := range [][]byte{bytes.TrimPrefix(c.sent.Bytes(), []byte(http2.ClientPreface)), c.received.Bytes()} {
		frames := http2.NewFramer(io.Discard, bytes.NewReader(side))
		for {
			f, err := frames.ReadFrame()
			if err != nil {
				break
			}
			if ping, ok := f.(*http2.PingFrame); ok && !ping.IsAck() {
				n++
			}
		}
	}
	return n
}

// headers are those that the client has sent, as it has sent them.
func (c *tapped) headers(t *testing.T) []byte {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	frames := http2.NewFramer(io.Discard, bytes.NewReader(bytes.TrimPrefix(c.sent.Bytes(), []byte(http2.ClientPreface))))
	for {
		f, err := frames.ReadFrame()
		must(t, err)
		if h, ok := f.(*http2.HeadersFrame); ok {
			return bytes.Clone(h.HeaderBlockFragment())
		}
	}
}

// overWire makes one call, with five messages, and returns what went over its
// connection.
func overWire(t *testing.T, fixed bool) (wire *tapped) {
	t.Helper()
	lis := listen(t, newCredentials(t, rpc.Security{}))
	serve(t, rpc.ServerConfig{FixedWindows: fixed}, &service{watch: func(stream grpc.ServerStream) error {
		for range 5 {
			if err := stream.SendMsg(&routerv1.WatchResponse{}); err != nil {
				return err
			}
		}
		return nil
	}}, lis)
	conn := dial(t, rpc.DialConfig{
		Addresses: []string{lis.Addr().String()}, FixedWindows: fixed,
		Dialer: func(ctx context.Context, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			wire = &tapped{Conn: c}
			return wire, err
		},
	})
	stream, err := routerv1.NewRouterServiceClient(conn).Watch(soon(t), &routerv1.WatchRequest{})
	must(t, err)
	if err := ended(stream); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return wire
}

// Streams that say little are not accompanied by pings.
func TestFixedWindowsSendNoPings(t *testing.T) {
	t.Parallel()
	for _, fixed := range []bool{true, false} {
		if n := overWire(t, fixed).pings(t); fixed != (n == 0) {
			t.Errorf("fixed windows %v: %d pings", fixed, n)
		}
	}
}

// Where each client has a connection of its own for one call, nobody remembers its
// headers: the client says at once that the table of them is empty.
func TestHeadersOfTheOnlyCallAreNotRemembered(t *testing.T) {
	t.Parallel()
	for _, fixed := range []bool{true, false} {
		const tableOfNone = 0x20
		if first := overWire(t, fixed).headers(t)[0]; fixed != (first == tableOfNone) {
			t.Errorf("fixed windows %v: the headers begin with %#x", fixed, first)
		}
	}
}
