package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// removedMe is what a coordinator says of incarnation 5.
func removedMe(cause member.Cause) error {
	return fmt.Errorf("resume me: %w", &member.RemovedError{ID: "me", Incarnation: 5, Cause: cause})
}

// TestRemovedWhileConnected: the command runs once, after its incarnation is
// forgotten on disk, and the agent joins anew when it has ended.
func TestRemovedWhileConnected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		f := start(t, store, c)
		f.fence.takes(10 * time.Second)
		p := c.next()
		if !slices.Contains(p.hello.GetFeatures(), featureRemoved) {
			t.Errorf("features %v", p.hello.GetFeatures())
		}
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		p.end <- removedMe(member.CauseCrashed)
		time.Sleep(5 * time.Second)
		want := Removal{Pool: "default", ID: "me", Incarnation: 5, Cause: member.CauseCrashed}
		if runs, _, _ := f.fence.did(); len(runs) != 1 || runs[0] != want {
			t.Errorf("runs %+v", runs)
		}
		if s := store.get(); s.Incarnation != 0 {
			t.Errorf("saved while the command runs: %+v", s)
		}
		if err := f.Ready(); err == nil {
			t.Error("ready while it is removed")
		}
		again := c.next()
		runs, ended, how := f.fence.did()
		if len(runs) != 1 || how != nil || ended.IsZero() || again.at.Before(ended) || again.at.Sub(ended) > time.Second {
			t.Errorf("joins at %v after %d runs, the last of which ended at %v with %v", again.at, len(runs), ended, how)
		}
		if again.hello.GetIncarnation() != 0 {
			t.Errorf("hello %v", again.hello)
		}
		// The news is old when it comes twice.
		again.end <- removedMe(member.CauseCrashed)
		c.next()
		if runs, _, _ := f.fence.did(); len(runs) != 1 {
			t.Errorf("%d runs", len(runs))
		}
		if n := f.metric("buddyring_agent_removals_total"); n != 1 {
			t.Errorf("removals_total %v", n)
		}
	})
}

// TestRemovedWhileCutOff: an agent learns of it when it comes back, also after
// its own restart, and joins anew only then.
func TestRemovedWhileCutOff(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*State)
		err    error
		runs   int
	}{
		{"removed", func(*State) {}, removedMe(member.CauseLossy), 1},
		{"removed in an earlier boot", func(s *State) { s.BootID = "before" }, removedMe(member.CauseLossy), 0},
		{"its own leave", func(s *State) { s.Leaving = true }, removedMe(member.CauseUnspecified), 0},
		{"another incarnation", func(s *State) { s.Incarnation = 6 }, removedMe(member.CauseLossy), 0},
		{"another server", func(*State) {}, &member.RemovedError{ID: "you", Incarnation: 5}, 0},
		{"only replaced", func(*State) {}, fmt.Errorf("session replaced: %w", member.ErrStale), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				coordinator := newCoordinator(t)
				saved := savedState(t)
				saved.BootID = "boot"
				c.change(&saved)
				f := start(t, &memory{state: saved}, coordinator)
				p := coordinator.next()
				if p.hello.GetIncarnation() != uint64(saved.Incarnation) {
					t.Errorf("hello %v", p.hello)
				}
				p.end <- c.err
				again := coordinator.next()
				var removed *member.RemovedError
				over := errors.As(c.err, &removed) && removed.ID == "me" && removed.Incarnation == saved.Incarnation
				if (again.hello.GetIncarnation() == 0) != over {
					t.Errorf("hello %v", again.hello)
				}
				if runs, _, _ := f.fence.did(); len(runs) != c.runs {
					t.Errorf("%d runs, want %d", len(runs), c.runs)
				}
			})
		})
	}
}

func TestFenceHasATimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		f.fence.takes(time.Hour)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		synctest.Wait()
		p.end <- removedMe(member.CauseOperator)
		began := time.Now()
		again := c.next()
		if _, _, how := f.fence.did(); !errors.Is(how, errFenceTime) || again.at.Sub(began) > fenceTime+time.Second {
			t.Errorf("ended with %v, joins after %v", how, again.at.Sub(began))
		}
	})
}

