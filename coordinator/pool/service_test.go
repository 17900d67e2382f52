package pool_test

import (
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// health says how the service of a member is.
func (d *desk) health(id member.ID, isDown bool) {
	d.t.Helper()
	text := ""
	if isDown {
		text = "http://127.0.0.1:80/: 503"
	}
	p := d.byID[id]
	d.step(pool.ServiceHealth{Session: p.hello.Session, Incarnation: p.inc, Down: isDown, Text: text})
}

// published are the marks of the last step.
func (d *desk) published() []member.Mark {
	var marks []member.Mark
	for _, e := range d.effects {
		if m, ok := e.(pool.PublishMark); ok {
			marks = append(marks, m.Mark)
		}
	}
	return marks
}

func (d *desk) phase(id member.ID) member.Phase { return d.table.rows[id].Phase }

// Routers are told at once, before any commit; the row follows, and so it goes
// back. It stays on the ring, watched and watching.
func TestServiceDown(t *testing.T) {
	t.Parallel()
	d := five(t)
	before := d.table.rows["c"]
	d.health("c", true)
	marks := d.published()
	if len(marks) != 1 || !marks[0].ServiceDown || marks[0].Suspect || marks[0].TTL == 0 || marks[0].ID != "c" || marks[0].Incarnation != before.Incarnation {
		t.Fatalf("%+v", marks)
	}
	if !d.alarm("SERVICE_DOWN", "c") || d.m.Status().ServiceDown != 1 || d.m.Status().Active != 4 {
		t.Errorf("%v, %+v", d.alarms, d.m.Status())
	}
	d.commit()
	row := d.table.rows["c"]
	if row.Phase != member.PhaseServiceDown || row.First != before.First || row.Incarnation != before.Incarnation {
		t.Fatalf("%+v", row)
	}
	if s, _ := d.m.Server("c"); !strings.Contains(s.WaitingFor, "503") || s.ServiceText != "http://127.0.0.1:80/: 503" || s.Suspect {
		t.Errorf("%+v", s)
	}
	if n := len(d.byID["c"].assigned.Subjects); n != 2 {
		t.Errorf("it watches %d", n)
	}
	d.health("c", false)
	if marks := d.published(); len(marks) != 1 || marks[0].ServiceDown || marks[0].TTL != 0 {
		t.Fatalf("%+v", marks)
	}
	d.commit()
	if d.phase("c") != member.PhaseActive || d.alarm("SERVICE_DOWN", "c") || d.m.Status().ServiceDown != 0 {
		t.Fatalf("%s, %v", d.phase("c"), d.alarms)
	}
}

// A database that is away delays the row, not the mark, which is renewed.
func TestServiceDownWithoutADatabase(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.health("c", true)
	var last time.Time
	for start := d.now; d.now.Sub(start) < time.Minute; {
		if d.flight != nil {
			d.reject()
		}
		d.wait(500 * time.Millisecond)
		for _, m := range d.published() {
			if !m.ServiceDown || m.TTL < 20*time.Second {
				t.Fatalf("%+v", m)
			}
			last = d.now
		}
	}
	if d.now.Sub(last) > 12*time.Second {
		t.Fatalf("renewed last %v ago", d.now.Sub(last))
	}
	d.wait(time.Second)
	d.commitAll()
	if d.phase("c") != member.PhaseServiceDown {
		t.Fatalf("c is %s", d.phase("c"))
	}
}

// One mark carries both, in either order.
func TestMarkCarriesBoth(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.health("c", true)
	d.commitAll()
	d.miss("c")
	for _, o := range d.observers("c") {
		d.answer(o, "c", down, false)
	}
	if m := d.marks["c"]; !m.Suspect || !m.ServiceDown {
		t.Fatalf("%+v", m)
	}
	d.health("c", false)
	if m := d.marks["c"]; !m.Suspect || m.ServiceDown {
		t.Fatalf("%+v", m)
	}
	d.health("c", true)
	if m := d.marks["c"]; !m.Suspect || !m.ServiceDown || m.Since.IsZero() {
		t.Fatalf("%+v", m)
	}
	// It is judged like any other.
	d.answerAll("c", down)
	d.commitAll()
	if !d.removed("c") || d.alarm("SERVICE_DOWN", "c") {
		t.Fatalf("kept by %s, alarms %v", d.rule("c"), d.alarms)
	}
}

// Losing the agent, or its running anew, says nothing about host or service.
func TestLostAgentIsNoServiceDown(t *testing.T) {
	t.Parallel()
	for name, isDown := range map[string]bool{"up": false, "down": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			want := member.PhaseActive
			if isDown {
				d.health("c", true)
				want = member.PhaseServiceDown
			}
			d.commitAll()
			d.close(d.byID["c"], true)
			d.wait(time.Minute)
			d.commitAll()
			if d.phase("c") != want {
				t.Fatalf("c is %s", d.phase("c"))
			}
			again := agent("c")
			again.InstanceID, again.Incarnation = "another", d.table.rows["c"].Incarnation
			d.hello(again)
			d.commitAll()
			d.step(pool.Digest{Session: d.byID["c"].hello.Session, Health: &pool.ServiceHealth{Incarnation: d.byID["c"].inc, Undecided: true}})
			d.commitAll()
			if d.phase("c") != want {
				t.Fatalf("c is %s after its agent has started anew", d.phase("c"))
			}
			// An agent without checks finds nothing wrong.
			d.step(pool.Digest{Session: d.byID["c"].hello.Session})
			d.commitAll()
			if d.phase("c") != member.PhaseActive {
				t.Fatalf("c is %s", d.phase("c"))
			}
		})
	}
}

