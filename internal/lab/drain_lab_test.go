//go:build lab && linux

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// clientHost is where the clients are.
const clientHost = "client"

// TestNothingFailsUnderLoad: a pool of 8 behind two routers, with clients that
// pick and make a request all the time. Restarts of servers that are drained,
// the loss of a router, and the loss of coordinator and database cost nothing; a
// crash costs what comes before its suspect mark.
func TestNothingFailsUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, 8, 2, clientHost)
	services := map[string]*service{}
	for _, id := range w.servers {
		services[id] = w.serve(id)
	}
	l := []*load{w.startPicks(w.Host(clientHost), 2), w.startLibrary(w.Host(clientHost), 2)}

	w.restartByShutdown(l, services)
	w.restartByOperator(l, services)
	w.loseARouter(l)
	w.loseTheCoordinator(l)
	w.loseAServer(l)
}

// restartByShutdown stops each agent by SIGTERM and its service then, and starts
// both again.
func (w *world) restartByShutdown(l []*load, services map[string]*service) {
	w.t.Helper()
	begin := time.Now()
	var longest time.Duration
	for _, id := range w.servers {
		term := time.Now()
		ctx, cancel := context.WithTimeout(w.t.Context(), patience)
		err := w.agents[id].Terminate(ctx)
		cancel()
		if err != nil || w.agents[id].ExitCode() != 0 {
			w.t.Fatalf("agent of %s: %v, exit status %d", id, err, w.agents[id].ExitCode())
		}
		longest = max(longest, time.Since(term))
		if log := w.Log("agent-" + id); !strings.Contains(log, "SAFE") {
			w.t.Errorf("the agent of %s does not say that it is safe", id)
		}
		services[id].stop(w.t)
		services[id] = w.serve(id)
		w.start(lab.AgentConfig{Server: id})
		w.settled()
	}
	noneFailed(l, fmt.Sprintf("rolling restart by SIGTERM of %d servers in %.1f s, longest leave %.0f ms",
		len(w.servers), time.Since(begin).Seconds(), longest.Seconds()*1000))
}

// restartByOperator lets buddyctl walk the pool; its command lets what is under
// way end, asks the test to restart a service, by a file, and waits for the answer.
func (w *world) restartByOperator(l []*load, services map[string]*service) {
	w.t.Helper()
	begin := time.Now()
	cmd, tmp := buddyctl(w.t, "rolling-restart", "--admin", w.AdminAddress(), "--insecure", "--steady", "1s", "--",
		"sh", "-c", `sleep 0.3; touch "$TMPDIR/$BUDDYRING_SERVER_ID.stop"; while [ -e "$TMPDIR/$BUDDYRING_SERVER_ID.stop" ]; do sleep 0.02; done`)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	for _, id := range w.servers {
		asked := filepath.Join(tmp, id+".stop")
		w.await("the restart of "+id, func(context.Context) error {
			_, err := os.Stat(asked)
			return err
		})
		services[id].stop(w.t)
		services[id] = w.serve(id)
		if err := os.Remove(asked); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		w.t.Fatalf("%v\n%s", err, &out)
	}
	w.settled()
	noneFailed(l, fmt.Sprintf("buddyctl rolling-restart of %d servers in %.1f s", len(w.servers), time.Since(begin).Seconds()))
}

