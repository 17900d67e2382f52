package pool_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// Joins and resumptions.

func TestJoinThatFailsIsRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	p := d.hello(agent("a"))
	d.reject()
	is(t, p.refused, member.ErrUnavailable)
}

// The stream of a join breaks while the database is slow: the member is there
// all the same, and its agent goes on with it.
func TestStreamBreaksDuringItsJoin(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b")
	p := d.hello(agent("c"))
	d.close(p, true)
	again := d.hello(agent("c"))
	d.commit()
	if !again.welcomed || d.table.rows["c"].Incarnation != again.inc || d.table.at.Revision != member.Revision(again.inc) {
		t.Fatalf("refused %v, row %+v", again.refused, d.table.rows["c"])
	}
	d.commitAll()
	if inc := d.table.rows["c"].Incarnation; inc != again.inc {
		t.Fatalf("joined twice, as %d and %d", again.inc, inc)
	}
}

// The newer stream of a run takes the place of the older one wherever that is.
func TestNewerStreamReplacesOlder(t *testing.T) {
	t.Parallel()
	t.Run("in the queue", func(t *testing.T) {
		t.Parallel()
		d := busy(t)
		old := d.hello(agent("d"))
		newer := d.hello(agent("d"))
		is(t, old.refused, member.ErrStale)
		d.commitAll()
		if !newer.welcomed {
			t.Fatalf("refused %v", newer.refused)
		}
	})
	t.Run("in the change", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a")
		old := d.hello(agent("d"))
		newer := d.hello(agent("d"))
		d.commitAll()
		is(t, old.refused, member.ErrStale)
		if !newer.welcomed || newer.inc != d.table.rows["d"].Incarnation {
			t.Fatalf("refused %v", newer.refused)
		}
	})
	t.Run("in a change that fails", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a")
		old := d.hello(agent("d"))
		newer := d.hello(agent("d"))
		d.reject()
		is(t, old.refused, member.ErrUnavailable)
		is(t, newer.refused, member.ErrUnavailable)
	})
	t.Run("as a member", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		old := d.byID["c"]
		newer := d.hello(agent("c"))
		is(t, old.refused, member.ErrStale)
		if !newer.welcomed || newer.inc != old.inc || d.flight != nil {
			t.Fatal("not resumed")
		}
	})
	t.Run("as a claim", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		h := agent("c")
		h.InstanceID, h.BootID, h.Spec.ProbeAddresses = "another", "another", []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		old := d.hello(h)
		newer := d.hello(h)
		is(t, old.refused, member.ErrStale)
		d.answerAll("c", up)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		is(t, newer.refused, member.ErrAlreadyExists)
	})
	t.Run("as a rival", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		h := agent("c")
		h.InstanceID = "another"
		old := d.hello(h)
		newer := d.hello(h)
		is(t, old.refused, member.ErrStale)
		d.echo("c")
		is(t, newer.refused, member.ErrAlreadyExists)
	})
}

// Two agents under one name: the one that waits already is heard first.
func TestSecondRivalIsRefused(t *testing.T) {
	t.Parallel()
	other := func(run string) pool.Hello {
		h := agent("c")
		h.InstanceID, h.BootID = run, run
		return h
	}
	t.Run("in the queue", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b")
		d.intend("zebra", member.WishDrain)
		d.hello(agent("c"))
		is(t, d.hello(other("x")).refused, member.ErrAlreadyExists)
	})
	t.Run("in the change", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b")
		d.hello(agent("c"))
		is(t, d.hello(other("x")).refused, member.ErrAlreadyExists)
	})
	t.Run("as a rival", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		first := d.hello(other("x"))
		is(t, d.hello(other("y")).refused, member.ErrAlreadyExists)
		d.close(first, true)
		if p := d.hello(other("y")); p.refused != nil {
			t.Fatalf("the rival has gone, and the next is refused: %v", p.refused)
		}
	})
	t.Run("as a claim", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		x, y := other("x"), other("y")
		x.Spec.ProbeAddresses = []netip.Addr{netip.MustParseAddr("10.9.9.8")}
		y.Spec.ProbeAddresses = []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		d.hello(x)
		is(t, d.hello(y).refused, member.ErrAlreadyExists)
	})
}

// The holder of a name keeps it against a rival also over a new stream.
func TestHolderReconnectsWhileARivalWaits(t *testing.T) {
	t.Parallel()
	d := five(t)
	h := agent("c")
	h.InstanceID, h.BootID = "another", "another"
	rival := d.hello(h)
	d.hello(agent("c"))
	d.echo("c")
	d.wait(time.Second)
	is(t, rival.refused, member.ErrAlreadyExists)
	if d.flight != nil || !d.byID["c"].open() {
		t.Fatal("the rival has the name")
	}
}