// What the agent says of another incarnation, or over another stream, is void.
func TestHealthOfAnotherIncarnation(t *testing.T) {
	t.Parallel()
	d := five(t)
	p := d.byID["c"]
	for _, in := range []pool.Input{
		pool.ServiceHealth{Session: p.hello.Session, Incarnation: p.inc - 1, Down: true},
		pool.ServiceHealth{Session: 99, Incarnation: p.inc, Down: true},
		pool.ServiceHealth{Session: p.hello.Session, Down: true},
	} {
		dropped := d.counts[pool.CountDropped]
		d.step(in)
		if d.flight != nil || len(d.published()) > 0 || d.counts[pool.CountDropped] != dropped+1 {
			t.Errorf("%+v counts", in)
		}
	}
	d.step(pool.Digest{Session: p.hello.Session, Health: &pool.ServiceHealth{Incarnation: p.inc - 1, Down: true}})
	if d.flight != nil {
		t.Error("the digest counts")
	}
}

// DRAINING, HELD and JOINING win; the health is remembered for when they end.
func TestOtherPhasesWin(t *testing.T) {
	t.Parallel()
	t.Run("draining", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.health("c", true)
		d.commitAll()
		d.intend("c", member.WishDrain)
		d.commitAll()
		if d.phase("c") != member.PhaseDraining {
			t.Fatalf("c is %s", d.phase("c"))
		}
		d.intend("c", member.WishActive)
		d.commitAll()
		if d.phase("c") != member.PhaseServiceDown {
			t.Fatalf("c is %s", d.phase("c"))
		}
		d.intend("c", member.WishDrain)
		d.commitAll()
		d.health("c", false)
		d.commitAll()
		if d.phase("c") != member.PhaseDraining {
			t.Fatalf("c is %s", d.phase("c"))
		}
		d.intend("c", member.WishActive)
		d.commitAll()
		if d.phase("c") != member.PhaseActive {
			t.Fatalf("c is %s", d.phase("c"))
		}
	})
	t.Run("held", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		d.health("c", true)
		d.commitAll()
		d.report(d.table.rows["c"].First, "c", up)
		d.health("c", true)
		d.commitAll()
		if d.phase("c") != member.PhaseHeld {
			t.Fatalf("c is %s", d.phase("c"))
		}
		d.wait(5 * time.Second)
		d.commitAll()
		if d.phase("c") != member.PhaseServiceDown {
			t.Fatalf("c is %s", d.phase("c"))
		}
	})
	t.Run("joining", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.hello(agent("f"))
		d.commit()
		d.health("f", true)
		d.commitAll()
		if d.phase("f") != member.PhaseJoining {
			t.Fatalf("f is %s", d.phase("f"))
		}
		d.report(d.table.rows["f"].First, "f", up)
		d.commitAll()
		if d.phase("f") != member.PhaseServiceDown {
			t.Fatalf("f is %s", d.phase("f"))
		}
	})
}

