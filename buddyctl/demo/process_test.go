//go:build unix

package demo

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProcessThatEndsByItselfIsTold(t *testing.T) {
	t.Parallel()
	told := make(chan error, 1)
	_, err := start(&loopbackPlace{}, program{
		name: "sh", path: "/bin/sh", args: []string{"-c", "for i in 1 2 3 4; do echo line $i; done; exit 3"},
		log: filepath.Join(t.TempDir(), "log"),
	}, func(err error) { told <- err })
	if err != nil {
		t.Fatal(err)
	}
	got := (<-told).Error()
	if want := "sh ended by itself: exit status 3; its last words: line 2 | line 3 | line 4"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestProcessThatIsKilledIsNotTold(t *testing.T) {
	t.Parallel()
	p, err := start(&loopbackPlace{}, program{
		name: "sleep", path: "/bin/sleep", args: []string{"1000"}, log: filepath.Join(t.TempDir(), "log"),
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
	p.kill() // once more is harmless
	if p.err == nil {
		t.Error("a killed process has ended well")
	}
}

func TestProcessThatWillNotEnd(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	p, err := start(&loopbackPlace{}, program{
		name: "sh", path: "/bin/sh", args: []string{"-c", "trap '' TERM; echo ready; sleep 1000 & wait"}, log: log,
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	awaitFile(t, log, "ready")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	if err := p.terminate(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("terminate = %v, want the context's cause", err)
	}
	p.kill()
}

func awaitFile(t *testing.T, path, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := until(ctx, func(context.Context) error {
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text), want) {
			err = errors.New("it is not there yet")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestListenersAreHandedOver(t *testing.T) {
	t.Setenv("BUDDYRING_COORDINATOR_LISTEN", "127.0.0.1:1")
	t.Setenv("LISTEN_PID", "1")
	lis, err := openNext(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	log := filepath.Join(t.TempDir(), "log")
	p, err := start(&loopbackPlace{}, program{
		name: "sh", path: "/bin/sh", log: log,
		args:      []string{"-c", `echo "$LISTEN_FDS $LISTEN_FDNAMES [$LISTEN_PID] [$BUDDYRING_COORDINATOR_LISTEN]"; sleep 1000`},
		listeners: []handed{{"admin", lis}, {"http", lis}},
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	awaitFile(t, log, "2 admin:http [] []")
}

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
	agent, err := start(p, program{
		name: "agent", path: "/bin/sleep", args: []string{"1000"}, log: filepath.Join(t.TempDir(), "log"),
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
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Second}
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
