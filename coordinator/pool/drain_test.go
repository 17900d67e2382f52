package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// The routers' word on a leave that was taken back is not for the next one.
func TestOldWaitConfirmsNothing(t *testing.T) {
	t.Parallel()
	d := five(t)
	leave := func() pool.AwaitRouters {
		d.step(pool.Leave{Session: d.byID["c"].hello.Session, Incarnation: d.table.rows["c"].Incarnation, Drain: 10 * time.Second})
		d.commitAll()
		if len(d.awaits) != 1 {
			t.Fatalf("awaited: %+v", d.awaits)
		}
		e := d.awaits[0]
		d.awaits = nil
		return e
	}
	first := leave()
	d.close(d.byID["c"], true)
	h := agent("c")
	h.InstanceID, h.Incarnation = "another run", d.table.rows["c"].Incarnation
	d.hello(h)
	d.commitAll()
	if phase := d.table.rows["c"].Phase; phase != member.PhaseActive {
		t.Fatalf("c is %s", phase)
	}
	second := leave()
	if first.Incarnation != second.Incarnation || first.Revision == second.Revision {
		t.Fatalf("%+v, then %+v", first, second)
	}
	d.step(pool.Drained{ID: "c", Incarnation: first.Incarnation, Revision: first.Revision})
	if d.removes("c") {
		t.Error("it leaves although no router has confirmed the second leave")
	}
	d.step(pool.Drained{ID: "c", Incarnation: second.Incarnation, Revision: second.Revision})
	if !d.removes("c") {
		t.Error("it does not leave")
	}
}

// A call with which nothing is to be done, by what is in the change already, is
// answered with the change.
func TestNothingToDoSharesTheOutcome(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.intend("c", member.WishDrain)
	d.commitAll()
	d.intend("zebra", member.WishDrain) // is under way
	d.intend("c", member.WishActive)
	resume := d.call(func(c pool.Call) pool.Input { return pool.ResumeServer{Call: c, ID: "c"} }, pool.Call{})
	d.commit()
	if resume.reply != nil {
		t.Fatalf("answered before the change is made: %+v", resume.reply)
	}
	d.reject()
	if resume.reply == nil || resume.reply.Err == nil {
		t.Errorf("answered with %+v although c still drains", resume.reply)
	}
}

// A drain that expires while nobody leads is over, and no leave: the member gets
// work again, whether or not its agent is back.
func TestDrainThatExpiresWithoutALeaderEnds(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.call(func(c pool.Call) pool.Input {
		return pool.SetIntent{Call: c, ID: "c", Wish: member.WishDrain, ExpiresIn: time.Minute}
	}, pool.Call{})
	d.commitAll()
	if phase := d.table.rows["c"].Phase; phase != member.PhaseDraining {
		t.Fatalf("c is %s", phase)
	}
	d.now = d.now.Add(2 * time.Minute)
	d.table.at.Epoch++
	d.boot()
	d.commitAll()
	if phase := d.table.rows["c"].Phase; phase == member.PhaseDraining {
		t.Errorf("c is %s", phase)
	}
	for range 60 {
		d.wait(time.Second)
		d.commitAll()
	}
	if d.removed("c") {
		t.Error("it has left")
	}
}

// A member is told that an operator drains it, whenever that changes and on each
// new stream.
func TestMembersAreToldOfADrain(t *testing.T) {
	t.Parallel()
	d := five(t)
	drained := pool.Standing{Drained: true, Actor: "ann", Reason: "new disk"}
	expect := func(want pool.Standing) {
		t.Helper()
		for id, p := range d.byID {
			if id != "c" && p.standing != (pool.Standing{}) || id == "c" && p.standing != want {
				t.Errorf("%s was told %+v", id, p.standing)
			}
		}
	}
	expect(pool.Standing{})
	d.call(func(c pool.Call) pool.Input { return pool.DrainServer{Call: c, ID: "c"} }, pool.Call{Actor: "ann", Reason: "new disk"})
	expect(pool.Standing{})
	d.commitAll()
	expect(drained)
	h := d.byID["c"].hello
	h.Session, h.Incarnation = 0, d.table.rows["c"].Incarnation
	d.hello(h)
	expect(drained)
	d.call(func(c pool.Call) pool.Input { return pool.ResumeServer{Call: c, ID: "c"} }, pool.Call{})
	d.commitAll()
	expect(pool.Standing{})
}

// A member of which nobody wants any more that it drains gets work again, also when that
// was looked at in a change that is rejected and would have decided otherwise.
func TestDrainEndsAfterARejectedChange(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.step(pool.Leave{Session: d.byID["c"].hello.Session, Incarnation: d.table.rows["c"].Incarnation, Drain: 10 * time.Second})
	d.commitAll()
	if p := d.phase("c"); p != member.PhaseDraining {
		t.Fatalf("it is %s", p)
	}
	d.close(d.byID["c"], true)
	d.hello(reboot("c")) // is adopted
	if d.flight == nil {
		t.Fatal("it is not adopted")
	}
	d.intend("c", member.WishMaintenance)
	d.commit()
	d.reject()
	d.live(2 * time.Second)
	d.commitAll()
	if p := d.phase("c"); p != member.PhaseActive {
		t.Errorf("it is %s", p)
	}
}
