package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/freeport"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// TestProgram runs the whole program on real sockets: it joins at an address
// that it finds itself, probes by TCP, shows its pages, and leaves at SIGTERM.
func TestProgram(t *testing.T) {
	t.Parallel()
	c := &coordinator{t: t, sessions: make(chan *peer, 10)}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	pb.RegisterAgentServiceServer(srv, c)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	defer func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	dir := t.TempDir()
	pages, err := freeport.Find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boot := filepath.Join(dir, "boot-id")
	if err := os.WriteFile(boot, []byte("this-boot"), 0o600); err != nil {
		t.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	args := []string{
		"--coordinator", lis.Addr().String(), "--id", "me", "--allow-local-addresses", "--probe", "tcp://:9", "--boot-id-file", boot,
		"--state-dir", filepath.Join(dir, "state"), "--http-listen", pages, "--on-term", "leave", "--log-level", "error",
	}
	program := Command(args, signals)
	program.SetErr(testWriter{t})
	done := make(chan error, 1)
	go func() { done <- program.ExecuteContext(context.Background()) }()

	p := c.next()
	if h := p.hello; h.GetBootId() != "this-boot" || strings.Join(h.GetSpec().GetProbeAddresses(), ",") != "127.0.0.1" ||
		h.GetSpec().GetProbe() != "tcp://:9" {
		t.Errorf("hello %v", h)
	}
	s := subjectOf("a", "127.0.0.1")
	s.Probe = "tcp://:9" // refused, which is an answer
	p.welcome(5, assignmentOf(1, s))
	if r := expect(p, (*pb.SessionRequest).GetReport); r.GetEvidence().GetSight() != pb.Sight_SIGHT_UP {
		t.Errorf("report %v", r)
	}
	for page, want := range map[string]string{
		"/livez": "ok", "/readyz": "ok", "/metrics": `buddyring_agent_subjects{sight="up"} 1`,
	} {
		if body := get(t, "http://"+pages+page); !strings.Contains(body, want) {
			t.Errorf("%s: %s", page, body)
		}
	}
	signals <- syscall.SIGTERM
	if l := expect(p, (*pb.SessionRequest).GetLeave); l.GetReason() != "the agent was terminated" {
		t.Errorf("leave %v", l)
	}
	p.leaveResult(true, "")
	if err := <-done; err != nil {
		t.Errorf("end: %v", err)
	}
	saved, err := os.ReadFile(filepath.Join(dir, "state", stateName))
	if err != nil || !strings.Contains(string(saved), `"incarnation": 0`) {
		t.Errorf("saved %s, %v", saved, err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestProgramRefusesToStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	boot, file := filepath.Join(dir, "boot-id"), filepath.Join(dir, "file")
	for _, path := range []string{boot, file} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	disk := openDisk(t, filepath.Join(dir, "used"))
	for name, c := range map[string]struct {
		args    []string
		invalid bool
	}{
		"a flag that is wrong":                 {[]string{"--weight", "x"}, true},
		"a flag that is not known":             {[]string{"--nope"}, true},
		"a setting that is wrong":              {[]string{"--zone", "Z"}, true},
		"a log level that is wrong":            {[]string{"--log-level", "loud"}, true},
		"a state directory that is a file":     {[]string{"--state-dir", file}, false},
		"a state directory of another agent":   {[]string{"--state-dir", filepath.Dir(disk.Path())}, false},
		"an HTTP listener beyond loopback":     {[]string{"--state-dir", filepath.Join(dir, "b"), "--http-listen", ":0"}, true},
		"validate: a coordinator without port": {[]string{"validate", "--coordinator", "x"}, true},
		"validate: a listener for all":         {[]string{"validate", "--http-listen", "0.0.0.0:7602"}, true},
	} {
		args := append([]string{"--id", "me", "--boot-id-file", boot, "--probe", "tcp://:9"}, c.args...)
		program := Command(args, nil)
		program.SetErr(io.Discard)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := program.ExecuteContext(ctx)
		cancel()
		if err == nil || errors.Is(err, member.ErrInvalid) != c.invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	boot, file := filepath.Join(dir, "boot-id"), filepath.Join(dir, "agent.yaml")
	for path, content := range map[string]string{boot: "x", file: "id: web-1\nendpoint: [\"http=192.0.2.1:80\"]\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	program := Command([]string{"validate", "--config", file, "--boot-id-file", boot, "--state-dir", filepath.Join(dir, "none")}, nil)
	program.SetOut(&out)
	if err := program.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("validate has made the state directory")
	}
	if got := fmt.Sprint(&out); got != "configuration is valid\n" {
		t.Errorf("printed %q", got)
	}
}
