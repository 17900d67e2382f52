package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/agent/prober"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// bubble runs a test in virtual time.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

const addrA, addrB = "192.0.2.10", "192.0.2.11"

func TestJoin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		start(t, store, c)
		p := c.next()
		if h := p.hello; h.GetPool() != "default" || h.GetServerId() != "me" || h.GetBootId() != "boot" || h.GetInstanceId() == "" ||
			h.GetIncarnation() != 0 || h.GetVersion() != "test" || h.GetSpec().GetWeight() != 100 ||
			!slices.Equal(h.GetSpec().GetProbeAddresses(), []string{"192.0.2.1"}) {
			t.Errorf("hello %v", h)
		}
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		ack := expect(p, (*pb.SessionRequest).GetAssignmentAck)
		if ack.GetSeq() != 1 {
			t.Errorf("ack %v", ack)
		}
		if s := store.get(); s.Incarnation != 5 || s.StoreID != testStore || s.Epoch != 1 || len(s.Assignment.Subjects) != 1 {
			t.Errorf("saved before the ack: %+v", s)
		}
		r := expect(p, (*pb.SessionRequest).GetReport)
		if r.GetServerId() != "a" || r.GetIncarnation() != 7 || r.GetEvidence().GetSight() != pb.Sight_SIGHT_UP {
			t.Errorf("first good probe: %v", r)
		}
		if took := time.Since(p.at); took > 10*time.Millisecond {
			t.Errorf("the first good probe was reported after %v", took)
		}
	})
}

func TestDigests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA), subjectOf("b", addrB)))
		time.Sleep(21 * time.Second)
		digests := p.seen()
		if len(digests) != 5 {
			t.Fatalf("%d digests in 21 s, want 5", len(digests))
		}
		last := digests[4]
		if last.GetSeq() != 5 || len(last.GetSubjects()) != 2 || last.GetSelfScore() != 0 {
			t.Errorf("digest %v", last)
		}
		for _, s := range last.GetSubjects() {
			e := s.GetEvidence()
			if e.GetSight() != pb.Sight_SIGHT_UP || e.GetRtt().AsDuration() != time.Millisecond || e.GetSent() != 10 || s.GetLostOfTen() != 0 {
				t.Errorf("subject %v", s)
			}
		}
		if got := f.metric("buddyring_agent_session_up"); got != 1 {
			t.Errorf("session_up %v", got)
		}
	})
}

// Whoever looks at a host sees that an operator keeps work away from its server. A
// coordinator that says nothing of it changes nothing.
func TestTellsThatItIsDrained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		expect := func(want string, gauge float64) {
			t.Helper()
			synctest.Wait()
			if got := f.Says(); got != want || f.metric("buddyring_agent_server_drained") != gauge {
				t.Errorf("it says %q, the metric is %v; want %q, %v", got, f.metric("buddyring_agent_server_drained"), want, gauge)
			}
		}
		p := c.next()
		p.welcome(5, nil)
		expect("", 0)
		p.stand(&pb.Standing{Drained: new(true), Actor: "ann", Reason: "new\ndisk"})
		expect("drained by ann: new disk", 1)
		p.end <- errors.New("the end")
		p = c.next()
		p.welcome(5, nil)
		expect("drained by ann: new disk", 1)
		p.stand(&pb.Standing{Drained: new(true), Actor: "joe"})
		expect("drained by joe", 1)
		p.stand(&pb.Standing{Drained: new(false)})
		expect("", 0)
	})
}

// TestWatchesFromDisk: an agent that starts while no coordinator can be reached
// watches whom it watched before (R10), and is resumed later.
func TestWatchesFromDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := &memory{state: savedState(t)}
		f := start(t, store)
		time.Sleep(10 * time.Second)
		if n := f.network.sent(addrA); n < 15 {
			t.Errorf("%d probes in 10 s without a coordinator", n)
		}
		if err := f.Ready(); err == nil {
			t.Error("ready without a session")
		}
		f.end()

		c := newCoordinator(t)
		start(t, store, c)
		p := c.next()
		if h := p.hello; h.GetIncarnation() != 5 || h.GetStoreId() != testStore || h.GetEpoch() != 3 {
			t.Errorf("hello %v", h)
		}
	})
}

