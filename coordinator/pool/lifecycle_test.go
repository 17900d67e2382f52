package pool_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

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