// A coordinator that starts takes the table's word until the agent says more.
func TestServiceDownOutlivesTheCoordinator(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.health("c", true)
	d.commitAll()
	d.table.at.Epoch++
	d.boot()
	d.wait(time.Second)
	if !d.alarm("SERVICE_DOWN", "c") || d.m.Status().ServiceDown != 1 {
		t.Fatalf("%v", d.alarms)
	}
	for _, id := range d.table.order {
		d.hello(agent(id))
	}
	d.commitAll()
	if d.phase("c") != member.PhaseServiceDown {
		t.Fatalf("c is %s", d.phase("c"))
	}
	d.health("c", false)
	d.commitAll()
	if d.phase("c") != member.PhaseActive || d.alarm("SERVICE_DOWN", "c") {
		t.Fatalf("c is %s", d.phase("c"))
	}
}

// More than half with a service that is down, or suspect, is an alarm of its own:
// the routers use them again.
func TestServicesDown(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.health("a", true)
	d.health("b", true)
	d.commitAll()
	if d.alarm("SERVICES_DOWN", "") {
		t.Fatal("two of five are not more than half")
	}
	d.miss("d")
	for _, o := range d.observers("d") {
		d.answer(o, "d", down, false)
	}
	if !d.alarm("SERVICES_DOWN", "") {
		t.Fatal("a suspect does not count")
	}
	d.answerAll("d", up)
	d.report(d.table.rows["d"].First, "d", up)
	d.report(d.table.rows["d"].Second, "d", up)
	if d.alarm("SERVICES_DOWN", "") {
		t.Fatal("the alarm is never over")
	}
	d.health("c", true)
	if !d.alarm("SERVICES_DOWN", "") {
		t.Fatal("no alarm")
	}
	d.commitAll()
	d.health("a", false)
	if d.alarm("SERVICES_DOWN", "") {
		t.Fatal("the alarm is never over")
	}
}

// Only those count that would get work if all were well: with a weight, an endpoint,
// and in a phase that is routed.
func TestServicesDownCountsCandidates(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*member.Spec){
		"without a weight":    func(s *member.Spec) { s.Weight = 0 },
		"without an endpoint": func(s *member.Spec) { s.Endpoints = nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			// Two of three that count is more than half; two of five is not.
			d.respec("d", edit)
			d.respec("e", edit)
			d.health("a", true)
			d.commitAll()
			d.health("d", true)
			d.health("e", true)
			d.commitAll()
			if d.alarm("SERVICES_DOWN", "") {
				t.Fatal("one of three that count, and two that do not, are not more than half")
			}
			d.health("b", true)
			d.commitAll()
			if !d.alarm("SERVICES_DOWN", "") {
				t.Fatal("two of three that count are more than half")
			}
		})
	}
	t.Run("draining", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		for _, id := range []member.ID{"d", "e"} {
			d.intend(id, member.WishDrain)
			d.commitAll()
		}
		d.health("a", true)
		d.health("b", true)
		d.commitAll()
		if !d.alarm("SERVICES_DOWN", "") {
			t.Fatal("two of three that are routed are more than half")
		}
	})
	t.Run("suspects alone", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b", "c", "d")
		d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
		d.commitAll()
		for _, id := range []member.ID{d.table.order[1], d.table.order[3]} {
			d.report(d.table.order[0], id, down)
			d.report(d.table.order[2], id, down)
		}
		if len(d.marks) != 2 || d.alarm("SERVICES_DOWN", "") {
			t.Fatalf("suspect %v, alarms %v", d.marks, d.alarms)
		}
	})
}

// A digest tells of the service as well as a message of its own; what it says newly of a
// service that is down is kept.
func TestDigestTellsOfTheService(t *testing.T) {
	t.Parallel()
	d := five(t)
	p := d.byID["c"]
	say := func(isDown bool, text string) {
		d.step(pool.Digest{Session: p.hello.Session, Health: &pool.ServiceHealth{Incarnation: p.inc, Down: isDown, Text: text}})
		d.commitAll()
	}
	for _, step := range []struct{ say, want string }{{"503", "503"}, {"refused", "refused"}, {"", "refused"}} {
		say(true, step.say)
		if s, _ := d.m.Server("c"); d.phase("c") != member.PhaseServiceDown || s.ServiceText != step.want {
			t.Errorf("after %q: %s, %q", step.say, d.phase("c"), s.ServiceText)
		}
	}
	say(false, "")
	if d.phase("c") != member.PhaseActive {
		t.Errorf("c is %s", d.phase("c"))
	}
}
