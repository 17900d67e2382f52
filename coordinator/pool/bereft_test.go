package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// One that distrusts itself because all whom it watches are silent is believed as far as
// a mark goes, unless another reaches any of them: then it is deaf.
func TestBereftWatchers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		score   int
		edit    func(d *desk, bereft, other, witness member.ID)
		suspect bool
	}{
		"all whom it watches are silent":            {1, func(d *desk, _, other, witness member.ID) { d.report(witness, other, down) }, true},
		"another reaches one of them":               {1, func(*desk, member.ID, member.ID, member.ID) {}, false},
		"another, who is gone, reached one of them": {1, func(d *desk, _, _, witness member.ID) { d.close(d.byID[witness], true) }, true},
		"it reaches one of them": {1, func(d *desk, bereft, other, witness member.ID) {
			d.report(witness, other, down)
			d.report(bereft, other, up)
		}, false},
		"it has other troubles, too": {2, func(d *desk, _, other, witness member.ID) { d.report(witness, other, down) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			bereft := d.table.rows["c"].First
			other := d.table.rows[bereft].First
			witness := d.table.rows[other].First
			d.said[[2]member.ID{bereft, "c"}] = down
			d.said[[2]member.ID{bereft, other}] = down
			test.edit(d, bereft, other, witness)
			d.digest(d.byID[bereft], test.score)
			d.report(d.table.rows["c"].Second, "c", down)
			if _, suspect := d.marks["c"]; suspect != test.suspect {
				t.Errorf("c is suspect: %v, want %v", suspect, test.suspect)
			}
		})
	}
}

// Where two die together of three, the one that is left has routers avoid them if
// neither their streams nor the coordinator's connects are answered, and removes nobody.
func TestLastOfThree(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		echoes   []member.ID
		answered bool
		suspect  bool
	}{
		"nothing is answered":   {nil, false, true},
		"its connect is":        {nil, true, false},
		"its stream's nonce is": {[]member.ID{"b"}, false, false},
		"another one is there":  {[]member.ID{"c"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.pool("a", "b", "c")
			d.report("a", "b", down)
			d.report("a", "c", down)
			d.digest(d.byID["a"], 1)
			for range 3 {
				d.toLastProbe("b")
				for _, id := range test.echoes {
					d.echo(id)
				}
				d.lastObserver("a", "b", test.answered)
				if _, suspect := d.marks["b"]; suspect != test.suspect || d.removes("b") {
					t.Fatalf("b is suspect: %v, want %v; removed: %v", suspect, test.suspect, d.removes("b"))
				}
				d.nextRound("b")
				d.commitAll()
			}
		})
	}
}

// lastObserver ends a round in which only one answers, and distrusts itself.
func (d *desk) lastObserver(observer, subject member.ID, connected bool) {
	d.t.Helper()
	d.step(pool.Dialed{Round: d.notary.newest[subject].id, Answered: connected})
	in := d.answerOf(observer, subject, down, true)
	in.SelfScore = 1
	d.step(in)
}

// The same in a larger pool of which one is left.
func TestLastOfFive(t *testing.T) {
	t.Parallel()
	d := five(t)
	last := d.table.rows["c"].First
	for _, id := range d.table.order {
		if id != last {
			d.close(d.byID[id], id != "c")
		}
	}
	d.wait(13 * time.Second)
	d.digest(d.byID[last], 0)
	d.report(last, "c", down)
	dialed := slices.ContainsFunc(d.effects, func(e pool.Effect) bool { _, ok := e.(pool.Dial); return ok })
	if !dialed {
		t.Fatal("the coordinator does not connect")
	}
	d.toLastProbe("c")
	d.lastObserver(last, "c", false)
	if _, suspect := d.marks["c"]; !suspect || d.removes("c") {
		t.Errorf("c is suspect: %v, removed: %v", suspect, d.removes("c"))
	}
}

// AGENT_DOWN says of the host only what somebody can tell who is there.
func TestAgentDownTellsOfTheHost(t *testing.T) {
	t.Parallel()
	for watched, want := range map[bool]string{
		true:  "c has no agent stream; its host answers its buddies as far as they can tell",
		false: "c has no agent stream; none of its buddies can say that its host answers",
	} {
		d := newDesk(t)
		d.pool("a", "b", "c")
		d.close(d.byID["c"], true)
		if !watched {
			d.close(d.byID["a"], true)
			d.close(d.byID["b"], true)
		}
		d.wait(6 * time.Second)
		if got := d.alarms[member.AlarmKey{Name: "AGENT_DOWN", Pool: "web", Subject: "c"}].Text; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