func TestRivalIsHeardWhenTheHolderGoes(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*desk){
		"closes": func(d *desk) { d.close(d.byID["c"], true) },
		"leaves": func(d *desk) {
			d.step(pool.Leave{Session: d.byID["c"].hello.Session, Incarnation: d.byID["c"].inc})
			d.commit()
		},
		"is removed": func(d *desk) {
			d.remove("c")
			d.commit()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			h := agent("c")
			h.InstanceID, h.BootID = "another", "another"
			rival := d.hello(h)
			leave(d)
			d.wait(time.Second)
			d.commitAll()
			if !rival.welcomed || d.table.rows["c"].InstanceID != "another" {
				t.Fatalf("refused %v", rival.refused)
			}
		})
	}
}

// Whatever becomes of the row, a claim gets its answer.
func TestClaimIsAnsweredWhateverHappens(t *testing.T) {
	t.Parallel()
	claim := func(d *desk) *peer {
		h := agent("c")
		h.InstanceID, h.BootID, h.Spec.ProbeAddresses = "claimant", "claimant", []netip.Addr{netip.MustParseAddr("10.9.9.9")}
		return d.hello(h)
	}
	t.Run("the agent comes back without its state", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		p := claim(d)
		h := agent("c")
		h.InstanceID, h.BootID = "back", "back"
		back := d.hello(h)
		d.commitAll()
		if !back.welcomed {
			t.Fatalf("refused %v", back.refused)
		}
		d.echo("c")
		d.wait(time.Second)
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("an operator removes the row", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		p := claim(d)
		d.remove("c")
		d.commitAll()
		if !p.welcomed {
			t.Fatalf("refused %v", p.refused)
		}
	})
	t.Run("its removal is under way", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.miss("c")
		d.answerAll("c", down)
		d.close(d.byID["c"], false)
		if !d.removes("c") {
			t.Fatalf("kept by %s", d.rule("c"))
		}
		p := claim(d)
		d.wait(2 * time.Second)
		d.commitAll()
		if !p.welcomed {
			t.Fatalf("refused %v", p.refused)
		}
	})
	t.Run("its removal is rejected", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.miss("c")
		d.answerAll("c", down)
		d.close(d.byID["c"], false)
		p := claim(d)
		d.wait(3 * time.Second)
		d.reject()
		d.answerAll("c", up)
		d.step(pool.Dialed{Round: d.notary.newest["c"].id})
		is(t, p.refused, member.ErrAlreadyExists)
	})
	t.Run("the claimant goes", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], false)
		d.miss("c")
		d.close(claim(d), true)
		d.answerAll("c", down)
		if !d.removes("c") {
			t.Fatalf("the claimant has gone, and the doubt with it: %s", d.rule("c"))
		}
	})
}

// An agent that was run without TLS comes back with a certificate for its id,
// on a new boot and without its state: the certificate proves more than the
// address it came by.
func TestCertificateTakesOverAPlainRow(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.close(d.byID["c"], true)
	h := agent("c")
	h.InstanceID, h.BootID, h.Identity = "another", "another", "spiffe://x/buddyring/agent/web/c"
	p := d.hello(h)
	d.commit()
	if !p.welcomed || d.table.rows["c"].Identity != h.Identity {
		t.Fatalf("refused %v, row %+v", p.refused, d.table.rows["c"])
	}
	// But nobody without one takes it back by saying the address.
	d.close(p, true)
	h.InstanceID, h.BootID, h.Identity = "third", "third", ""
	p = d.hello(h)
	d.answerAll("c", up)
	d.step(pool.Dialed{Round: d.notary.newest["c"].id})
	is(t, p.refused, member.ErrAlreadyExists)
}

