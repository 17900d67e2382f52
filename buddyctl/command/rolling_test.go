package command_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/buddyctl/command"
	"github.com/buddyring/buddyring/buddyctl/output"
	"github.com/buddyring/buddyring/internal/member"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestDrainIsPartial(t *testing.T) {
	t.Parallel()
	n, admin := busy(t)
	admin.drained = partial()
	r := n.run(t, "drain", "db-1")
	if r.code != 1 || r.stderr != "buddyctl: some routers have not confirmed\n" || r.stdout !=
		"PARTIAL: db-1 drains since revision 43, not confirmed by edge-2 (gone, last heard 4m ago, at revision 40), edge-3 (connected, last heard 1s ago, at revision 42)\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

func partial() *coordinatorv1.DrainServerResponse {
	return &coordinatorv1.DrainServerResponse{
		State: coordinatorv1.DrainState_DRAIN_STATE_PARTIAL, Revision: 43,
		Missing: []*coordinatorv1.LaggingRouter{
			{RouterId: "edge-2", LastSeen: ago(4 * time.Minute), Connected: new(false), AppliedRevision: 40},
			{RouterId: "edge-3", LastSeen: timestamppb.New(noon.Add(-time.Second)), Connected: new(true), AppliedRevision: 42},
		},
	}
}

// A drain may take its time at each address, beside that of the command.
func TestDrainWaitsLongerThanOtherCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, admin := &network{}, busyAdmin()
		admin.fail = func(string) error { time.Sleep(59 * time.Second); return nil }
		n.serve(t, "10.0.0.1:7401", admin, nil)
		r := n.run(t, "drain", "db-1", "--wait", "59s", "--timeout", "4s", "--admin", "10.0.0.1:7401,10.0.0.2:7401")
		if r.code != 0 {
			t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
		}
	})
}

// walk runs a rolling restart in a bubble; do is called for each command.
func walk(t *testing.T, admin *fakeAdmin, do func(*exec.Cmd) error, args ...string) (r result, ran []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{}
		n.serve(t, "127.0.0.1:7401", admin, nil)
		var mu sync.Mutex
		var stdout, stderr bytes.Buffer
		w := n.world(&stdout, &stderr, output.Terminal{})
		w.Exec = func(c *exec.Cmd) error {
			mu.Lock()
			for _, v := range c.Env {
				if id, ok := strings.CutPrefix(v, "BUDDYRING_SERVER_ID="); ok {
					ran = append(ran, id)
				}
			}
			mu.Unlock()
			return do(c)
		}
		code := command.Run(t.Context(), append([]string{"rolling-restart"}, args...), w)
		r = result{code, stdout.String(), stderr.String()}
	})
	return r, ran
}

// calm is a coordinator of whose servers all are well.
func calm() *fakeAdmin {
	admin := busyAdmin()
	for i := range admin.servers {
		admin.servers[i].Phase, admin.servers[i].Suspect, admin.servers[i].AgentConnected = coordinatorv1.Phase_PHASE_ACTIVE, new(false), new(true)
		admin.servers[i].ServiceText, admin.servers[i].Intent = "", coordinatorv1.Wish_WISH_ACTIVE
	}
	return admin
}