func savedState(t *testing.T) State {
	t.Helper()
	a, err := parseAssignment(assignmentOf(1, subjectOf("a", addrA)))
	if err != nil {
		t.Fatal(err)
	}
	return State{Pool: "default", ID: "me", Incarnation: 5, StoreID: testStore, Epoch: 3, Assignment: a}
}

func TestStateOfAnotherServerIsNotUsed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		saved := savedState(t)
		saved.ID = "other"
		c := newCoordinator(t)
		f := start(t, &memory{state: saved}, c)
		p := c.next()
		if h := p.hello; h.GetIncarnation() != 0 || h.GetStoreId() != "" || h.GetEpoch() != 0 {
			t.Errorf("hello %v", h)
		}
		if n := f.network.sent(addrA); n != 0 {
			t.Errorf("%d probes for another server's list", n)
		}
	})
}

func TestDamagedStateFileIsNoState(t *testing.T) {
	bubble(t, func(t *testing.T) {
		disk, err := OpenDisk(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { disk.Close() })
		if err := os.WriteFile(disk.Path(), []byte(`{"format":1,"sha256":"`), 0o600); err != nil {
			t.Fatal(err)
		}
		c := newCoordinator(t)
		start(t, disk, c)
		p := c.next()
		if p.hello.GetIncarnation() != 0 {
			t.Errorf("hello %v", p.hello)
		}
		p.welcome(5, assignmentOf(1))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		if s, err := disk.Load(); err != nil || s.Incarnation != 5 {
			t.Errorf("saved %+v, %v", s, err)
		}
	})
}

// TestReconnect: after the loss of a session the agent comes back within the
// spread, in the same run, and says at once what it sees, with ages.
func TestReconnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA), subjectOf("b", addrB)))
		time.Sleep(3 * time.Second)
		p.end <- member.ErrUnavailable
		lost := time.Now()
		f.network.set(addrA, prober.Lost)
		again := c.next()
		if took := time.Since(lost); took > time.Second {
			t.Errorf("back after %v", took)
		}
		if again.hello.GetInstanceId() != p.hello.GetInstanceId() || again.hello.GetIncarnation() != 5 {
			t.Errorf("hello %v", again.hello)
		}
		time.Sleep(10 * time.Second) // no Welcome yet: the coordinator waits for its database
		again.welcome(5, assignmentOf(1, subjectOf("a", addrA), subjectOf("b", addrB)))
		sights := map[string]*pb.Evidence{}
		for len(sights) < 2 {
			r := expect(again, (*pb.SessionRequest).GetReport)
			sights[r.GetServerId()] = r.GetEvidence()
		}
		a, b := sights["a"], sights["b"]
		if a.GetSight() != pb.Sight_SIGHT_DOWN || a.GetFirstLostAge().AsDuration() < 9*time.Second || b.GetSight() != pb.Sight_SIGHT_UP {
			t.Errorf("a: %v, b: %v", a, b)
		}
		if d := again.seen(); len(d) != 1 || len(d[0].GetSubjects()) != 2 {
			t.Errorf("digests %v", d)
		}
	})
}

// TestEchoDoesNotWait: neither a disk that hangs nor examinations come between
// a challenge and its echo.
func TestEchoDoesNotWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		f := start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetReport)
		hang := make(chan struct{})
		store.set(nil, hang)
		f.network.set(addrB, prober.Lost)
		for round := range uint64(100) {
			p.assign(assignmentOf(2+round, subjectOf("a", addrA)))
			p.ask(round, subjectOf("b", addrB))
		}
		p.challenge(42)
		asked := time.Now()
		if e := expect(p, (*pb.SessionRequest).GetEcho); e.GetNonce() != 42 || time.Since(asked) > 0 {
			t.Errorf("echo %v after %v", e, time.Since(asked))
		}
		close(hang)
		for {
			if expect(p, (*pb.SessionRequest).GetAssignmentAck).GetSeq() == 101 {
				return
			}
		}
	})
}