// What an agent says anew of its server reaches the table, whatever fails on the
// way; what an operator has edited meanwhile stays when the agent says nothing
// new.
func TestNewsOfAResumedAgent(t *testing.T) {
	t.Parallel()
	reload := func(d *desk, weight uint32) *peer {
		h := agent("c")
		h.Spec.Weight = weight
		return d.hello(h)
	}
	weight := func(d *desk) uint32 { return d.table.rows["c"].Spec.Weight }
	t.Run("same run", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		reload(d, 7)
		d.commit()
		if weight(d) != 7 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("the change is rejected", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		reload(d, 7)
		d.reject()
		d.wait(time.Second)
		d.commit()
		if weight(d) != 7 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("the stream breaks before the change", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.intend("zebra", member.WishDrain)
		d.close(reload(d, 7), true)
		reload(d, 7)
		d.commitAll()
		if weight(d) != 7 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("nothing new", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.call(func(c pool.Call) pool.Input {
			return pool.UpdateServer{Call: c, ID: "c", Edit: func(s member.Spec) (member.Spec, error) {
				s.Weight = 9
				return s, nil
			}}
		}, pool.Call{})
		d.commit()
		reload(d, 100)
		if d.flight != nil || weight(d) != 9 {
			t.Fatalf("weight %d", weight(d))
		}
	})
	t.Run("a new run", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		h := agent("c")
		h.InstanceID, h.Incarnation = "another", d.byID["c"].inc
		p := d.hello(h)
		if !p.welcomed || p.inc != h.Incarnation {
			t.Fatal("not resumed")
		}
		d.commit()
		if d.table.rows["c"].InstanceID != "another" {
			t.Fatalf("row %+v", d.table.rows["c"])
		}
	})
}

// Evidence is about an address: what was seen of the former one says nothing of
// the new one.
func TestEvidenceOfAFormerAddress(t *testing.T) {
	t.Parallel()
	move := func(d *desk) {
		d.call(func(c pool.Call) pool.Input {
			return pool.UpdateServer{Call: c, ID: "c", Edit: func(s member.Spec) (member.Spec, error) {
				s.ProbeAddresses = []netip.Addr{netip.MustParseAddr("10.9.9.9")}
				return s, nil
			}}
		}, pool.Call{})
	}
	t.Run("in a round", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], false)
		d.miss("c")
		move(d)
		d.commit()
		if _, suspect := d.marks["c"]; suspect {
			t.Fatal("suspect")
		}
		d.answerAll("c", down)
		if d.removes("c") {
			t.Fatal("removed")
		}
	})
	t.Run("in a verdict", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], false)
		move(d)
		d.miss("c")
		d.answerAll("c", down)
		d.commit()
		if d.removes("c") {
			t.Fatal("removed")
		}
	})
}

// Leaving.

func TestLeaveIsAcknowledgedWhenDurable(t *testing.T) {
	t.Parallel()
	leave := func(d *desk, p *peer) { d.step(pool.Leave{Session: p.hello.Session, Incarnation: p.inc}) }
	t.Run("committed", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := d.byID["c"]
		leave(d, p)
		leave(d, p)
		if p.left != nil {
			t.Fatal("too early")
		}
		d.commit()
		if !p.left.Left || p.refused != nil || d.table.reference != 4 {
			t.Fatalf("%+v, refused %v, reference size %d", p.left, p.refused, d.table.reference)
		}
		if _, kept := d.table.departed["c"]; kept {
			t.Error("remembered as if by verdict")
		}
	})
	t.Run("rejected", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := d.byID["c"]
		leave(d, p)
		d.reject()
		if p.left.Left {
			t.Fatal("told that it has left")
		}
		leave(d, p)
		d.wait(time.Second)
		d.commit()
		if !p.left.Left {
			t.Fatalf("%+v", p.left)
		}
	})
	t.Run("while it is removed", func(t *testing.T) {
		t.Parallel()
		d := busy(t)
		p := d.byID["c"]
		d.remove("c")
		leave(d, p)
		d.commit()
		if p.left != nil {
			t.Fatal("told that it has left before that is durable")
		}
		d.commit()
		if p.refused == nil && (p.left == nil || !p.left.Left) {
			t.Fatal("no answer")
		}
	})
	t.Run("by a stream that was replaced meanwhile", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		leave(d, d.byID["c"])
		newer := d.hello(agent("c"))
		d.commit()
		is(t, newer.refused, member.ErrStale)
	})
	t.Run("of another incarnation", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		p := d.byID["c"]
		d.step(pool.Leave{Session: p.hello.Session, Incarnation: p.inc + 1})
		if d.flight != nil || p.left.Left {
			t.Fatalf("%+v", p.left)
		}
	})
	t.Run("before the welcome", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		p := d.hello(agent("a"))
		leave(d, p)
		d.commit()
		if d.removed("a") || p.left != nil {
			t.Fatal("taken out")
		}
	})
}

// Small pools.

func TestShrinkingToNobody(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d")
	for _, id := range []member.ID{"b", "d", "a", "c"} {
		p := d.byID[id]
		d.step(pool.Leave{Session: p.hello.Session, Incarnation: p.inc})
		d.commit() // the desk checks rows and assignments
		d.digests()
	}
	d.pool("e", "f")
	if len(d.table.rows) != 2 {
		t.Fatalf("the table has %v", d.table.order)
	}
}

// Who is alone is ACTIVE: nobody else could reach it first.
func TestAloneIsActive(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a")
	d.hello(agent("b"))
	d.commitAll()
	if p := d.table.rows["b"].Phase; p != member.PhaseJoining {
		t.Fatalf("b is %s", p)
	}
	d.remove("a")
	d.commitAll()
	if p := d.table.rows["b"].Phase; p != member.PhaseActive {
		t.Fatalf("b is %s", p)
	}
}

