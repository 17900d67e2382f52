package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

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
