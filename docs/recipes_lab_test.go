//go:build lab

package docs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/process"
	"github.com/buddyring/buddyring/internal/rpc"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// The addresses that the recipes name.
const (
	recipeAdmin      = "127.0.0.1:7401"
	recipeRouter     = "127.0.0.1:7500"
	recipeRouterHTTP = "127.0.0.1:7502"
	recipeDNS        = "@127.0.0.1 -p 7553"
)

// How grpcurl exits: with 64 and the code. DEADLINE_EXCEEDED is how -max-time ends
// a stream, FAILED_PRECONDITION how a safety rule refuses.
const (
	maxTimeReached = 64 + 4
	refused        = 64 + 9
)

// TestRecipes runs every recipe against real programs on loopback: a
// coordinator on a SQLite file, a router, and the agents of three servers, with
// the ids that the recipes name.
func TestRecipes(t *testing.T) {
	programs := build(t)
	l := &lab{t: t, programs: programs, dir: t.TempDir()}
	l.start()
	l.await("web-1", "web-2", "web-3")
	l.awaitRouter(3)
	for i, b := range recipes(t) {
		script := strings.NewReplacer(
			recipeAdmin, l.admin.Addr().String(), recipeRouter, l.router.Addr().String(),
			recipeRouterHTTP, l.routerHTTP.Addr().String(), recipeDNS, fmt.Sprintf("@127.0.0.1 -p %d", l.dns.Addr().(*net.TCPAddr).Port),
		).Replace(b.text)
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(t.Context(), "sh", "-ec", script)
			cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"))
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			want := map[string]int{streamRecipe: maxTimeReached, refusedRecipe: refused}[b.info]
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != want {
				t.Errorf("%v, want exit status %d\n%s\nstdout:\n%s\nstderr:\n%s", err, want, script, &stdout, &stderr)
			}
			if stdout.Len() == 0 && want != refused {
				t.Errorf("nothing was printed\n%s", script)
			}
		})
	}
}

// build makes the programs, and grpcurl of the version that the tools pin, in a
// folder of their own.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for name, args := range map[string][]string{
		"buddyring-coordinator": {"./coordinator"},
		"buddyring-router":      {"./router"},
		"buddyring-agent":       {"./agent"},
		"grpcurl":               {"-modfile=tools/go.mod", "github.com/fullstorydev/grpcurl/cmd/grpcurl"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", filepath.Join(bin, name)}, args...)...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return bin
}

// lab are running programs; everything that it starts ends with the test.
type lab struct {
	t                              *testing.T
	programs, dir                  string
	admin, router, routerHTTP, dns *net.TCPListener
}

// here starts programs as this one does.
type here struct{}

func (here) Start(cmd *exec.Cmd) error { return cmd.Start() }

func (l *lab) start() {
	agents := l.listen("127.0.0.1:0")
	l.admin, l.router = l.listen("127.0.0.1:0"), l.listen("127.0.0.1:0")
	l.run("buddyring-coordinator", "coordinator",
		[]process.Listener{{Name: "agent", Listener: agents}, {Name: "admin", Listener: l.admin}, {Name: "http", Listener: l.listen("127.0.0.1:0")}},
		"--allow-local-addresses")
	l.routerHTTP = l.listen("127.0.0.1:0")
	packets := l.listenDNS()
	l.run("buddyring-router", "router",
		[]process.Listener{
			{Name: "grpc", Listener: l.router},
			{Name: "http", Listener: l.routerHTTP},
			{Name: "dns", Listener: l.dns},
			{Name: "dns-udp", Listener: packets},
		},
		"--coordinator", agents.Addr().String(), "--dns-listen", l.dns.Addr().String())
	for i, id := range []string{"web-1", "web-2", "web-3"} {
		service := l.listen(fmt.Sprintf("127.0.0.%d:0", i+2))
		address, port, err := net.SplitHostPort(service.Addr().String())
		if err != nil {
			l.t.Fatal(err)
		}
		l.run("buddyring-agent", id, []process.Listener{{Name: "http", Listener: l.listen("127.0.0.1:0")}},
			"--coordinator", agents.Addr().String(), "--id", id, "--pool", "default",
			"--probe-address", address, "--probe", "tcp://:"+port, "--endpoint", "http="+service.Addr().String())
	}
}