func TestAloneIsActiveAfterARestart(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a")
	d.hello(agent("b"))
	d.commitAll()
	d.remove("a")
	d.commit()
	d.table.at.Epoch++
	d.boot()
	d.commitAll()
	if p := d.table.rows["b"].Phase; p != member.PhaseActive {
		t.Fatalf("b is %s", p)
	}
}

// JOINING.

func TestJoinIsAbandoned(t *testing.T) {
	t.Parallel()
	joining := func(t *testing.T) *desk {
		t.Helper()
		d := five(t)
		d.hello(agent("f"))
		d.commit()
		return d
	}
	t.Run("without an agent", func(t *testing.T) {
		t.Parallel()
		d := joining(t)
		d.close(d.byID["f"], true)
		d.wait(29 * time.Second)
		d.commitAll()
		if d.removed("f") {
			t.Fatal("too early")
		}
		d.wait(2 * time.Second)
		d.reject()
		d.wait(time.Second)
		d.commitAll()
		if !d.removed("f") {
			t.Fatal("kept")
		}
	})
	t.Run("with a silent agent", func(t *testing.T) {
		t.Parallel()
		d := joining(t)
		for range 60 {
			d.wait(time.Second)
			d.commitAll()
		}
		if !d.removed("f") {
			t.Fatal("kept")
		}
	})
	t.Run("not with an agent", func(t *testing.T) {
		t.Parallel()
		d := joining(t)
		d.miss("f")
		d.live(2 * time.Minute)
		d.commitAll()
		if d.removed("f") {
			t.Fatal("removed")
		}
		if !d.alarm("NOT_JOINING", "f") {
			t.Error("nobody is told")
		}
		d.table.at.Epoch++
		d.boot()
		d.wait(2 * time.Second)
		if d.alarm("NOT_JOINING", "f") {
			t.Error("the alarm comes before anybody could look")
		}
		for _, id := range d.table.order {
			d.hello(agent(id))
		}
		d.report(d.table.rows["f"].First, "f", up)
		d.commitAll()
		if d.table.rows["f"].Phase != member.PhaseActive || d.alarm("NOT_JOINING", "f") {
			t.Errorf("f is %s, alarms %v", d.table.rows["f"].Phase, d.alarms)
		}
	})
	t.Run("not for a stall of the coordinator", func(t *testing.T) {
		t.Parallel()
		d := joining(t)
		d.now = d.now.Add(2 * time.Minute)
		d.step(pool.Tick{})
		d.digests()
		d.commitAll()
		if d.removed("f") || len(d.alarms) > 0 || len(d.marks) > 0 {
			t.Fatalf("removed %v, alarms %v, suspects %v", d.removed("f"), d.alarms, d.marks)
		}
	})
}

// A stall of the coordinator says nothing about anybody else.
func TestStallOfTheCoordinator(t *testing.T) {
	t.Parallel()
	t.Run("no agent is silent", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.now = d.now.Add(time.Minute)
		d.step(pool.Tick{})
		d.wait(5 * time.Second)
		if len(d.alarms) > 0 || len(d.m.Servers()[0].Temporary) > 0 {
			t.Fatalf("alarms %v", d.alarms)
		}
		d.wait(20 * time.Second)
		if !d.alarm("AGENT_DOWN", "a") {
			t.Fatal("the silence afterwards does not count either")
		}
	})
	t.Run("no holder has lost its name", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		h := agent("c")
		h.InstanceID, h.BootID = "another", "another"
		rival := d.hello(h)
		d.now = d.now.Add(time.Minute)
		d.step(pool.Tick{})
		if d.flight != nil {
			t.Fatal("the rival has the name")
		}
		d.echo("c")
		is(t, rival.refused, member.ErrAlreadyExists)
	})
	t.Run("the warm-up goes on", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.table.at.Epoch++
		d.boot()
		d.now = d.now.Add(time.Minute)
		d.step(pool.Tick{})
		if !d.m.Status().WarmingUp {
			t.Fatal("over")
		}
		d.wait(20 * time.Second)
		if d.m.Status().WarmingUp {
			t.Fatal("never over")
		}
	})
}

