package quota_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/internal/quota"
)

// hall is a listener with limits whose connections are taken and kept.
type hall struct {
	t        *testing.T
	registry *prometheus.Registry
	log      strings.Builder
	inner    net.Listener
	accepted chan net.Conn
	close    func()
}

// open serves inner until the end of the test.
func open(t *testing.T, inner net.Listener, limits quota.Limits) *hall {
	t.Helper()
	h := &hall{t: t, registry: prometheus.NewPedanticRegistry(), inner: inner, accepted: make(chan net.Conn)}
	log, err := observe.NewLogger(&h.log, observe.LogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	lis := quota.NewGuard(h.registry, log).Listener(inner, "grpc", limits)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			h.accepted <- conn
		}
	}()
	h.close = func() {
		_ = lis.Close()
		<-ended
	}
	t.Cleanup(h.close)
	return h
}

func tcp(t *testing.T) net.Listener {
	t.Helper()
	lis, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return lis
}

// dial connects from a loopback address.
func (h *hall) dial(from string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 30*time.Second)
	defer cancel()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return d.DialContext(ctx, "tcp", h.inner.Addr().String())
}

// enter connects and returns the server's end.
func (h *hall) enter(from string) net.Conn {
	h.t.Helper()
	client, err := h.dial(from)
	if err != nil {
		h.t.Fatal(err)
	}
	conn := <-h.accepted
	h.t.Cleanup(func() { _ = errors.Join(client.Close(), conn.Close()) })
	if conn.RemoteAddr().String() != client.LocalAddr().String() {
		h.t.Fatalf("accepted %s, want %s", conn.RemoteAddr(), client.LocalAddr())
	}
	return conn
}

// refused connects and expects to be disconnected.
func (h *hall) refused(from string) {
	h.t.Helper()
	conn, err := h.dial(from)
	if err == nil {
		defer func() { _ = conn.Close() }() // it is over
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			h.t.Fatal(err)
		}
		_, err = conn.Read(make([]byte, 1))
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		h.t.Fatalf("not disconnected: %v", err)
	}
}

// value is one of the metrics; labels may be one value of them.
func (h *hall) value(name, label string) float64 {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	h.t.Fatalf("no metric %s of %s", name, label)
	return 0
}

func TestListenerRefusesWhoIsTooMuch(t *testing.T) {
	t.Parallel()
	h := open(t, tcp(t), quota.Limits{Total: 3, PerSource: 2})
	first := h.enter("127.0.0.1")
	h.enter("127.0.0.1")
	h.refused("127.0.0.1")
	h.refused("127.0.0.1")
	h.enter("127.0.0.2")
	h.refused("127.0.0.2")
	for metric, want := range map[string]float64{"source": 2, "total": 1} {
		if n := h.value("buddyring_connections_refused_total", metric); n != want {
			t.Errorf("%v refused by %s, want %v", n, metric, want)
		}
	}
	if open, limit := h.value("buddyring_connections", "grpc"), h.value("buddyring_connections_limit", "grpc"); open != 3 || limit != 3 {
		t.Errorf("%v open of %v", open, limit)
	}
	// Who leaves makes room once, however often it is closed.
	for range 2 {
		_ = first.Close()
	}
	h.enter("127.0.0.1")
	h.refused("127.0.0.1")
	h.refused("127.0.0.3")
	if open := h.value("buddyring_connections", "grpc"); open != 3 {
		t.Errorf("%v open", open)
	}
}

// A flood of clients is no flood of lines.
func TestListenerSaysSoOnceASecond(t *testing.T) {
	t.Parallel()
	h := open(t, tcp(t), quota.Limits{})
	begun := time.Now()
	for range 50 {
		h.refused("127.0.0.1")
	}
	h.close()
	lines, seconds := strings.Count(h.log.String(), "\n"), int(time.Since(begun).Seconds())
	if lines < 1 || lines > 1+seconds {
		t.Errorf("%d lines in %d seconds", lines, seconds)
	}
}

// gRPC waits for a connection's readiness, and HTTP closes one direction of it.
func TestListenerGivesTCPConnections(t *testing.T) {
	t.Parallel()
	conn := open(t, tcp(t), quota.Limits{Total: 1, PerSource: 1}).enter("127.0.0.1")
	if _, ok := conn.(syscall.Conn); !ok {
		t.Error("the kernel's connection is out of reach")
	}
	if _, ok := conn.(interface{ CloseWrite() error }); !ok {
		t.Error("cannot be closed in one direction")
	}
}

func TestListenerOfAnotherNetwork(t *testing.T) {
	t.Parallel()
	lis := bufconn.Listen(1 << 10)
	h := open(t, lis, quota.Limits{Total: 9, PerSource: 1})
	client, err := lis.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := <-h.accepted
	again, err := lis.DialContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a second one was not disconnected: %v", err)
	}
	_ = errors.Join(conn.Close(), client.Close(), again.Close()) // all that matters was seen
	if n := h.value("buddyring_connections", "grpc"); n != 0 {
		t.Errorf("%v open", n)
	}
}
