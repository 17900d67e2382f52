package daemon

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// onTerm is what SIGTERM means.
type onTerm string

const (
	onTermAuto   onTerm = "auto"
	onTermLeave  onTerm = "leave"
	onTermDetach onTerm = "detach"
)

func parseOnTerm(s string) (onTerm, error) {
	switch v := onTerm(s); v {
	case onTermAuto, onTermLeave, onTermDetach:
		return v, nil
	}
	return "", member.Invalid("on-term", "%q is not one of auto, leave and detach", s)
}

// systemdTime is how long all questions to systemd may take together.
const systemdTime = 2 * time.Second

// systemd is how this process asks systemd about itself.
type systemd struct {
	getenv func(string) string
	pid    int
	// cgroup is the content of /proc/self/cgroup.
	cgroup func() (string, error)
	// ctl runs systemctl and returns what it prints.
	ctl func(ctx context.Context, args ...string) (string, error)
}

func newSystemd() systemd {
	return systemd{
		getenv: os.Getenv, pid: os.Getpid(),
		cgroup: func() (string, error) {
			data, err := os.ReadFile("/proc/self/cgroup")
			return string(data), err
		},
		ctl: func(ctx context.Context, args ...string) (string, error) {
			out, err := exec.CommandContext(ctx, "systemctl", args...).Output() //nolint:gosec // the unit is our own
			return string(out), err
		},
	}
}

// restarts reports whether this process is the main process of a systemd unit
// that is being restarted while the system is not going down: an upgrade or a
// new configuration, after which the agent is back. Where in doubt it is false,
// and the server leaves.
func (s systemd) restarts(ctx context.Context) bool {
	if s.getenv("INVOCATION_ID") == "" {
		return false
	}
	cgroup, err := s.cgroup()
	if err != nil {
		return false
	}
	unit, scope := unitOf(cgroup)
	if unit == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, systemdTime)
	defer cancel()
	main, err := s.ctl(ctx, scope, "show", "--property=MainPID", "--value", unit)
	if err != nil || strings.TrimSpace(main) != strconv.Itoa(s.pid) {
		return false
	}
	// is-system-running exits with 1 for every state but "running".
	if state, _ := s.ctl(ctx, scope, "is-system-running"); strings.TrimSpace(state) == "stopping" {
		return false
	}
	jobs, err := s.ctl(ctx, scope, "list-jobs", "--no-legend", "--no-pager", unit)
	return err == nil && hasRestartJob(jobs, unit)
}

// unitOf finds the innermost service in a /proc/PID/cgroup, and whether the
// system's or the user's manager runs it.
func unitOf(cgroup string) (unit, scope string) {
	scope = "--system"
	for line := range strings.Lines(cgroup) {
		_, path, _ := strings.Cut(strings.TrimSpace(line), "::")
		for part := range strings.SplitSeq(path, "/") {
			if !strings.HasSuffix(part, ".service") {
				continue
			}
			if strings.HasPrefix(part, "user@") {
				scope = "--user"
				continue
			}
			unit = part
		}
	}
	return unit, scope
}

// hasRestartJob reads lines of "JOB UNIT TYPE STATE".
func hasRestartJob(jobs, unit string) bool {
	for line := range strings.Lines(jobs) {
		if f := strings.Fields(line); len(f) >= 3 && f[1] == unit && f[2] == "restart" {
			return true
		}
	}
	return false
}
