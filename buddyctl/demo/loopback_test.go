//go:build unix

package demo

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/process"
)

func TestDoorsMoveFromBusyPorts(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := int(addrPort(busy).Port())
	lis, err := openNext(t.Context(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	if got := int(addrPort(lis).Port()); got <= port {
		t.Errorf("port %d, want one above the busy %d", got, port)
	}
}

func TestLoopbackPlaceFallsSilentAndComesBack(t *testing.T) {
	t.Parallel()
	p := &loopbackPlace{}
	lis, err := p.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, address := serve("web-1", lis), lis.Addr().String()
	call := get(p)
	if err := call(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	agent, err := process.Start(p, process.Program{
		Name: "agent", Path: "/bin/sleep", Args: []string{"1000"}, Log: filepath.Join(t.TempDir(), "log"),
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Silence(agent); err != nil {
		t.Fatal(err)
	}
	s.close()
	conn, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
	if err == nil {
		_ = conn.Close()
	}
	if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("dial the silent place: %v, want a time-out", err)
	}
	if err := p.Revive(); err != nil {
		t.Fatal(err)
	}
	if lis, err = p.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = serve("web-1", lis)
	defer s.close()
	if lis.Addr().String() != address {
		t.Errorf("it came back at %v, not at %v", lis.Addr(), address)
	}
	if err := call(t.Context(), address); err != nil {
		t.Errorf("call after the comeback: %v", err)
	}
}

func TestServiceThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	p := &loopbackPlace{}
	lis, err := p.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(lis)
	}()
	if err := get(p)(t.Context(), lis.Addr().String()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("call = %v, want 404", err)
	}
	_ = server.Close()
	<-done
}
