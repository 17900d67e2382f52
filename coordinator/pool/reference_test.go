package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about the size that a pool is meant to have, and what is lost of it.

// A newcomer that nobody ever reached leaves nothing behind when it is taken out: nobody
// is lost by it.
func TestNeverReachedLeavesNothingLost(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ dead, lost int }{
		"beside all others":          {0, 0},
		"in the place of a lost one": {1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := many(t, 8, nil)
			for i := range test.dead {
				d.die(numbered(i))
			}
			d.hello(agent("new"))
			d.commitAll()
			d.miss("new")
			d.close(d.byID["new"], true)
			d.live(32 * time.Second)
			d.commitAll()
			if !d.removed("new") {
				t.Fatal("it stays")
			}
			after, is := d.m.Decisions("new")[0].Explanation.After, d.m.Brake().Safety
			if is.Lost != test.lost || is.ReferenceSize != 8 || after.Lost != is.Lost || after.ReferenceSize != 8 {
				t.Errorf("explained as %+v, it is %+v", after, is)
			}
		})
	}
}

// Who is JOINING and goes again leaves the reference size as it was, however it goes: the
// floor does not wear away with each start of an agent that nobody reaches.
func TestShrinking(t *testing.T) {
	t.Parallel()
	goes := map[string]func(d *desk, id member.ID){
		"it shuts down": func(d *desk, id member.ID) {
			d.step(pool.Leave{Session: d.byID[id].hello.Session, Incarnation: d.table.rows[id].Incarnation})
		},
		"an operator removes it": func(d *desk, id member.ID) { d.remove(id) },
		"it is replaced": func(d *desk, id member.ID) {
			d.call(func(c pool.Call) pool.Input { return pool.ReplaceServer{Call: c, ID: id, By: numbered(7)} }, pool.Call{})
		},
	}
	for how, leave := range goes {
		for name, test := range map[string]struct{ dead, lost int }{
			"beside all others":          {0, 0},
			"in the place of a lost one": {1, 1},
		} {
			t.Run(how+" "+name, func(t *testing.T) {
				t.Parallel()
				d := many(t, 8, nil)
				for i := range test.dead {
					d.die(numbered(i))
				}
				d.hello(agent("new"))
				d.commitAll()
				if p := d.phase("new"); p != member.PhaseJoining {
					t.Fatalf("it is %s", p)
				}
				leave(d, "new")
				d.commitAll()
				if s := d.m.Brake().Safety; d.table.rows["new"].ID != "" || s.ReferenceSize != 8 || s.Lost != test.lost {
					t.Errorf("%s: %+v", d.phase("new"), s)
				}
			})
		}
	}
}

// A newcomer that is JOINING does not raise the reference size: nobody is lost by it,
// though somebody left by verdict in these days, and it makes no room under the floor.
// One that is ACTIVE does.
func TestNewcomersRaiseNothing(t *testing.T) {
	t.Parallel()
	d := many(t, 4, nil)
	d.die(numbered(0))
	for at := d.now; d.table.reference == 4 && d.now.Sub(at) < time.Hour; {
		d.live(time.Minute)
		d.commitAll()
	}
	for _, id := range []member.ID{"x", "y", "z"} {
		d.hello(agent(id))
	}
	d.commitAll()
	if s := d.m.Brake().Safety; s.ReferenceSize != 3 || s.FloorLimit != 1 || s.Lost != 0 {
		t.Fatalf("three newcomers: %+v", s)
	}
	d.report(d.table.rows["x"].First, "x", up)
	d.commitAll()
	if s := d.m.Brake().Safety; s.ReferenceSize != 4 || s.FloorLimit != 2 || s.Lost != 0 {
		t.Fatalf("x is %s: %+v", d.phase("x"), s)
	}
	dead := numbered(2)
	d.die(dead)
	if after, is := d.m.Decisions(dead)[0].Explanation.After, d.m.Brake().Safety; after.Lost != 1 || is.Lost != 1 {
		t.Errorf("explained as %+v, it is %+v", after, is)
	}
}

