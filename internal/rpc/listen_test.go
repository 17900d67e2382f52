package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// TestMain also plays the child that inherits listeners.
func TestMain(m *testing.M) {
	if name := os.Getenv("TEST_LISTEN"); name != "" {
		if err := greet(name); err != nil {
			_, _ = io.WriteString(os.Stdout, err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	if name := os.Getenv("TEST_LISTEN_PACKET"); name != "" {
		if err := takePacket(name); err != nil {
			_, _ = io.WriteString(os.Stdout, err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	leak.Main(m)
}

// takePacket takes over the socket and says where it is.
func takePacket(name string) error {
	creds, err := rpc.NewCredentials(rpc.Security{}, silent)
	if err != nil {
		return err
	}
	conn, err := creds.ListenPacket(context.Background(), name, "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, conn.LocalAddr().String()+"\n")
	return errors.Join(err, conn.Close())
}

// greet takes over the listener and writes its name to the first caller.
func greet(name string) error {
	creds, err := rpc.NewCredentials(rpc.Security{}, silent)
	if err != nil {
		return err
	}
	lis, err := creds.Listen(context.Background(), name, "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(os.Stdout, lis.Addr().String()+"\n"); err != nil {
		return err
	}
	if os.Getenv("TEST_GREET") == "" {
		return lis.Close()
	}
	conn, err := lis.Accept()
	if err != nil {
		return err
	}
	_, err = io.WriteString(conn, name)
	return errors.Join(err, conn.Close(), lis.Close())
}

// handIn starts a child that inherits two listeners, admin and http, at the
// addresses.
func handIn(t *testing.T, admin, http, take string, env ...string) (out string, lis [2]net.Listener, err error) {
	t.Helper()
	child := exec.CommandContext(soon(t), os.Args[0])
	child.Env = append(os.Environ(), "TEST_LISTEN="+take, "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:http")
	child.Env = append(child.Env, env...)
	for i, addr := range []string{admin, http} {
		l, err := net.Listen("tcp", addr)
		must(t, err)
		t.Cleanup(func() { _ = l.Close() })
		f, err := l.(*net.TCPListener).File()
		must(t, err)
		defer f.Close()
		child.ExtraFiles, lis[i] = append(child.ExtraFiles, f), l
	}
	text, err := child.Output()
	return strings.TrimSpace(string(text)), lis, err
}

func TestInheritedListenerByName(t *testing.T) {
	t.Parallel()
	const local = "127.0.0.1:0"
	out, lis, err := handIn(t, local, local, "http")
	must(t, err)
	if out != lis[1].Addr().String() {
		t.Errorf("http is on %s, want %s", out, lis[1].Addr())
	}
	out, lis, err = handIn(t, local, local, "grpc")
	must(t, err)
	if out == lis[0].Addr().String() || out == lis[1].Addr().String() {
		t.Errorf("grpc took the listener of another name")
	}
	out, lis, err = handIn(t, local, local, "http", "LISTEN_PID=1")
	must(t, err)
	if out == lis[1].Addr().String() {
		t.Errorf("took a listener that is for another process")
	}
	if out, _, err := handIn(t, local, local, "http", "LISTEN_FDS=many"); err == nil || !strings.Contains(out, "LISTEN_FDS") {
		t.Errorf("LISTEN_FDS=many: %q, %v", out, err)
	}
	if out, _, err := handIn(t, local, "0.0.0.0:0", "http"); err == nil || !strings.Contains(out, "--insecure") {
		t.Errorf("an inherited listener beyond loopback: %q, %v", out, err)
	}
}

func TestInheritedListenerAccepts(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	f, err := lis.(*net.TCPListener).File()
	must(t, err)
	child := exec.CommandContext(soon(t), os.Args[0])
	child.Env = append(os.Environ(), "TEST_LISTEN=admin", "TEST_GREET=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=admin")
	child.ExtraFiles = []*os.File{f}
	must(t, child.Start())
	must(t, f.Close())
	must(t, lis.Close())
	conn, err := net.Dial("tcp", lis.Addr().String())
	must(t, err)
	got, err := io.ReadAll(conn)
	must(t, err)
	must(t, conn.Close())
	must(t, child.Wait())
	if string(got) != "admin" {
		t.Errorf("got %q", got)
	}
}

func TestPlaintextListenerBeyondLoopback(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		lis, err := newCredentials(t, rpc.Security{}).Listen(t.Context(), "admin", addr)
		if !errors.Is(err, member.ErrInvalid) || !strings.Contains(err.Error(), "--insecure") || lis != nil {
			t.Errorf("%s: %v", addr, err)
		}
		log := &lockedBuffer{}
		allowed, err := rpc.NewCredentials(rpc.Security{Insecure: true}, slog.New(slog.NewTextHandler(log, nil)))
		must(t, err)
		lis, err = allowed.Listen(t.Context(), "admin", addr)
		must(t, err)
		must(t, lis.Close())
		if n := strings.Count(log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings: %s", n, log)
		}
		lis, err = newCredentials(t, newAuthority(t).issue("c1", coordinatorURI)).Listen(t.Context(), "admin", addr)
		must(t, err)
		must(t, lis.Close())
	}
}

func TestDefaultAddress(t *testing.T) {
	t.Parallel()
	if got := newCredentials(t, rpc.Security{}).DefaultAddress(7400); got != "127.0.0.1:7400" {
		t.Errorf("without TLS: %s", got)
	}
	if got := newCredentials(t, newAuthority(t).issue("c1", coordinatorURI)).DefaultAddress(7400); got != ":7400" {
		t.Errorf("with TLS: %s", got)
	}
}

func TestBusyPortNamesTheListener(t *testing.T) {
	t.Parallel()
	creds := newCredentials(t, rpc.Security{})
	lis := listen(t, creds)
	defer lis.Close()
	if _, err := creds.Listen(t.Context(), "admin", lis.Addr().String()); err == nil || !strings.Contains(err.Error(), `"admin"`) {
		t.Errorf("got %v", err)
	}
}

// TestListenPacket: a UDP socket follows the rules of listeners.
func TestListenPacket(t *testing.T) {
	t.Parallel()
	creds := newCredentials(t, rpc.Security{})
	conn, err := creds.ListenPacket(t.Context(), "dns-udp", "127.0.0.1:0")
	must(t, err)
	if _, err := creds.ListenPacket(t.Context(), "dns-udp", conn.LocalAddr().String()); err == nil || !strings.Contains(err.Error(), `"dns-udp"`) {
		t.Errorf("a busy port: %v", err)
	}
	must(t, conn.Close())
	if conn, err := creds.ListenPacket(t.Context(), "dns-udp", ":0"); !errors.Is(err, member.ErrInvalid) || !strings.Contains(err.Error(), "--insecure") {
		t.Errorf("plaintext beyond loopback: %v, %v", conn, err)
	}
	allowed, err := rpc.NewCredentials(rpc.Security{Insecure: true}, slog.New(slog.DiscardHandler))
	must(t, err)
	conn, err = allowed.ListenPacket(t.Context(), "dns-udp", ":0")
	must(t, err)
	must(t, conn.Close())
}

func TestInheritedSocket(t *testing.T) {
	t.Parallel()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	defer conn.Close()
	f, err := conn.(*net.UDPConn).File()
	must(t, err)
	defer f.Close()
	child := exec.CommandContext(soon(t), os.Args[0])
	child.Env = append(os.Environ(), "TEST_LISTEN_PACKET=dns-udp", "LISTEN_FDS=1", "LISTEN_FDNAMES=dns-udp")
	child.ExtraFiles = []*os.File{f}
	out, err := child.Output()
	must(t, err)
	if got := strings.TrimSpace(string(out)); got != conn.LocalAddr().String() {
		t.Errorf("the socket is on %s, want %s", got, conn.LocalAddr())
	}
}

// What Listen would refuse is refused before anything is opened.
func TestCheckListen(t *testing.T) {
	t.Parallel()
	plain := newCredentials(t, rpc.Security{})
	open := newCredentials(t, rpc.Security{Insecure: true})
	secure := newCredentials(t, newAuthority(t).issue("c1", coordinatorURI))
	for address, want := range map[string]string{
		"127.0.0.1:7400": "", "[::1]:0": "", "localhost:7400": "", "coordinator.example:7400": "",
		":7400": "--insecure", "0.0.0.0:7400": "--insecure", "[::]:7400": "--insecure", "10.0.0.1:7400": "--insecure",
		"7400": "HOST:PORT", "127.0.0.1": "HOST:PORT", "127.0.0.1:99999": "0 to 65535", "127.0.0.1:-1": "0 to 65535",
	} {
		check := func(name string, c *rpc.Credentials, want string) {
			t.Helper()
			err := c.CheckListen("listen", address)
			var field *member.FieldError
			if (err == nil) != (want == "") || err != nil && (!errors.As(err, &field) || field.Field != "listen" || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s, %s: %v, want %q", name, address, err, want)
			}
		}
		check("plaintext", plain, want)
		if want == "--insecure" {
			want = ""
		}
		check("allowed plaintext", open, want)
		check("TLS", secure, want)
	}
}