func TestClockGoesBack(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	now := d.now
	d.now = d.now.Add(-time.Hour)
	d.step(pool.Tick{})
	d.now = now
	d.answerAll("c", down)
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// Times from the table have the wall clock's reading only. Measured on the
// machine's own clock, they come neither sooner nor later when the wall clock is
// set, and a wake for them does not stand in the way of others.
func TestLoadedTimesAreOnTheMachinesClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tb := newTable()
	tb.rows["a"] = member.Server{
		ID: "a", Incarnation: 1, Phase: member.PhaseHeld, Spec: agent("a").Spec, InstanceID: "x",
		HeldUntil: now.Add(time.Minute).Round(0), Since: now.Round(0), JoinedAt: now.Round(0),
	}
	tb.intents["a"] = member.Intent{ID: "a", Wish: member.WishDrain, ExpiresAt: now.Add(time.Minute).Round(0)}
	m, err := pool.New(tb.load(), pool.Config{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	for what, at := range map[string]time.Time{"held until": m.Servers()[0].Server.HeldUntil, "expires at": m.Intents()[0].ExpiresAt} {
		if !at.Equal(now.Add(time.Minute)) || !strings.Contains(at.String(), " m=") {
			t.Errorf("%s %v", what, at)
		}
	}
}

// The clock of the coordinator before was wrong: nobody is held for longer than
// the limit.
func TestHoldDownOfAnotherClock(t *testing.T) {
	t.Parallel()
	d := held(t)
	row := d.table.rows["c"]
	row.HeldUntil = d.now.Add(24 * time.Hour)
	d.table.rows["c"] = row
	d.table.at.Epoch++
	state := d.table.load()
	m, err := pool.New(state, pool.Config{Now: d.now})
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := m.Server("c"); s.Server.HeldUntil.After(d.now.Add(d.table.settings.HoldDownMax)) {
		t.Fatalf("held until %v", s.Server.HeldUntil)
	}
}

// HELD.

// die takes a member out by verdict.
func (d *desk) die(id member.ID) {
	d.t.Helper()
	d.commitAll()
	d.miss(id)
	d.answerAll(id, down)
	d.commitAll()
	if !d.removed(id) {
		d.t.Fatalf("%s is kept by %s", id, d.rule(id))
	}
	for key := range d.said {
		if key[1] == id {
			delete(d.said, key)
		}
	}
	d.digests()
}

func reboot(id member.ID) pool.Hello {
	h := agent(id)
	h.BootID, h.InstanceID = "another", "another"
	return h
}

// held is a pool of five of which c is held after a crash.
func held(t *testing.T) *desk {
	t.Helper()
	d := five(t)
	d.die("c")
	d.hello(reboot("c"))
	d.commitAll()
	return d
}

func TestHoldDown(t *testing.T) {
	t.Parallel()
	t.Run("is served", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		if row := d.table.rows["c"]; row.Phase != member.PhaseHeld || !row.HeldUntil.Equal(d.now.Add(5*time.Second)) {
			t.Fatalf("row %+v", row)
		}
		d.report(d.table.rows["c"].First, "c", up)
		d.live(4 * time.Second)
		d.commitAll()
		if d.table.rows["c"].Phase != member.PhaseHeld {
			t.Fatal("too early")
		}
		d.live(time.Second)
		d.reject()
		d.live(time.Second)
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseActive {
			t.Fatalf("c is %s", p)
		}
	})
	t.Run("without being reached", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		d.wait(4 * time.Second)
		d.close(d.byID["c"], true)
		d.wait(2 * time.Second)
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseJoining {
			t.Fatalf("c is %s", p)
		}
		for range 40 {
			d.wait(time.Second)
			d.commitAll()
		}
		if !d.removed("c") {
			t.Fatal("it joins for ever")
		}
	})
	t.Run("is judged", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		d.die("c")
		if hold := d.table.departed["c"].HoldDown; hold < 9*time.Second || hold > 10*time.Second {
			t.Fatalf("the second hold-down is %v", hold)
		}
	})
	t.Run("outlives the coordinator", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		d.live(time.Second)
		d.table.at.Epoch++
		d.boot()
		d.hello(reboot("c"))
		d.report("c", d.table.rows["c"].First, up)
		for _, id := range d.table.order {
			if id != "c" {
				d.hello(agent(id))
			}
		}
		d.digests()
		d.live(3 * time.Second)
		d.commitAll()
		if d.table.rows["c"].Phase != member.PhaseHeld {
			t.Fatal("too early")
		}
		d.live(2 * time.Second)
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseActive {
			t.Fatalf("c is %s", p)
		}
	})
	t.Run("is waived for a removal that was wrong", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.die("c")
		d.hello(agent("c"))
		d.commit()
		if p := d.table.rows["c"].Phase; p != member.PhaseJoining || d.counts[pool.CountContradicted] != 1 || !d.alarm("REMOVAL_CONTRADICTED", "c") {
			t.Fatalf("c is %s, %d contradicted, alarms %v", p, d.counts[pool.CountContradicted], d.alarms)
		}
		d.commitAll()
		d.remove("c")
		d.commitAll()
		d.hello(agent("c"))
		d.commitAll()
		if d.counts[pool.CountContradicted] != 1 {
			t.Fatal("counted again")
		}
		d.live(11 * time.Minute)
		if d.alarm("REMOVAL_CONTRADICTED", "c") {
			t.Fatal("the alarm is never over")
		}
	})
	t.Run("may be switched off", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.set(func(s *member.Settings) { s.HoldDown = 0 })
		d.commit()
		d.die("c")
		d.die("e")
		d.hello(reboot("c"))
		d.hello(agent("e"))
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseJoining {
			t.Fatalf("c is %s", p)
		}
		if d.counts[pool.CountContradicted] != 1 {
			t.Fatalf("%d removals contradicted", d.counts[pool.CountContradicted])
		}
	})
}