// Half an hour without a verdict makes the size that there is the one that is
// meant.
func TestReferenceSizeFollows(t *testing.T) {
	t.Parallel()
	d := many(t, 8, nil)
	d.die(numbered(0))
	d.die(numbered(1))
	if d.table.reference != 8 {
		t.Fatalf("%d", d.table.reference)
	}
	at := d.now
	for d.table.reference == 8 && d.now.Sub(at) < time.Hour {
		d.live(time.Minute)
		d.commitAll()
	}
	if took := d.now.Sub(at); d.table.reference != 6 || took < 29*time.Minute || took > 32*time.Minute {
		t.Fatalf("%d after %v", d.table.reference, took)
	}
	d.step(pool.Leave{Session: d.byID[numbered(4)].hello.Session, Incarnation: d.table.rows[numbered(4)].Incarnation})
	d.commitAll()
	if d.table.reference != 5 {
		t.Fatalf("%d after a shutdown", d.table.reference)
	}
}

// It does not follow while anything speaks for a removal, be it that the floor holds
// it or the mode of the pool, also under a new leader; and for half an hour after
// that.
func TestReferenceSizeStaysWhileARemovalIsHeld(t *testing.T) {
	t.Parallel()
	for rule, test := range map[string]struct {
		lost int
		mode member.Mode
	}{"floor": {4, member.ModeEnforce}, "shadow_mode": {1, member.ModeShadow}} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			d := many(t, 8, nil)
			d.set(func(s *member.Settings) { s.BrakePercent = 100 })
			d.commitAll()
			for i := range test.lost {
				d.die(numbered(i))
			}
			d.set(func(s *member.Settings) { s.Mode = test.mode })
			d.commitAll()
			last := numbered(5)
			d.staysHeld(last, rule, 35*time.Minute)
			d.table.at.Epoch++
			d.boot()
			clear(d.said)
			for _, id := range d.table.order {
				d.hello(agent(id))
			}
			d.digests()
			d.commitAll()
			d.staysHeld(last, rule, 10*time.Minute)
			d.report(d.table.rows[last].First, last, up)
			d.report(d.table.rows[last].Second, last, up)
			d.nextOrNone(last, up)
			calm := d.now
			for d.table.reference == 8 && d.now.Sub(calm) < time.Hour {
				d.live(time.Minute)
				d.commitAll()
			}
			if took := d.now.Sub(calm); d.table.reference != 8-test.lost || took < 29*time.Minute || took > 32*time.Minute {
				t.Fatalf("%d after %v", d.table.reference, took)
			}
		})
	}
}

// staysHeld lets everybody miss a server for so long, of a pool that is meant to have
// eight, and fails unless it is kept by that rule.
func (d *desk) staysHeld(id member.ID, rule string, span time.Duration) {
	d.t.Helper()
	d.missAll([]member.ID{id})
	kept := false
	for end := d.now.Add(span); d.now.Before(end); {
		d.nextRound(id)
		d.answersOf([]member.ID{id})
		kept = kept || d.rule(id) == rule
		d.live(10 * time.Second)
		d.commitAll()
		if d.removed(id) || d.table.reference != 8 {
			d.t.Fatalf("removed by %q, reference size %d", d.rule(id), d.table.reference)
		}
	}
	if !kept {
		d.t.Fatalf("kept by %q", d.rule(id))
	}
}

// What it says will be lost is what is lost then: not who was lost and is back,
// but for a newcomer that is JOINING still.
func TestRemovalTellsWhatWillBeLost(t *testing.T) {
	t.Parallel()
	d := many(t, 8, nil)
	back, dead := numbered(0), numbered(4)
	d.die(back)
	d.hello(reboot(back))
	d.commitAll()
	d.report(d.table.rows[back].First, back, up)
	d.live(10 * time.Second)
	d.commitAll()
	d.hello(agent("new"))
	d.commitAll()
	if d.phase(back) != member.PhaseActive || d.phase("new") != member.PhaseJoining {
		t.Fatalf("%s and %s", d.phase(back), d.phase("new"))
	}
	d.die(dead)
	after := d.m.Decisions(dead)[0].Explanation.After
	if now := d.m.Brake().Safety; after.Lost != 1 || now.Lost != 1 {
		t.Errorf("explained as %+v, it is %+v", after, now)
	}
}