// TestFenceThatCannotBeKilled holds up neither the way back into the pool nor the
// end of the agent for long.
func TestFenceThatCannotBeKilled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		stuck := make(chan struct{})
		f.fence.sticks(stuck)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		synctest.Wait()
		p.end <- removedMe(member.CauseCrashed)
		began := time.Now()
		p = c.next()
		if took := p.at.Sub(began); took < fenceTime || took > fenceTime+fenceEnd+time.Second {
			t.Errorf("joins after %v", took)
		}
		p.welcome(6, assignmentOf(1))
		synctest.Wait()
		p.end <- fmt.Errorf("remove me: %w", &member.RemovedError{ID: "me", Incarnation: 6})
		time.Sleep(10 * time.Second)
		began = time.Now()
		f.end()
		if took := time.Since(began); took > 2*fenceEnd {
			t.Errorf("the agent's end took %v", took)
		}
		if runs, _, _ := f.fence.did(); len(runs) != 2 {
			t.Errorf("%d runs", len(runs))
		}
		close(stuck)
		synctest.Wait()
	})
}

// TestDiskThatHangs: it holds up neither what is done about a removal, nor a leave,
// nor the agent's end for long.
func TestDiskThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		f := start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		hang := make(chan struct{})
		store.set(nil, hang)
		p.end <- removedMe(member.CauseCrashed)
		began := time.Now()
		p = c.next()
		if runs, _, _ := f.fence.did(); len(runs) != 1 || p.at.Sub(began) > diskTime+time.Second {
			t.Errorf("joins after %v and %d runs", p.at.Sub(began), len(runs))
		}
		p.welcome(8, assignmentOf(1))
		left := make(chan error, 1)
		go func() { left <- f.Leave(t.Context(), "shutdown") }()
		expect(p, (*pb.SessionRequest).GetLeave)
		p.leaveResult(true, "")
		began = time.Now()
		if err := <-left; err != nil {
			t.Errorf("leave: %v", err)
		}
		f.end()
		if took := time.Since(began); took > 2*diskTime {
			t.Errorf("the agent's end took %v", took)
		}
		close(hang)
		synctest.Wait()
		if s := store.get(); s.Incarnation != 0 {
			t.Errorf("saved at last: %+v", s)
		}
	})
}

// TestDiskThatHangsAtStart: the agent starts without what is saved there, and what
// the disk says at last is not taken for the present state.
func TestDiskThatHangsAtStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, hang := newCoordinator(t), make(chan struct{})
		began := time.Now()
		f := start(t, &memory{state: savedState(t), hangLoad: hang}, c)
		p := c.next()
		if took := p.at.Sub(began); took > diskTime+time.Second || p.hello.GetIncarnation() != 0 {
			t.Errorf("after %v: %v", took, p.hello)
		}
		p.welcome(8, assignmentOf(1))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		close(hang)
		synctest.Wait()
		if s := f.keeper.get(); s.Incarnation != 8 {
			t.Errorf("the state is %+v", s)
		}
	})
}

// TestOwnLeaveIsNoRemoval: the answer to a leave was lost, and the next
// coordinator knows the server no more.
func TestOwnLeaveIsNoRemoval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		f := start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		synctest.Wait()
		left := make(chan error, 1)
		go func() { left <- f.Leave(t.Context(), "shutdown") }()
		expect(p, (*pb.SessionRequest).GetLeave)
		synctest.Wait()
		if !store.get().Leaving {
			t.Error("a restart would not know of the leave")
		}
		p.end <- member.ErrUnavailable
		c.next().end <- removedMe(member.CauseUnspecified)
		if err := <-left; err != nil {
			t.Errorf("leave: %v", err)
		}
		if runs, _, _ := f.fence.did(); len(runs) != 0 {
			t.Errorf("%d runs", len(runs))
		}
	})
}

func TestOnRemovedCommand(t *testing.T) {
	t.Parallel()
	if onRemoved("") != nil {
		t.Error("without a command there is something to run")
	}
	run := onRemoved("env | grep ^BUDDYRING_ | grep -v ^BUDDYRING_AGENT_ | sort; exit 1")
	output, err := run(t.Context(), Removal{Pool: "web", ID: "web-1", Incarnation: 7, Cause: member.CauseUnreachable})
	want := []string{"BUDDYRING_INCARNATION=7", "BUDDYRING_POOL=web", "BUDDYRING_REASON=unreachable", "BUDDYRING_SERVER_ID=web-1"}
	if got := strings.Split(output, "\n"); err == nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	output, _ = onRemoved("echo $BUDDYRING_REASON")(t.Context(), Removal{})
	if output != "unknown" {
		t.Errorf("reason %q", output)
	}
}