func variable(c *exec.Cmd, name string) string {
	for _, v := range c.Env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

var allDB = []string{"db-1", "db-2", "db-3", "db-4", "db-5"}

func TestRollingRestart(t *testing.T) {
	t.Parallel()
	admin := calm()
	admin.edit("db-2", func(s *coordinatorv1.Server) { s.Intent = coordinatorv1.Wish_WISH_DRAIN })
	admin.edit("db-4", func(s *coordinatorv1.Server) { s.Intent = coordinatorv1.Wish_WISH_MAINTENANCE })
	r, ran := walk(t, admin, func(c *exec.Cmd) error {
		id := variable(c, "BUDDYRING_SERVER_ID")
		if got := strings.Join(c.Args, " "); got != "restart it" || variable(c, "BUDDYRING_ADDRESSES") != "10.0.0.1,2001:db8::1" ||
			variable(c, "BUDDYRING_ENDPOINTS") != "10.0.0.1:8080" || variable(c, "BUDDYRING_POOL") != "default" || variable(c, "BUDDYRING_INCARNATION") != "7" {
			t.Errorf("%s in %v", got, c.Env)
		}
		for _, s := range admin.present() {
			if draining := s.GetPhase() == coordinatorv1.Phase_PHASE_DRAINING; draining != (s.GetServerId() == id) {
				t.Errorf("while %s restarts, %s is %s", id, s.GetServerId(), s.GetPhase())
			}
		}
		// The server is away for a while, and then back.
		admin.edit(id, func(s *coordinatorv1.Server) { s.AgentConnected = new(false) })
		time.AfterFunc(3*time.Second, func() {
			admin.edit(id, func(s *coordinatorv1.Server) { s.AgentConnected, s.Incarnation = new(true), 99 })
		})
		return nil
	}, "--rejoins", "--", "restart", "it")
	if want := []string{"db-1", "db-3", "db-5"}; r.code != 0 || !slices.Equal(ran, want) {
		t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
	}
	if !strings.Contains(r.stdout, "db-2 is drained already, and left alone\ndb-4 is in maintenance, and left alone\n") ||
		!strings.HasSuffix(r.stdout, "all of 3 servers restarted, 2 left alone\n") {
		t.Errorf("stdout %q", r.stdout)
	}
}

// A service that is down passes for well until its checks have failed.
func TestRollingRestartWaitsForTheChecks(t *testing.T) {
	t.Parallel()
	admin := calm()
	var early []string
	r, _ := walk(t, admin, func(c *exec.Cmd) error {
		id := variable(c, "BUDDYRING_SERVER_ID")
		text := func(s string) func() {
			return func() { admin.edit(id, func(server *coordinatorv1.Server) { server.ServiceText = s }) }
		}
		time.AfterFunc(3*time.Second, text("tcp://127.0.0.1:80: connection refused"))
		time.AfterFunc(7*time.Second, func() {
			for _, s := range admin.present() {
				if s.GetServerId() == id && s.GetPhase() != coordinatorv1.Phase_PHASE_DRAINING {
					early = append(early, id)
				}
			}
		})
		time.AfterFunc(8*time.Second, text(""))
		return nil
	}, "--", "restart")
	if r.code != 0 || len(early) > 0 {
		t.Errorf("exit %d, resumed too early: %v; stderr %q", r.code, early, r.stderr)
	}
}

// It stops at the first thing that goes wrong, says what to do, and goes on from
// there.
func TestRollingRestartStopsAndGoesOn(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "progress")
	admin := calm()
	broken := errors.New("exit status 7")
	r, ran := walk(t, admin, func(c *exec.Cmd) error {
		if variable(c, "BUDDYRING_SERVER_ID") == "db-3" {
			return broken
		}
		return nil
	}, "--progress", file, "--", "x")
	if r.code != 1 || !slices.Equal(ran, allDB[:3]) ||
		!strings.Contains(r.stderr, "stopped after 2 of 5 servers: command for db-3: exit status 7; it stays drained: mend it, and then buddyctl resume db-3; run the same command again") {
		t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
	}
	if got := admin.present()[2].GetPhase(); got != coordinatorv1.Phase_PHASE_DRAINING {
		t.Errorf("db-3 is %s", got)
	}
	// What was begun is taken up again although it is drained.
	admin.edit("db-3", func(s *coordinatorv1.Server) { s.Intent = coordinatorv1.Wish_WISH_DRAIN })
	r, ran = walk(t, admin, func(*exec.Cmd) error { return nil }, "--progress", file, "--", "x")
	if r.code != 0 || !slices.Equal(ran, allDB[2:]) {
		t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
	}
	if err := os.WriteFile(file, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, _ = walk(t, admin, nil, "--progress", file, "--", "x"); r.code != 2 {
		t.Errorf("exit %d of a file that is none, stderr %q", r.code, r.stderr)
	}
}

func TestRollingRestartThatIsNotSafe(t *testing.T) {
	t.Parallel()
	well := func(*exec.Cmd) error { return nil }
	t.Run("partial", func(t *testing.T) {
		t.Parallel()
		admin := calm()
		admin.drained = partial()
		r, ran := walk(t, admin, well, "--", "x")
		if r.code != 1 || len(ran) > 0 || !strings.Contains(r.stderr, "not confirmed by edge-2") || admin.present()[0].GetPhase() != coordinatorv1.Phase_PHASE_ACTIVE {
			t.Errorf("exit %d, ran for %v, stderr %q, %v", r.code, ran, r.stderr, admin.present()[0])
		}
		if r, ran = walk(t, admin, well, "--allow-partial", "--", "x"); r.code != 0 || len(ran) != 5 {
			t.Errorf("allowed: exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		admin := calm()
		admin.fail = func(method string) error {
			if method == "DrainServer" {
				return &member.RefusedError{Rule: "floor", Reason: "not safe to stop: 2 of 4 left"}
			}
			return nil
		}
		r, ran := walk(t, admin, well, "--", "x")
		if r.code != 4 || len(ran) > 0 || !strings.Contains(r.stderr, "not safe to stop") {
			t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
		}
	})
	t.Run("nobody knows", func(t *testing.T) {
		t.Parallel()
		for progress, says := range map[string]string{
			"":                                     "db-1 may be drained all the same, and then the next run leaves it alone: buddyctl resume db-1 first",
			filepath.Join(t.TempDir(), "progress"): "db-1 may be drained all the same: the next run takes it up again",
		} {
			admin := calm()
			admin.fail = func(method string) error {
				if method == "DrainServer" {
					return fmt.Errorf("%w: the coordinator stops", member.ErrUnavailable)
				}
				return nil
			}
			r, ran := walk(t, admin, well, "--progress", progress, "--", "x")
			if r.code != 3 || len(ran) > 0 || !strings.Contains(r.stderr, says) {
				t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
			}
		}
	})
	t.Run("not back", func(t *testing.T) {
		t.Parallel()
		admin := calm()
		r, ran := walk(t, admin, func(c *exec.Cmd) error {
			admin.edit(variable(c, "BUDDYRING_SERVER_ID"), func(s *coordinatorv1.Server) { s.ServiceText = "503" })
			return nil
		}, "--back", "1m", "--", "x")
		if r.code != 5 || len(ran) != 1 || !strings.Contains(r.stderr, "db-1 is not back within 1m0s: its service is down: 503") || !strings.Contains(r.stderr, "it stays drained: buddyctl resume db-1") {
			t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
		}
	})
}

// Two at once, but never neighbours: db-2 is between db-1 and db-3.
func TestRollingRestartInParallel(t *testing.T) {
	t.Parallel()
	admin := calm()
	ring := busyRing()
	var mu sync.Mutex
	under, most := map[string]bool{}, 0
	r, ran := walk(t, admin, func(c *exec.Cmd) error {
		id := variable(c, "BUDDYRING_SERVER_ID")
		mu.Lock()
		under[id] = true
		most = max(most, len(under))
		for _, m := range ring.GetMembers() {
			if under[m.GetServerId()] && (under[m.GetFirstBuddy()] || under[m.GetSecondBuddy()]) {
				t.Errorf("neighbours at once: %v", under)
			}
		}
		mu.Unlock()
		time.Sleep(time.Duration(len(id)) * time.Second)
		mu.Lock()
		delete(under, id)
		mu.Unlock()
		return nil
	}, "--parallel", "2", "--", "x")
	slices.Sort(ran)
	if r.code != 0 || !slices.Equal(ran, allDB) || most != 2 {
		t.Errorf("exit %d, ran for %v, %d at most, stderr %q", r.code, ran, most, r.stderr)
	}
}

// rejoining is a pool where db-3 drains slowly, and db-1 meanwhile joins again beside
// it and is back after a while, if ever.
func rejoining(back time.Duration) (admin *fakeAdmin, restart func(*exec.Cmd) error) {
	admin = calm()
	admin.arrange(allDB...)
	admin.drains = map[string]time.Duration{"db-3": 2 * time.Second}
	return admin, func(c *exec.Cmd) error {
		id := variable(c, "BUDDYRING_SERVER_ID")
		again := func() {
			admin.edit(id, func(s *coordinatorv1.Server) { s.AgentConnected, s.Incarnation = new(true), s.GetIncarnation()+1 })
		}
		if id != "db-1" {
			again()
			return nil
		}
		admin.edit(id, func(s *coordinatorv1.Server) { s.AgentConnected = new(false) })
		admin.arrange("db-2", "db-3", "db-1", "db-4", "db-5")
		if back > 0 {
			time.AfterFunc(back, again)
		}
		return nil
	}
}

// Who comes back in another place may have a neighbour there that is drained already:
// that one waits.
func TestRollingRestartFollowsTheRing(t *testing.T) {
	t.Parallel()
	admin, restart := rejoining(20 * time.Second)
	r, ran := walk(t, admin, func(c *exec.Cmd) error {
		if variable(c, "BUDDYRING_SERVER_ID") == "db-3" && !admin.present()[0].GetAgentConnected() {
			t.Error("db-3 is restarted while its neighbour db-1 is away")
		}
		return restart(c)
	}, "--parallel", "2", "--rejoins", "--", "x")
	slices.Sort(ran)
	if r.code != 0 || !slices.Equal(ran, allDB) {
		t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
	}
}

// Where the neighbour does not come back, who waits for it is not restarted.
func TestRollingRestartGivesUpItsTurn(t *testing.T) {
	t.Parallel()
	admin, restart := rejoining(0)
	r, ran := walk(t, admin, restart, "--parallel", "2", "--rejoins", "--back", "1m", "--", "x")
	if r.code != 5 || !slices.Equal(ran, []string{"db-1"}) || !strings.Contains(r.stderr, "db-3") {
		t.Errorf("exit %d, ran for %v, stderr %q", r.code, ran, r.stderr)
	}
	if got := admin.present()[2].GetPhase(); got != coordinatorv1.Phase_PHASE_ACTIVE {
		t.Errorf("db-3 is %s", got)
	}
}