// run runs a program until the test ends.
func (l *lab) run(program, name string, listeners []process.Listener, args ...string) {
	l.t.Helper()
	proc, err := process.Start(here{}, process.Program{
		Name: name, Path: filepath.Join(l.programs, program), Listeners: listeners,
		Args: append(args, "--state-dir", filepath.Join(l.dir, name)),
		Log:  filepath.Join(l.dir, name+".log"),
	}, func(err error) { l.t.Error(err) })
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(proc.Kill)
}

func (l *lab) listen(address string) *net.TCPListener {
	l.t.Helper()
	lis, err := net.Listen("tcp", address)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := lis.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return lis.(*net.TCPListener)
}

// listenDNS opens a port of both transports.
func (l *lab) listenDNS() *net.UDPConn {
	l.t.Helper()
	for {
		l.dns = l.listen("127.0.0.1:0")
		packets, err := net.ListenPacket("udp", l.dns.Addr().String())
		if errors.Is(err, syscall.EADDRINUSE) {
			continue // somebody else has that port
		}
		if err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() { _ = packets.Close() })
		return packets.(*net.UDPConn)
	}
}

// awaitRouter returns when the router names so many servers as active.
func (l *lab) awaitRouter(n int) {
	l.t.Helper()
	client := routerv1.NewRouterServiceClient(l.dial(l.router, rpc.RoleRouter))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		answer, err := client.Resolve(l.t.Context(), &routerv1.ResolveRequest{})
		active := 0
		for _, s := range answer.GetServers() {
			if s.GetState() == routerv1.State_STATE_ACTIVE {
				active++
			}
		}
		if active == n {
			return
		}
		if time.Now().After(end) {
			l.t.Fatalf("the router has %d active servers, %v; want %d", active, err, n)
		}
	}
}

// dial connects to a program until the test ends.
func (l *lab) dial(lis *net.TCPListener, role rpc.Role) *grpc.ClientConn {
	l.t.Helper()
	log := slog.New(slog.DiscardHandler)
	credentials, err := rpc.NewCredentials(rpc.Security{}, log)
	if err != nil {
		l.t.Fatal(err)
	}
	conn, err := rpc.Dial(rpc.DialConfig{
		Addresses: []string{lis.Addr().String()}, Credentials: credentials, ServerRole: role, Logger: log,
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// await returns when all these servers are active, by following the history.
func (l *lab) await(ids ...string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeoutCause(l.t.Context(), time.Minute, errors.New("the servers did not become active within a minute"))
	defer cancel()
	client := coordinatorv1.NewAdminServiceClient(l.dial(l.admin, rpc.RoleCoordinator))
	events, err := client.WatchEvents(ctx, &coordinatorv1.WatchEventsRequest{FromRevision: 1})
	for err == nil && !active(ctx, client, ids) {
		_, err = events.Recv()
	}
	if err != nil {
		l.t.Fatal(errors.Join(err, context.Cause(ctx)))
	}
}

// active reports whether all these servers are.
func active(ctx context.Context, client coordinatorv1.AdminServiceClient, ids []string) bool {
	list, err := client.ListServers(ctx, &coordinatorv1.ListServersRequest{
		Phases: []coordinatorv1.Phase{coordinatorv1.Phase_PHASE_ACTIVE},
	})
	return err == nil && !slices.ContainsFunc(ids, func(id string) bool {
		return !slices.ContainsFunc(list.GetServers(), func(s *coordinatorv1.Server) bool { return s.GetServerId() == id })
	})
}
