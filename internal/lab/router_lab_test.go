//go:build lab && linux

package lab_test

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// TestRouterStoppedWhileAServerCrashes stops one router of two. The other one steers
// away as ever, and a drain says who has not confirmed it. When the stopped one goes
// on, it learns what it has missed.
func TestRouterStoppedWhileAServerCrashes(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, 6, 2)
	a, _ := w.audience(2)
	const running, stopped = 0, 1
	a.follows(stopped, 1)
	incarnation := w.row("web-2").GetIncarnation()
	if err := w.RouterProcess(stopped).Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}

	a.crash("web-2")
	took, _ := a.steers(running, "web-2")
	a.removed(running, "web-2")
	w.awaitConfirmed("web-2", incarnation, "router-1")
	a.harms("web-4")
	partial := w.drain("web-4", 3*time.Second)
	missing := partial.GetMissing()
	if partial.GetState() != coordinatorv1.DrainState_DRAIN_STATE_PARTIAL || len(missing) != 1 ||
		missing[0].GetRouterId() != "router-2" || !missing[0].GetConnected() || missing[0].GetAppliedRevision() >= partial.GetRevision() {
		t.Errorf("the drain says %v; want PARTIAL for router-2, connected and behind", partial)
	}
	a.removed(running, "web-4")

	begin := time.Now()
	if err := w.RouterProcess(stopped).Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	a.removed(stopped, "web-2")
	a.removed(stopped, "web-4")
	t.Logf("steered away after %v; the stopped router knew all %v after it went on", took.Round(time.Millisecond),
		time.Since(begin).Round(time.Millisecond))
	w.awaitConfirmed("web-2", incarnation, "router-1", "router-2")
	if safe := w.drain("web-4", 10*time.Second); safe.GetState() != coordinatorv1.DrainState_DRAIN_STATE_SAFE {
		t.Errorf("the drain says %v; want SAFE", safe)
	}
	w.onlyRemoved("web-2")
}

// drain drains a server, and waits for routers.
func (w *world) drain(server string, timeout time.Duration) *coordinatorv1.DrainServerResponse {
	w.t.Helper()
	answer, err := w.Admin().DrainServer(w.t.Context(), &coordinatorv1.DrainServerRequest{
		Pool: lab.Pool, ServerId: server, Timeout: durationpb.New(timeout), Reason: "test",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer
}

// awaitConfirmed waits until exactly these routers have confirmed the removal of a
// membership.
func (w *world) awaitConfirmed(server string, incarnation uint64, routers ...string) {
	w.t.Helper()
	w.await(fmt.Sprintf("the confirmation by %q that %s is gone", routers, server), func(ctx context.Context) error {
		answer, err := w.Admin().ExplainServer(ctx, &coordinatorv1.ExplainServerRequest{Pool: lab.Pool, ServerId: server})
		if err != nil {
			return err
		}
		var all []string
		for _, d := range answer.GetDecisions() {
			if d.GetExplanation().GetIncarnation() != incarnation || d.GetExplanation().GetRevision() == 0 {
				continue
			}
			for _, r := range d.GetRouters() {
				if r.GetAppliedAt() != nil {
					all = append(all, r.GetRouterId())
				}
			}
		}
		if slices.Sort(all); !slices.Equal(all, routers) {
			return fmt.Errorf("it is confirmed by %q", all)
		}
		return nil
	})
}

// onlyRemoved checks that these servers were removed as crashed, each once, and no
// others.
func (w *world) onlyRemoved(servers ...string) {
	w.t.Helper()
	removals, err := w.Removals(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var removed []string
	for _, r := range removals {
		removed = append(removed, r.GetServerId())
		if r.GetCause() != coordinatorv1.Cause_CAUSE_CRASHED {
			w.t.Errorf("%s was removed as %v", r.GetServerId(), r.GetCause())
		}
	}
	if slices.Sort(removed); !slices.Equal(removed, slices.Sorted(slices.Values(servers))) {
		w.t.Errorf("removed were %q, want %q", removed, servers)
	}
}
