package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
)

// manager is a systemd that answers as it is told.
type manager struct {
	invocation, cgroup, pid, state, jobs string
	asked                                []string
}

func (m *manager) systemd() systemd {
	return systemd{
		getenv: func(string) string { return m.invocation },
		pid:    42,
		cgroup: func() (string, error) { return m.cgroup, nil },
		ctl: func(_ context.Context, args ...string) (string, error) {
			m.asked = append(m.asked, strings.Join(args, " "))
			switch args[1] {
			case "show":
				return m.pid + "\n", nil
			case "is-system-running":
				return m.state + "\n", errors.New("exit status 1")
			case "list-jobs":
				return m.jobs, nil
			}
			return "", errors.New("unexpected")
		},
	}
}

func TestRestarts(t *testing.T) {
	t.Parallel()
	restart := manager{
		invocation: "5f0e", cgroup: "0::/system.slice/buddyring-agent.service\n", pid: "42", state: "degraded",
		jobs: "123 buddyring-agent.service restart running\n",
	}
	for _, c := range []struct {
		name   string
		change func(*manager)
		want   bool
	}{
		{"systemctl restart", func(*manager) {}, true},
		{"systemctl stop", func(m *manager) { m.jobs = "123 buddyring-agent.service stop running\n" }, false},
		{"kill", func(m *manager) { m.jobs = "" }, false},
		{"reboot", func(m *manager) { m.state = "stopping" }, false},
		{"restart of another unit", func(m *manager) { m.jobs = "9 other.service restart running\n" }, false},
		{"not under systemd", func(m *manager) { m.invocation = "" }, false},
		{"a shell of a session", func(m *manager) { m.cgroup = "0::/user.slice/user-1.slice/session-3.scope\n" }, false},
		{"a child of another service", func(m *manager) { m.pid = "41" }, false},
		{"old cgroups", func(m *manager) { m.cgroup = "12:pids:/x\n" }, false},
		{"a user's service", func(m *manager) {
			m.cgroup = "0::/user.slice/user-1.slice/user@1.service/app.slice/buddyring-agent.service\n"
		}, true},
	} {
		m := restart
		c.change(&m)
		if got := m.systemd().restarts(t.Context()); got != c.want {
			t.Errorf("%s: %v, want %v (asked %q)", c.name, got, c.want, m.asked)
		}
	}
}

// recorder is an agent that notes what signals do to it.
type recorder struct {
	reason string
	leave  func(ctx context.Context) error
	specs  []member.Spec
	checks []string
}

func (r *recorder) Leave(ctx context.Context, reason string) error {
	r.reason = reason
	return r.leave(ctx)
}

func (r *recorder) Update(spec member.Spec) { r.specs = append(r.specs, spec) }

func (r *recorder) Recheck(_ context.Context, checks []Check) {
	r.checks = nil
	for _, c := range checks {
		r.checks = append(r.checks, c.String())
	}
}

func obeying(on onTerm, m *manager, signals ...os.Signal) *program {
	queue := make(chan os.Signal, len(signals))
	for _, s := range signals {
		queue <- s
	}
	return &program{
		settings: settings{onTerm: on, leaveTimeout: time.Second}, signals: queue, systemd: m.systemd(),
		level: new(slog.LevelVar), log: slog.New(slog.DiscardHandler),
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	restarting := &manager{
		invocation: "5f0e", cgroup: "0::/a.service\n", pid: "42", state: "running", jobs: "1 a.service restart running\n",
	}
	well := func(context.Context) error { return nil }
	never := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, c := range []struct {
		name    string
		program *program
		leave   func(context.Context) error
		left    bool
		failed  bool
	}{
		{"leave", obeying(onTermLeave, restarting, syscall.SIGTERM), well, true, false},
		{"leave by Ctrl-C", obeying(onTermLeave, restarting, os.Interrupt), well, true, false},
		{"leave that does not succeed in time", obeying(onTermLeave, restarting, syscall.SIGTERM), never, true, true},
		{"second signal", obeying(onTermLeave, restarting, syscall.SIGTERM, syscall.SIGTERM), never, true, true},
		{"detach", obeying(onTermDetach, &manager{}, syscall.SIGTERM), well, false, false},
		{"auto outside systemd", obeying(onTermAuto, &manager{}, syscall.SIGTERM), well, true, false},
		{"auto under a restart", obeying(onTermAuto, restarting, syscall.SIGTERM), well, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{leave: c.leave}
			err := c.program.obey(t.Context(), r)
			if (r.reason != "") != c.left || (err != nil) != c.failed {
				t.Errorf("left with %q, error %v", r.reason, err)
			}
		})
	}
}

func TestObeyEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- obeying(onTermAuto, &manager{}).obey(ctx, &recorder{}) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestReload: SIGHUP takes over what the file says now, and nothing of a file
// that is wrong.
func TestReload(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	p := obeying(onTermLeave, &manager{})
	p.args = []string{"--config", path, "--zone", "z1"}
	r := &recorder{}
	for _, c := range []struct {
		file  string
		specs int
		level slog.Level
	}{
		{"weight: 7\nlabel: [a=b]\nlog-level: debug\n", 1, slog.LevelDebug},
		{"weight: many\n", 1, slog.LevelDebug},
		{"weight: 99999\n", 1, slog.LevelDebug},
		{"log-level: loud\n", 1, slog.LevelDebug},
		{"colour: red\n", 1, slog.LevelDebug},
		{"check: [\"udp://x:1\"]\n", 1, slog.LevelDebug},
		{"weight: 8\nlog-level: warn\ncheck: [\"tcp://127.0.0.1:80\", \"exec:test -f x, y\"]\n", 2, slog.LevelWarn},
	} {
		if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		p.reload(t.Context(), r)
		if len(r.specs) != c.specs || p.level.Level() != c.level {
			t.Errorf("%q: %d specs, level %v", c.file, len(r.specs), p.level.Level())
		}
	}
	if diff := cmp.Diff([]string{"tcp://127.0.0.1:80", "exec:test -f x, y"}, r.checks); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	want := []member.Spec{{Zone: "z1", Weight: 7, Labels: map[string]string{"a": "b"}}, {Zone: "z1", Weight: 8}}
	if diff := cmp.Diff(want, r.specs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