// At most one in ten is held at once, and one in a small pool.
func TestFewAreHeld(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"small": 8, "larger": 30} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			var ids []member.ID
			for i := range n {
				ids = append(ids, member.ID(fmt.Sprintf("s%02d", i)))
			}
			d.pool(ids...)
			dead := ids[:5]
			for _, id := range dead {
				d.die(id)
			}
			d.intend("zebra", member.WishDrain)
			for _, id := range dead {
				d.hello(reboot(id)) // all in one change
			}
			d.commitAll()
			held := 0
			for _, row := range d.table.rows {
				if row.Phase == member.PhaseHeld {
					held++
				}
			}
			if want := max(1, n/10); held != want {
				t.Errorf("%d of %d are held, want %d", held, n, want)
			}
		})
	}
}

// What is remembered of a server that left is forgotten after a week.
func TestDepartedAreForgotten(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.die("c")
	if _, known := d.m.Departed("c"); !known {
		t.Fatal("not remembered")
	}
	for _, p := range d.byID {
		if p.open() {
			d.close(p, true)
		}
	}
	d.wait(7*24*time.Hour - time.Minute)
	if _, known := d.m.Departed("c"); !known {
		t.Fatal("forgotten too early")
	}
	d.wait(2 * time.Minute)
	if _, known := d.m.Departed("c"); known {
		t.Fatal("never forgotten")
	}
}

// Helpers.

// seven is a pool of seven in which the agent of d is away.
func seven(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t)
	d.pool("a", "b", "c", "d", "e", "f", "g")
	d.close(d.byID["d"], true)
	d.wait(time.Second)
	return d
}

// helpers lists who helps out for d, by subject.
func (d *desk) helpers() map[member.ID]member.ID {
	all := map[member.ID]member.ID{}
	for _, s := range d.m.Servers() {
		for _, h := range s.Temporary {
			all[s.Server.ID] = h
		}
	}
	return all
}

func TestHelpersWatchForAnAbsentAgent(t *testing.T) {
	t.Parallel()
	d := seven(t)
	row := d.table.rows["d"]
	all := d.helpers()
	if len(all) != 2 || all[row.First] == "" || all[row.Second] == "" {
		t.Fatalf("helpers %v", all)
	}
	for subject, helper := range all {
		s := d.table.rows[subject]
		if helper == s.First || helper == s.Second || !slices.ContainsFunc(d.byID[helper].assigned.Subjects, func(o pool.Subject) bool {
			return o.ID == subject && o.Role == pool.RoleTemporary
		}) {
			t.Errorf("%s is to watch %s, and watches %+v", helper, subject, d.byID[helper].assigned.Subjects)
		}
	}
	d.hello(agent("d"))
	if all := d.helpers(); len(all) != 0 {
		t.Fatalf("helpers %v although d is back", all)
	}
}

func TestHelpersThatLeaveAreReplaced(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*desk, member.ID){
		"by shutdown": func(d *desk, id member.ID) {
			d.step(pool.Leave{Session: d.byID[id].hello.Session, Incarnation: d.byID[id].inc})
			d.commitAll()
		},
		"by a crash": func(d *desk, id member.ID) {
			d.close(d.byID[id], false)
			d.wait(1500 * time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := seven(t)
			subject := d.table.rows["d"].First
			first := d.helpers()[subject]
			leave(d, first)
			if got := d.helpers()[subject]; got == "" || got == first {
				t.Fatalf("%s is watched by %q after %s", subject, got, first)
			}
		})
	}
}

