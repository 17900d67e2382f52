//go:build lab && linux

package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/buddyring/buddyring/internal/lab"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// row returns a server's row.
func (w *world) row(server string) *coordinatorv1.Server {
	w.t.Helper()
	answer, err := w.Admin().GetServer(w.t.Context(), &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: server})
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.GetServer()
}

// ring returns the ring without its revision.
func (w *world) ring() []*coordinatorv1.RingMember {
	w.t.Helper()
	answer, err := w.Admin().GetRing(w.t.Context(), &coordinatorv1.GetRingRequest{Pool: lab.Pool})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range answer.GetMembers() {
		m.TemporaryWatchers = nil
	}
	return answer.GetMembers()
}

func sameRing(t *testing.T, before, after []*coordinatorv1.RingMember) {
	t.Helper()
	if d := cmp.Diff(before, after, protocmp.Transform()); d != "" {
		t.Errorf("the ring has changed (-before +after):\n%s", d)
	}
}

// watch looks at the pool for a while and calls it an error when a server is
// suspect for longer than a blink.
func (w *world) watch(d time.Duration) {
	w.t.Helper()
	since := map[string]time.Time{}
	for end := time.Now().Add(d); time.Now().Before(end); {
		rows, err := w.Servers(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		now := time.Now()
		for _, row := range rows {
			switch at, marked := since[row.GetServerId()]; {
			case !row.GetSuspect():
				delete(since, row.GetServerId())
			case !marked:
				since[row.GetServerId()] = now
			case now.Sub(at) > blink():
				w.t.Fatalf("%s is suspect for %v", row.GetServerId(), now.Sub(at).Round(time.Millisecond))
			}
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatal("no time left")
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func TestAgentKilledRemovesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5)
	before, row := w.ring(), w.row("web-2")
	w.agents["web-2"].Kill()
	w.watch(watched(8*time.Second, time.Minute))
	sameRing(t, before, w.ring())
	w.start(lab.AgentConfig{Server: "web-2"})
	w.settled()
	if got := w.row("web-2").GetIncarnation(); got != row.GetIncarnation() {
		t.Errorf("incarnation %d, want %d: the agent had its state", got, row.GetIncarnation())
	}
	w.nobodyRemoved()
}

func TestAgentStoppedRemovesNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5)
	before := w.ring()
	agent := w.agents["web-4"]
	if err := agent.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.watch(watched(15*time.Second, time.Minute))
	sameRing(t, before, w.ring())
	if err := agent.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.settled()
	sameRing(t, before, w.ring())
	w.nobodyRemoved()
}

func TestLostStateDirectoryIsAdoptedInPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	before, row := w.ring(), w.row("web-3")
	w.agents["web-3"].Kill()
	if err := os.RemoveAll(w.StateDir("web-3")); err != nil {
		t.Fatal(err)
	}
	w.start(lab.AgentConfig{Server: "web-3"})
	w.settled()
	sameRing(t, before, w.ring())
	if got := w.row("web-3").GetIncarnation(); got <= row.GetIncarnation() {
		t.Errorf("incarnation %d after %d: it must be a new one", got, row.GetIncarnation())
	}
	w.nobodyRemoved()
}

func TestQuickRebootKeepsItsPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	before := w.ring()
	w.agents["web-3"].Kill()
	w.start(lab.AgentConfig{Server: "web-3", Boot: true})
	w.settled()
	sameRing(t, before, w.ring())
	w.nobodyRemoved()
}

func TestChangedAddressIsFollowed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, "spare")
	before, row := w.ring(), w.row("web-3")
	w.agents["web-3"].Kill()
	// The same state directory and the same boot are the proof.
	w.start(lab.AgentConfig{Server: "web-3", Host: "spare"})
	w.settled()
	sameRing(t, before, w.ring())
	if got, want := w.row("web-3").GetSpec().GetProbeAddresses()[0], w.Host("spare").Addr().String(); got != want {
		t.Errorf("probe address %s, want %s (was %v)", got, want, row.GetSpec().GetProbeAddresses())
	}
	w.nobodyRemoved()
}