// TestDeafAgentSaysSo: an agent that hears nobody, not even itself, answers with
// a self-score.
func TestDeafAgentSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA), subjectOf("b", addrB)))
		expect(p, (*pb.SessionRequest).GetReport)
		for _, a := range []string{addrA, addrB, "127.0.0.1"} {
			f.network.set(a, prober.Lost)
		}
		time.Sleep(2 * time.Second)
		p.ask(1, subjectOf("b", addrB))
		if a := expect(p, (*pb.SessionRequest).GetAnswer); a.GetSelfScore() == 0 {
			t.Errorf("answer %v", a)
		}
		time.Sleep(5 * time.Second)
		if d := p.seen(); d[len(d)-1].GetSelfScore() == 0 {
			t.Errorf("digest %v", d[len(d)-1])
		}
	})
}

func TestLowerEpochsAreIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{state: savedState(t)}, c) // knows epoch 3 of this store
		old := c.next()
		old.lead(2)
		old.welcome(6, assignmentOf(9, subjectOf("b", addrB)))
		p := c.next() // it has turned away from the old leader
		if n := f.network.sent(addrB); n != 0 {
			t.Errorf("obeyed a stale leader: %d probes", n)
		}
		p.lead(4)
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		p.lead(5)
		p.assign(assignmentOf(2, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		p.pending()
		p.lead(4)
		p.challenge(1)
		p.assign(assignmentOf(3, subjectOf("b", addrB)))
		p.ask(1, subjectOf("b", addrB))
		time.Sleep(time.Second)
		if got := p.pending(); len(got) != 0 || f.network.sent(addrB) != 0 {
			t.Errorf("answers to a stale leader: %v", got)
		}
		if got := f.metric("buddyring_agent_stale_messages_total"); got < 3 {
			t.Errorf("%v stale messages counted", got)
		}
	})
}

func TestAnotherStoreBeginsAnotherHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		saved := savedState(t)
		saved.StoreID, saved.Epoch = "store-z", 1000
		c, store := newCoordinator(t), &memory{state: saved}
		start(t, store, c)
		p := c.next()
		p.welcome(6, assignmentOf(1, subjectOf("a", addrA)))
		p.challenge(3) // before the agent has taken the Welcome: its epoch is none of the past
		expect(p, (*pb.SessionRequest).GetEcho)
		p.pending()
		if s := store.get(); s.StoreID != testStore || s.Epoch != 1 || s.Incarnation != 6 {
			t.Errorf("saved %+v", s)
		}
	})
}

// TestFullDisk: the agent goes on, says so, acknowledges nothing that is not on
// disk, and recovers by itself.
func TestFullDisk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{state: savedState(t)}
		store.set(errors.New("no space left on device"), nil)
		f := start(t, store, c)
		p := c.next()
		p.epoch = 3
		p.welcome(5, assignmentOf(2, subjectOf("b", addrB)))
		p.assign(assignmentOf(3, subjectOf("b", addrB)))
		time.Sleep(time.Minute)
		if f.metric("buddyring_agent_state_unsaved") != 1 || f.network.sent(addrB) < 100 {
			t.Errorf("unsaved %v, %d probes", f.metric("buddyring_agent_state_unsaved"), f.network.sent(addrB))
		}
		if s := store.get(); s.Assignment.Seq != 1 {
			t.Errorf("the old state was touched: %+v", s)
		}
		if got := p.trouble(); got != "no space left on device" {
			t.Errorf("the newest digest says %q", got)
		}
		for _, m := range p.pending() {
			if m.GetAssignmentAck() != nil {
				t.Errorf("acknowledged what is not on disk: %v", m)
			}
		}
		store.set(nil, nil)
		time.Sleep(saveRetryMax + time.Second)
		if ack := expect(p, (*pb.SessionRequest).GetAssignmentAck); ack.GetSeq() != 3 {
			t.Errorf("acknowledged %d, want only the newest", ack.GetSeq())
		}
		if s := store.get(); s.Assignment.Seq != 3 || f.metric("buddyring_agent_state_unsaved") != 0 {
			t.Errorf("saved %+v", s)
		}
		if got := p.trouble(); got != "" {
			t.Errorf("the trouble is over, and told: %q", got)
		}
	})
}

