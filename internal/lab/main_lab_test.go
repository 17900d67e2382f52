//go:build lab && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab"
	"github.com/buddyring/buddyring/internal/netlab"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// binEnv is where the programs under test are.
const binEnv = "BUDDYRING_LAB_BIN"

// longEnv, when it is set, makes tests that wait for nothing to happen wait as
// long as the documents say, instead of just long enough for most mistakes.
const longEnv = "BUDDYRING_LAB_LONG"

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run builds the programs outside and runs the tests inside.
func run(m *testing.M) int {
	bin := os.Getenv(binEnv)
	if bin == "" {
		var err error
		if bin, err = os.MkdirTemp("", "buddyring-lab-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(bin)
		if err := build(bin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	inside := func(context.Context) int { return m.Run() }
	code, err := netlab.Enter(context.Background(), netlab.Entry{Env: []string{binEnv + "=" + bin}}, inside)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v\nthe lab tests need root, or unprivileged user namespaces: run them with sudo\n", err)
		return 1
	}
	return code
}

func build(bin string) error {
	for folder, program := range map[string]string{
		"coordinator": "buddyring-coordinator", "router": "buddyring-router", "agent": "buddyring-agent", "buddyctl": "buddyctl",
	} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(bin, program), "./"+folder)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, out)
		}
	}
	return nil
}

// How long the tests wait for what must happen; far above what is normal.
const patience = time.Minute

// watched is how long a test watches for what must not happen.
func watched(short, long time.Duration) time.Duration {
	if os.Getenv(longEnv) != "" {
		return long
	}
	return short
}

// blink is how long a server that is well may be suspect: a second, or a little
// more on a machine with other work, where pings come late.
func blink() time.Duration { return watched(4*time.Second, time.Second) }

// errSuspect: the router calls a server suspect.
var errSuspect = errors.New("suspect")

// world is a site with agents, for one test.
type world struct {
	*lab.Site
	t       *testing.T
	dir     string
	servers []string
	agents  map[string]*lab.Agent
}

// newWorld starts a site with so many servers, web-1 and so on, and waits until
// all is well. spare are further hosts.
func newWorld(t *testing.T, n int, spare ...string) *world {
	t.Helper()
	return newWorldOf(t, n, 1, spare...)
}

// newWorldOf is newWorld with so many routers.
func newWorldOf(t *testing.T, n, routers int, spare ...string) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), agents: map[string]*lab.Agent{}}
	for i := range n {
		w.servers = append(w.servers, "web-"+strconv.Itoa(i+1))
	}
	w.Site = newSite(t, lab.Config{
		Bin: os.Getenv(binEnv), Dir: w.dir, Routers: routers, Hosts: slices.Concat(w.servers, spare),
	})
	for _, server := range w.servers {
		w.start(lab.AgentConfig{Server: server})
	}
	w.settled()
	if n > 0 {
		w.await("the router's first view", w.routed)
	}
	return w
}

func newSite(t *testing.T, cfg lab.Config) *lab.Site {
	t.Helper()
	site, err := lab.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(site.Troubles(), site.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(cfg.Dir, "*.log"))
			for _, log := range logs {
				name := filepath.Base(log)
				t.Logf("the end of %s:\n%s", name, site.Log(name[:len(name)-len(".log")]))
			}
		}
	})
	return site
}

// start starts an agent.
func (w *world) start(c lab.AgentConfig) *lab.Agent {
	w.t.Helper()
	a, err := w.StartAgent(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.agents[c.Server] = a
	return a
}

// settled waits until all servers are well.
func (w *world) settled() {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), patience, errors.New("the pool does not settle"))
	defer cancel()
	if err := w.AwaitSettled(ctx, w.servers); err != nil {
		w.t.Fatal(err)
	}
}

// await waits for something that must happen.
func (w *world) await(what string, ask func(context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), patience, errors.New(what+" does not happen"))
	defer cancel()
	if err := lab.Await(ctx, ask); err != nil {
		w.t.Fatal(err)
	}
}

// nobodyRemoved checks the whole history.
func (w *world) nobodyRemoved() {
	w.t.Helper()
	removals, err := w.Removals(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range removals {
		w.t.Errorf("removed: %s, %v, %s", r.GetServerId(), r.GetCause(), r.GetText())
	}
}

// routed says what is wrong when the router does not name all servers as well.
func (w *world) routed(ctx context.Context) error {
	answer, err := w.Router(0).Resolve(ctx, &routerv1.ResolveRequest{Pool: lab.Pool})
	if err != nil {
		return err
	}
	if n := len(answer.GetServers()); n != len(w.servers) {
		return fmt.Errorf("the router names %d servers, not %d", n, len(w.servers))
	}
	for _, s := range answer.GetServers() {
		if s.GetState() == routerv1.State_STATE_SUSPECT {
			return fmt.Errorf("%w: %s", errSuspect, s.GetServerId())
		}
		if s.GetState() != routerv1.State_STATE_ACTIVE {
			return fmt.Errorf("the router calls %s %v", s.GetServerId(), s.GetState())
		}
	}
	return nil
}
