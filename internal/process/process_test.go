package process_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/process"
)

func TestMain(m *testing.M) { leak.Main(m) }

// here starts programs as this one does.
type here struct{}

func (here) Start(cmd *exec.Cmd) error { return cmd.Start() }

func TestProcessThatEndsByItselfIsTold(t *testing.T) {
	t.Parallel()
	told := make(chan error, 1)
	_, err := process.Start(here{}, process.Program{
		Name: "sh", Path: "/bin/sh", Args: []string{"-c", "for i in 1 2 3 4; do echo line $i; done; exit 3"},
		Log: filepath.Join(t.TempDir(), "log"),
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
	p, err := process.Start(here{}, process.Program{
		Name: "sleep", Path: "/bin/sleep", Args: []string{"1000"}, Log: filepath.Join(t.TempDir(), "log"),
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	p.Kill() // once more is harmless
	if code := p.ExitCode(); code != -1 {
		t.Errorf("exit code %d, want -1", code)
	}
}

func TestProcessThatWillNotEnd(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	p, err := process.Start(here{}, process.Program{
		Name: "sh", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo ready; exec sleep 1000"}, Log: log,
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	awaitFile(t, log, "ready")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	if err := p.Terminate(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("terminate = %v, want the context's cause", err)
	}
	p.Kill()
}

func awaitFile(t *testing.T, path, want string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(text), want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s holds %q, %v; want %q", path, text, err, want)
		}
	}
}

func TestListenersAreHandedOver(t *testing.T) {
	t.Setenv("BUDDYRING_COORDINATOR_LISTEN", "127.0.0.1:1")
	t.Setenv("LISTEN_PID", "1")
	lis, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	log := filepath.Join(t.TempDir(), "log")
	p, err := process.Start(here{}, process.Program{
		Name: "sh", Path: "/bin/sh", Log: log,
		Args:      []string{"-c", `echo "$LISTEN_FDS $LISTEN_FDNAMES [$LISTEN_PID] [$BUDDYRING_COORDINATOR_LISTEN]"; exec sleep 1000`},
		Listeners: []process.Listener{{Name: "admin", Listener: lis}, {Name: "http", Listener: lis}},
	}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	awaitFile(t, log, "2 admin:http [] []")
}

func TestWellEnded(t *testing.T) {
	t.Parallel()
	p, err := process.Start(here{}, process.Program{
		Name: "sh", Path: "/bin/sh", Args: []string{"-c", "exit $CODE"}, Env: []string{"CODE=4"}, Log: filepath.Join(t.TempDir(), "log"),
	}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if code := p.ExitCode(); code != 4 {
		t.Errorf("exit code %d, want 4", code)
	}
	if err := p.Terminate(t.Context()); err == nil {
		t.Error("Terminate of a process that has ended by itself succeeds")
	}
}