// TestTroubleWithTheDiskIsToldAtOnce: not with the next digest.
func TestTroubleWithTheDiskIsToldAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{state: savedState(t)}
		start(t, store, c)
		p := c.next()
		p.epoch = 3
		p.welcome(5, assignmentOf(2, subjectOf("b", addrB)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		time.Sleep(time.Second)
		store.set(errors.New("no space left on device"), nil)
		p.assign(assignmentOf(3, subjectOf("b", addrB)))
		time.Sleep(100 * time.Millisecond)
		if got := p.trouble(); got != "no space left on device" {
			t.Errorf("after 100 ms the newest digest says %q", got)
		}
		store.set(nil, nil)
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		time.Sleep(100 * time.Millisecond)
		if got := p.trouble(); got != "" {
			t.Errorf("the trouble is over, and told: %q", got)
		}
	})
}

// TestRefusal: a live twin has the name. The agent asks again, slowly, and goes
// on watching whom it has on disk.
func TestRefusal(t *testing.T) {
	for _, refusal := range []error{
		member.ErrAlreadyExists, member.Invalid("hello.spec.weight", "is too much"), member.ErrPermission,
		&member.RefusedError{Rule: "intent", Reason: "banned"},
	} {
		t.Run(refusal.Error(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCoordinator(t)
				f := start(t, &memory{state: savedState(t)}, c)
				var last time.Time
				for i := range 6 {
					p := c.next()
					if gap := p.at.Sub(last); i > 0 && (gap < refusedFirst/2 || gap > refusedMax) {
						t.Errorf("asked again after %v", gap)
					}
					last = p.at
					p.end <- refusal
				}
				if n := f.network.sent(addrA); n < 40 {
					t.Errorf("%d probes", n)
				}
				if err := f.Ready(); !errors.Is(err, refusal) && !errors.Is(err, errors.Unwrap(refusal)) {
					t.Errorf("ready: %v", err)
				}
			})
		})
	}
}

func TestNoAcknowledgementTriesTheNextCoordinator(t *testing.T) {
	bubble(t, func(t *testing.T) {
		first, second := newCoordinator(t), newCoordinator(t)
		start(t, &memory{}, first, second)
		p := first.next()
		p.welcome(5, assignmentOf(1))
		time.Sleep(time.Second)
		p.mu.Lock()
		p.deaf = true
		p.mu.Unlock()
		p.seen()
		next := second.next()
		// The digest 5 s after the first, 2 s of patience, a spread of 1 s.
		if took := next.at.Sub(p.at); took < 7*time.Second || took > 8*time.Second+time.Millisecond {
			t.Errorf("turned to the other after %v", took)
		}
	})
}

func TestFollowsTheLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		standby, other, leader := newCoordinator(t), newCoordinator(t), newCoordinator(t)
		start(t, &memory{}, standby, other, leader)
		p := standby.next()
		p.end <- &member.NotLeaderError{Leader: "c2:1"}
		if took := leader.next().at.Sub(p.at); took > 0 {
			t.Errorf("followed the hint after %v", took)
		}
	})
}

// TestLeavesACoordinatorThatDoesNotAnswer: its process is stopped, or its host is
// gone, and nobody says so.
func TestLeavesACoordinatorThatDoesNotAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		stopped, other := &coordinator{t: t, lis: bufconn.Listen(1)}, newCoordinator(t)
		begin := time.Now()
		start(t, &memory{}, stopped, other)
		if took := other.next().at.Sub(begin); took > 2200*time.Millisecond {
			t.Errorf("turned to the other after %v", took)
		}
	})
}