func TestChangedAddressWithoutProofWaitsForTheOldOneToFail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, "spare")
	before := w.ring()
	// The agent is dead, but its host answers: whoever comes now might be a twin.
	w.agents["web-3"].Kill()
	w.start(lab.AgentConfig{Server: "web-3", Host: "spare", State: "newcomer"}).Expect()
	w.watch(3 * time.Second)
	if got, want := w.row("web-3").GetSpec().GetProbeAddresses()[0], w.Host("web-3").Addr().String(); got != want {
		t.Errorf("probe address %s, want the old %s while that answers", got, want)
	}
	sameRing(t, before, w.ring())
	w.nobodyRemoved()
}

func TestChangedAddressWithoutProofIsAcceptedOnceTheOldOneFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, "spare")
	before, row := w.ring(), w.row("web-3")
	if err := w.agents["web-3"].Crash(); err != nil {
		t.Fatal(err)
	}
	w.start(lab.AgentConfig{Server: "web-3", Host: "spare", State: "newcomer"})
	w.await("the move", func(ctx context.Context) error {
		answer, err := w.Admin().GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: "web-3"})
		if err != nil {
			return err
		}
		if got, want := answer.GetServer().GetSpec().GetProbeAddresses()[0], w.Host("spare").Addr().String(); got != want {
			return fmt.Errorf("its probe address is %s, not %s", got, want)
		}
		return nil
	})
	w.settled()
	after := w.row("web-3")
	if after.GetIncarnation() <= row.GetIncarnation() {
		t.Errorf("incarnation %d after %d: it must be a new one", after.GetIncarnation(), row.GetIncarnation())
	}
	if len(w.ring()) != len(before) {
		t.Errorf("%d members, want %d", len(w.ring()), len(before))
	}
}

func TestTwinIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4, "spare")
	before, row := w.ring(), w.row("web-3")
	original := w.agents["web-3"]
	w.start(lab.AgentConfig{Server: "web-3", Host: "spare", State: "twin"}).Expect()
	w.watch(3 * time.Second)
	w.agents["web-3"] = original
	after := w.row("web-3")
	if after.GetIncarnation() != row.GetIncarnation() || after.GetSpec().GetProbeAddresses()[0] != row.GetSpec().GetProbeAddresses()[0] {
		t.Errorf("the twin has changed the row:\n%v\n%v", row, after)
	}
	sessions, err := w.Admin().ListSessions(t.Context(), &coordinatorv1.ListSessionsRequest{Pool: lab.Pool})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(sessions.GetSessions()); n != 4 {
		t.Errorf("%d sessions, want 4", n)
	}
	w.settled()
	sameRing(t, before, w.ring())
	w.nobodyRemoved()
}

func TestCrashClosesTheRingAndComesBackHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 5)
	w.crashAndReturn("web-2")
	w.settled()
	removals, err := w.Removals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(removals) != 1 || removals[0].GetCause() != coordinatorv1.Cause_CAUSE_CRASHED {
		t.Errorf("removals: %v", removals)
	}
}

// crashAndReturn lets a host crash and boot, and waits until its server is held.
func (w *world) crashAndReturn(server string) {
	w.t.Helper()
	incarnation := w.row(server).GetIncarnation()
	if err := w.agents[server].Crash(); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), patience, errors.New(server+" is not removed"))
	defer cancel()
	if _, _, err := w.Removed(ctx, server, incarnation); err != nil {
		w.t.Fatal(err)
	}
	if err := w.Host(server).LinkUp(); err != nil {
		w.t.Fatal(err)
	}
	w.start(lab.AgentConfig{Server: server, Boot: true})
	w.await("the return", func(ctx context.Context) error {
		answer, err := w.Admin().GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: lab.Pool, ServerId: server})
		if err == nil && answer.GetServer().GetPhase() != coordinatorv1.Phase_PHASE_HELD {
			err = fmt.Errorf("it is %v", answer.GetServer().GetPhase())
		}
		return err
	})
}

// Two servers that cannot reach each other are both well to all others.
func TestBadEdgeRemovesNobody(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 5} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, n)
			before := w.ring()
			buddy := before[0].GetFirstBuddy()
			if err := w.Host(before[0].GetServerId()).Cut(w.Host(buddy).Addr()); err != nil {
				t.Fatal(err)
			}
			w.watch(watched(8*time.Second, 30*time.Second))
			sameRing(t, before, w.ring())
			w.nobodyRemoved()
			w.heardDown(before[0].GetServerId())
		})
	}
}
