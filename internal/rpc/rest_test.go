package rpc

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/mem"

	"github.com/buddyring/buddyring/internal/quota"
)

// reportingPool tells what becomes of its buffers.
type reportingPool struct {
	mem.NopBufferPool

	returned chan struct{}
}

func (p *reportingPool) Put(*[]byte) { p.returned <- struct{}{} }

// A connection that has nothing to read holds no buffer, also one that is counted.
func TestConnAtRestHoldsNoBuffer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client, conn := pairOfConns(ctx, t)
	type result struct {
		text string
		err  error
	}
	results, pool := make(chan result), &reportingPool{returned: make(chan struct{}, 8)}
	read := func() {
		buffer, n, err := conn.ReadOnReady(64, pool)
		r := result{err: err}
		if buffer != nil {
			r.text = string((*buffer)[:n])
		}
		results <- r
	}
	go read()
	select {
	case <-pool.returned:
	case <-ctx.Done():
		t.Fatal("a connection holds a buffer while it waits")
	}
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := <-results; got != (result{text: "hello"}) {
		t.Errorf("read %+v", got)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	go read()
	if got := <-results; !errors.Is(got.err, io.EOF) || !conn.ClosedByPeer() {
		t.Errorf("after a FIN: %+v, by the peer: %v", got, conn.ClosedByPeer())
	}
}

func pairOfConns(ctx context.Context, t *testing.T) (client net.Conn, server *Conn) {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lis = quota.NewGuard(prometheus.NewRegistry(), slog.New(slog.DiscardHandler)).Listener(lis, "grpc", quota.Few())
	defer func() { _ = lis.Close() }()
	if client, err = new(net.Dialer).DialContext(ctx, "tcp", lis.Addr().String()); err != nil {
		t.Fatal(err)
	}
	accepted, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server = newConn(accepted)
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}