// loseARouter kills one of two routers; clients go to the other one.
func (w *world) loseARouter(l []*load) {
	w.t.Helper()
	w.RouterProcess(0).Kill()
	time.Sleep(watched(2*time.Second, time.Minute))
	noneFailed(l, "SIGKILL of one router of two")
	// It is missed: nothing is safe without it.
	drained := w.drain("web-1", time.Second)
	if m := drained.GetMissing(); drained.GetState() != coordinatorv1.DrainState_DRAIN_STATE_PARTIAL || len(m) != 1 || m[0].GetRouterId() != "router-1" {
		w.t.Errorf("drain without a router: %v", drained)
	}
	if err := w.StartRouter(0); err != nil {
		w.t.Fatal(err)
	}
	if drained = w.drain("web-1", patience); drained.GetState() != coordinatorv1.DrainState_DRAIN_STATE_SAFE {
		w.t.Errorf("drain with both again: %v", drained)
	}
	if _, err := w.Admin().ResumeServer(w.t.Context(), &coordinatorv1.ResumeServerRequest{Pool: lab.Pool, ServerId: "web-1"}); err != nil {
		w.t.Fatal(err)
	}
	w.settled()
	noneFailed(l, "restart of that router, a drain meanwhile")
}

// loseTheCoordinator kills the coordinator, and with it its database.
func (w *world) loseTheCoordinator(l []*load) {
	w.t.Helper()
	away := watched(4*time.Second, time.Minute)
	w.Coordinator().Kill()
	time.Sleep(away)
	noneFailed(l, fmt.Sprintf("coordinator and database dead for %v", away))
	if err := w.StartCoordinator(); err != nil {
		w.t.Fatal(err)
	}
	w.settled()
	noneFailed(l, "their return")
	removals, err := w.Removals(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range removals {
		if r.GetCause() != coordinatorv1.Cause_CAUSE_SHUTDOWN {
			w.t.Errorf("removed: %s, %v, %s", r.GetServerId(), r.GetCause(), r.GetText())
		}
	}
}

// loseAServer pulls a cable: requests fail until routers hear that the server is
// suspect.
func (w *world) loseAServer(l []*load) {
	w.t.Helper()
	// A leader that has just started removes nobody.
	w.await("the end of the warm-up", func(ctx context.Context) error {
		pool, err := w.Admin().GetPool(ctx, &coordinatorv1.GetPoolRequest{Pool: lab.Pool})
		if err == nil && pool.GetPool().GetWarmingUp() {
			err = errors.New("it warms up")
		}
		return err
	})
	for _, l := range l {
		l.take()
	}
	id := w.servers[3]
	row, err := w.Admin().GetServer(w.t.Context(), &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: id})
	if err != nil {
		w.t.Fatal(err)
	}
	begin := time.Now()
	if err := w.agents[id].Crash(); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), patience, errors.New("the crashed server stays"))
	defer cancel()
	why, _, err := w.Removed(ctx, id, row.GetServer().GetIncarnation())
	if err != nil {
		w.t.Fatal(err)
	}
	suspect := time.Time{}
	for _, m := range why.GetTimeline() {
		if m.GetKind() == "suspect" {
			suspect = why.GetStarted().AsTime().Add(m.GetAt().AsDuration())
		}
	}
	time.Sleep(requestTime + pickTime) // who was under way then
	for _, l := range l {
		l.failedBefore(begin, suspect)
	}
}

// failedBefore reports a crash: what was picked after the suspect mark may not
// fail. The mark has to reach the routers, on a machine that may be busy.
func (l *load) failedBefore(crash, suspect time.Time) {
	l.w.t.Helper()
	failures, asked := l.take()
	for _, f := range failures {
		if f.picked.After(suspect.Add(watched(3*time.Second, 250*time.Millisecond))) {
			l.w.t.Errorf("%s: picked %q %v after the crash, suspect after %v: %v", l.name, f.server, f.picked.Sub(crash), suspect.Sub(crash), f.err)
		}
	}
	l.w.t.Logf("crash of one server of %d, %s: suspect after %.0f ms, %d of %d requests failed",
		len(l.w.servers), l.name, suspect.Sub(crash).Seconds()*1000, len(failures), asked)
}

func (w *world) drain(id string, timeout time.Duration) *coordinatorv1.DrainServerResponse {
	w.t.Helper()
	res, err := w.Admin().DrainServer(w.t.Context(), &coordinatorv1.DrainServerRequest{
		Pool: lab.Pool, ServerId: id, Timeout: durationpb.New(timeout),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}