// TestGarbageFromACoordinatorChangesNothing: it ends the session, and the agent
// goes on with what it had.
func TestGarbageFromACoordinatorChangesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		f := start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		bad := subjectOf("b", addrB)
		bad.Probe = "udp"
		p.assign(assignmentOf(2, bad))
		c.next()
		time.Sleep(5 * time.Second)
		if s := store.get(); s.Assignment.Seq != 1 || f.network.sent(addrB) != 0 || f.network.sent(addrA) < 10 {
			t.Errorf("saved %+v, %d probes", s, f.network.sent(addrA))
		}
	})
}

// TestHugeMessageFromACoordinator is not taken in.
func TestHugeMessageFromACoordinator(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		go p.stand(&pb.Standing{Drained: new(true), Reason: strings.Repeat("x", maxMessageBytes)})
		if again := c.next(); again.hello.GetIncarnation() != 5 || f.Says() != "" {
			t.Errorf("hello %v, says %q", again.hello, f.Says())
		}
	})
}

// TestLeaveResultThatNobodyAskedFor does not end the agent.
func TestLeaveResultThatNobodyAskedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		p.leaveResult(true, "")
		p.challenge(1)
		expect(p, (*pb.SessionRequest).GetEcho)
		time.Sleep(6 * time.Second)
		if n := len(p.seen()); n != 2 || store.get().Incarnation != 5 {
			t.Errorf("%d digests, saved %+v", n, store.get())
		}
	})
}

// TestRestsWithoutSubjects: an agent that has never joined has nothing to look
// after, and a coordinator may be away for long.
func TestRestsWithoutSubjects(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := start(t, &memory{})
		looks, last := 0, f.watcher.seen.Load()
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			if now := f.watcher.seen.Load(); now != last {
				looks, last = looks+1, now
			}
		}
		if looks > 50 {
			t.Errorf("it looked around %d times in 10 s", looks)
		}
	})
}

func TestRemovedAgentJoinsAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		time.Sleep(time.Minute)
		p.end <- fmt.Errorf("me was removed; say hello again: %w", member.ErrStale)
		removed := time.Now()
		p = c.next()
		if took := time.Since(removed); took > time.Second || p.hello.GetIncarnation() != 5 {
			t.Errorf("hello %v after %v", p.hello, took)
		}
		p.welcome(8, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		if s := store.get(); s.Incarnation != 8 {
			t.Errorf("saved %+v", s)
		}
	})
}

func TestUpdateResumesWithTheNewSpec(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		c.next().welcome(5, assignmentOf(1))
		time.Sleep(time.Second)
		f.Update(member.Spec{Weight: 100}) // no change
		f.Update(member.Spec{Weight: 7})
		p := c.next()
		if p.hello.GetSpec().GetWeight() != 7 || p.hello.GetIncarnation() != 5 {
			t.Errorf("hello %v", p.hello)
		}
		p.welcome(5, assignmentOf(1))
		time.Sleep(time.Minute)
		if len(c.sessions) != 0 {
			t.Error("a further session without a further change")
		}
	})
}

func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		f := start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetReport)
		left := make(chan error, 1)
		go func() { left <- f.Leave(t.Context(), "shutdown") }()
		l := expect(p, (*pb.SessionRequest).GetLeave)
		if l.GetIncarnation() != 5 || l.GetReason() != "shutdown" {
			t.Errorf("leave %v", l)
		}
		p.leaveResult(false, "not safe to stop: 2 of 4 left")
		expect(p, (*pb.SessionRequest).GetLeave) // it asks again
		p.leaveResult(true, "")
		if err := <-left; err != nil {
			t.Errorf("leave: %v", err)
		}
		f.end() // Run has returned nil by itself
		if s := store.get(); s.Incarnation != 0 || len(s.Assignment.Subjects) != 0 || s.StoreID != testStore {
			t.Errorf("saved %+v", s)
		}
	})
}

func (p *peer) leaveResult(left bool, text string) {
	p.send(&pb.SessionResponse{Message: &pb.SessionResponse_LeaveResult{LeaveResult: &pb.LeaveResult{Left: &left, Text: text}}})
}

func TestLeaveThatIsRefusedTillTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		left := make(chan error, 1)
		go func() { left <- f.Leave(ctx, "shutdown") }()
		for range 2 {
			expect(p, (*pb.SessionRequest).GetLeave)
			p.leaveResult(false, "not safe to stop: 2 of 4 left")
		}
		var refused *member.RefusedError
		if err := <-left; !errors.As(err, &refused) || refused.Reason != "not safe to stop: 2 of 4 left" {
			t.Errorf("leave: %v", err)
		}
	})
}

// TestLeaveWithoutAResult says what it has waited for.
func TestLeaveWithoutAResult(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		c.next().welcome(5, assignmentOf(1))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := f.Leave(ctx, "shutdown"); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errNoResult) {
			t.Errorf("leave: %v", err)
		}
	})
}

// TestLeaveDrains: it says how long routers may take, and less each time it asks.
func TestLeaveDrains(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := startWith(t, &memory{}, Config{DrainTimeout: 3 * time.Second}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		left := make(chan error, 1)
		go func() { left <- f.Leave(t.Context(), "shutdown") }()
		for _, want := range []time.Duration{3 * time.Second, time.Second, 0} {
			l := expect(p, (*pb.SessionRequest).GetLeave)
			if l.GetDrainTimeout() == nil || l.GetDrainTimeout().AsDuration() != want {
				t.Errorf("leave %v, want %v", l, want)
			}
			p.leaveResult(false, "not safe to stop: 2 of 4 left")
		}
		expect(p, (*pb.SessionRequest).GetLeave)
		yes := true
		p.send(&pb.SessionResponse{Message: &pb.SessionResponse_LeaveResult{LeaveResult: &pb.LeaveResult{
			Left: &yes, Drain: pb.DrainState_DRAIN_STATE_PARTIAL, Missing: []*pb.LaggingRouter{{RouterId: "r2"}},
		}}})
		if err := <-left; err != nil {
			t.Errorf("leave: %v", err)
		}
	})
}

// TestLeaveAtOnce: with no time to drain it leaves at once, whatever its pool says.
func TestLeaveAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		left := make(chan error, 1)
		go func() { left <- f.Leave(t.Context(), "shutdown") }()
		if l := expect(p, (*pb.SessionRequest).GetLeave); l.GetDrainTimeout() != nil {
			t.Errorf("leave %v", l)
		}
		p.leaveResult(true, "")
		if err := <-left; err != nil {
			t.Errorf("leave: %v", err)
		}
	})
}

// TestLeaveThroughAReconnect: the session breaks between Leave and its result.
func TestLeaveThroughAReconnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		f := start(t, &memory{}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		left := make(chan error, 1)
		go func() { left <- f.Leave(t.Context(), "shutdown") }()
		expect(p, (*pb.SessionRequest).GetLeave)
		p.end <- member.ErrUnavailable
		p = c.next()
		p.welcome(6, assignmentOf(1))
		if l := expect(p, (*pb.SessionRequest).GetLeave); l.GetIncarnation() != 6 {
			t.Errorf("leave %v", l)
		}
		p.leaveResult(true, "")
		if err := <-left; err != nil {
			t.Errorf("leave: %v", err)
		}
	})
}

func TestLeaveWithoutACoordinator(t *testing.T) {
	bubble(t, func(t *testing.T) {
		member := start(t, &memory{state: savedState(t)})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := member.Leave(ctx, "shutdown"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a member that cannot say so: %v", err)
		}
		stranger := start(t, &memory{})
		if err := stranger.Leave(t.Context(), "shutdown"); err != nil {
			t.Errorf("an agent that never joined: %v", err)
		}
	})
}

// TestEndWithoutLeave: ending the context detaches the agent and changes
// nothing.
func TestEndWithoutLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, store := newCoordinator(t), &memory{}
		f := start(t, store, c)
		p := c.next()
		p.welcome(5, assignmentOf(1, subjectOf("a", addrA)))
		expect(p, (*pb.SessionRequest).GetAssignmentAck)
		f.end()
		for _, m := range p.pending() {
			if m.GetLeave() != nil {
				t.Error("left")
			}
		}
		if s := store.get(); s.Incarnation != 5 || len(s.Assignment.Subjects) != 1 {
			t.Errorf("saved %+v", s)
		}
	})
}