// A helper that becomes the buddy of its subject keeps what it has seen.
func TestHelperBecomesBuddy(t *testing.T) {
	t.Parallel()
	d := seven(t)
	subject := d.table.rows["d"].First
	helper := d.helpers()[subject]
	d.report(helper, subject, down)
	for _, id := range d.table.order {
		if id != helper && id != subject && id != "d" && len(d.table.rows) > 4 {
			d.remove(id)
			d.commitAll()
		}
	}
	if row := d.table.rows[subject]; row.First != helper && row.Second != helper {
		t.Fatalf("%s is no buddy of %s", helper, subject)
	}
	if st, _ := d.m.Server(subject); slices.Contains(st.Temporary, helper) || !d.m.Misses(helper, subject) {
		t.Fatalf("%s is watched by %v, and its doubt is kept: %v", subject, st.Temporary, d.m.Misses(helper, subject))
	}
}

// There was nobody to help out; somebody comes.
func TestUncoveredIsCoveredLater(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d", "e")
	order := d.table.order // a ring of five
	absent := order[0]
	subject := order[1]
	// Whoever could help, and the other buddy, are away.
	away := []member.ID{absent, order[3], order[4]}
	for _, id := range away {
		d.close(d.byID[id], true)
	}
	d.wait(5 * time.Second)
	if h := d.helpers()[subject]; h != "" {
		t.Fatalf("%s helps out, away are %v", h, away)
	}
	d.hello(agent(order[3]))
	d.wait(time.Second)
	if h := d.helpers()[subject]; h != order[3] {
		t.Fatalf("%q helps out", h)
	}
}

// In a pool of three everybody watches everybody.
func TestNobodyHelpsInSmallPools(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	d.close(d.byID["a"], true)
	d.wait(time.Minute)
	if all := d.helpers(); len(all) > 0 {
		t.Fatalf("helpers %v", all)
	}
}

// Alarms.

func TestAgentDown(t *testing.T) {
	t.Parallel()
	t.Run("and back", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		d.wait(4900 * time.Millisecond)
		if d.alarm("AGENT_DOWN", "c") {
			t.Fatal("too early")
		}
		d.wait(200 * time.Millisecond)
		if !d.alarm("AGENT_DOWN", "c") {
			t.Fatal("nobody is told")
		}
		d.hello(agent("c"))
		if d.alarm("AGENT_DOWN", "c") {
			t.Fatal("the alarm stays")
		}
	})
	t.Run("after a suspicion", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
		d.commit()
		d.close(d.byID["c"], false)
		d.miss("c")
		d.live(10 * time.Second)
		if _, suspect := d.marks["c"]; !suspect || d.alarm("AGENT_DOWN", "c") {
			t.Fatalf("suspect %v, alarms %v", suspect, d.alarms)
		}
		row := d.table.rows["c"]
		d.report(row.First, "c", up)
		d.report(row.Second, "c", up)
		d.live(5 * time.Second)
		if _, suspect := d.marks["c"]; suspect || !d.alarm("AGENT_DOWN", "c") {
			t.Fatalf("suspect %v, alarms %v", suspect, d.alarms)
		}
	})
	t.Run("with its removal", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.close(d.byID["c"], true)
		d.live(6 * time.Second)
		d.remove("c")
		d.commitAll()
		if len(d.alarms) > 0 {
			t.Fatalf("alarms %v", d.alarms)
		}
	})
}

// Marks.

func TestMarksAreRenewed(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
	d.commit()
	d.miss("c")
	first := d.marks["c"]
	for range 10 {
		d.live(10*time.Second + 10*time.Millisecond)
		k := d.marks["c"]
		if k.Seq <= first.Seq || !k.Since.Equal(first.Since) || k.TTL != 30*time.Second {
			t.Fatalf("mark %+v after %+v", k, first)
		}
		first = k
	}
	if all := d.m.Marks(); len(all) != 1 || d.m.SoftSeq() != first.Seq {
		t.Fatalf("marks %+v, soft seq %d", all, d.m.SoftSeq())
	}
}

// One watcher's agent is away and nobody helps: the suspicion rests on the
// rounds. It must not come and go with them, or the removal grace never ends.
func TestSuspicionLastsBetweenRounds(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d")
	d.set(func(s *member.Settings) { s.RemovalGrace = 10 * time.Second })
	d.commit()
	row := d.table.rows["c"]
	d.report(row.First, "c", down)
	begun := d.now
	for !d.removes("c") {
		d.commitAll()
		d.answerAll("c", down)
		if d.now.Sub(begun) < 10*time.Second {
			d.nextRound("c")
			if _, suspect := d.marks["c"]; !suspect {
				t.Fatalf("no longer suspect after %v", d.now.Sub(begun))
			}
		}
		if d.now.Sub(begun) > 15*time.Second {
			t.Fatal("never removed")
		}
	}
}

// Bounds.

func TestLargeQueuesGoInParts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.intend("zebra", member.WishDrain)
	for i := range 2500 {
		d.hello(agent(member.ID(fmt.Sprintf("s%04d", i))))
	}
	d.commit()
	for _, want := range []int{1000, 1000, 500} {
		joins := 0
		for _, e := range d.flight.Events {
			if e.Kind == member.EventJoined {
				joins++
			}
		}
		if joins != want {
			t.Fatalf("%d join at once, want %d", joins, want)
		}
		d.commit()
	}
	if len(d.table.rows) != 2500 {
		t.Fatalf("%d rows", len(d.table.rows))
	}
}

// A change of which nothing remains does not keep the rest waiting.
func TestQueueGoesOnAfterRefusals(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.intend("zebra", member.WishDrain)
	var calls []*call
	for range 2500 {
		calls = append(calls, d.remove("nobody"))
	}
	d.commit()
	d.wait(time.Millisecond)
	for _, c := range calls {
		if c.reply == nil {
			t.Fatal("a command waits for nothing")
		}
	}
}

// A watcher that changes its mind all the time opens few rounds.
func TestFlappingWatcherOpensFewRounds(t *testing.T) {
	t.Parallel()
	d := five(t)
	observer := d.table.rows["c"].First
	for range 1000 {
		d.report(observer, "c", down)
		d.report(observer, "c", up)
		d.wait(time.Millisecond)
	}
	if n := d.counts[pool.CountRound]; n == 0 || n > 11 {
		t.Fatalf("%d rounds in a second", n)
	}
}

// What waits for a database that is away is bounded.
func TestNotesAreBounded(t *testing.T) {
	t.Parallel()
	d := five(t)
	for i := range 2000 {
		d.close(d.byID["c"], true)
		d.wait(6 * time.Second)
		d.hello(agent("c"))
		d.digests()
		if d.flight != nil && i > 0 {
			d.reject()
		}
	}
	if n := d.m.Sizes()["notes"]; n > 600 {
		t.Fatalf("%d notes wait", n)
	}
}

// Everything that was decided about one lasting doubt takes the place of one
// decision, not more and more memory.
func TestDecisionsAreBounded(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.report(d.table.rows["c"].First, "c", down)
	for range 40 {
		d.answerAll("c", up)
		d.nextRound("c")
	}
	all := d.m.Decisions("c")
	if len(all) != 1 || len(all[0].Explanation.Timeline) > 160 {
		t.Fatalf("%d decisions", len(all))
	}
}

// Several deaths.

// Those who die together are removed in one change, if their rounds end within
// a quarter of a second.
func TestDeathsAreGathered(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		apart    time.Duration
		together bool
	}{"together": {200 * time.Millisecond, true}, "apart": {300 * time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.pool("a", "b", "c", "d", "e", "f", "g", "h", "i")
			first, second := d.table.order[0], d.table.order[4]
			d.miss(first)
			for _, id := range d.observers(first) {
				d.answer(id, first, down, false)
			}
			d.wait(test.apart)
			d.miss(second)
			for _, id := range d.observers(second) {
				d.answer(id, second, down, false)
			}
			d.toLastProbe(first)
			for _, id := range d.observers(first) {
				d.answer(id, first, down, true)
			}
			d.toLastProbe(second)
			for _, id := range d.observers(second) {
				d.answer(id, second, down, true)
			}
			if got := d.removes(first) && d.removes(second); got != test.together {
				t.Fatalf("in one change: %v", got)
			}
		})
	}
}

// Four, of which two die: the two that are left are enough.
func TestTwoOfFourDie(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d")
	order := d.table.order
	dead, live := []member.ID{order[1], order[2]}, []member.ID{order[0], order[3]}
	d.report(order[0], order[1], down)
	d.report(order[3], order[2], down)
	for _, id := range dead {
		for _, o := range live {
			d.answer(o, id, down, false)
		}
	}
	d.toLastProbe(dead[1])
	for _, id := range dead {
		for _, o := range live {
			d.answer(o, id, down, true)
		}
	}
	d.wait(200 * time.Millisecond)
	if !d.removes(dead[0]) || !d.removes(dead[1]) {
		t.Fatalf("kept by %s and %s", d.rule(dead[0]), d.rule(dead[1]))
	}
}

// Placement.

func TestRacksAreApart(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for i := range 24 {
		h := agent(member.ID(fmt.Sprintf("s%02d", i)))
		h.Spec.Zone, h.Spec.Rack = fmt.Sprint("z", i%3), fmt.Sprint("r", i%8)
		d.hello(h)
		d.commitAll()
	}
	for _, row := range d.table.rows {
		if next := d.table.rows[row.First]; next.Spec.Zone == row.Spec.Zone && next.Spec.Rack == row.Spec.Rack {
			t.Errorf("%s and %s share a rack", row.ID, next.ID)
		}
	}
}
