package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// A second honest reply that comes late, while the second round is on, counts.
func TestLateReplyInTheSecondRound(t *testing.T) {
	t.Parallel()
	d := letters(t, 20)
	d.close(d.byID["c"], false)
	d.miss("c")
	row, first := d.table.rows["c"], d.notary.newest["c"]
	witnesses := slices.DeleteFunc(slices.Clone(first.observers), func(id member.ID) bool { return id == row.First || id == row.Second })
	d.answer(witnesses[0], "c", up, true)
	late := d.answerOf(witnesses[1], "c", up, true)
	for _, id := range first.observers {
		if id != witnesses[0] && id != witnesses[1] {
			d.answer(id, "c", down, false)
		}
	}
	d.toLastProbe("c")
	for _, id := range slices.Clone(first.observers) {
		if id != witnesses[0] && id != witnesses[1] && d.notary.newest["c"] == first {
			d.answer(id, "c", down, true)
		}
	}
	d.wait(200 * time.Millisecond)
	if d.notary.newest["c"] == first {
		t.Fatal("no second round")
	}
	d.step(late)
	if d.step(late); d.m.Load(witnesses[1]) != 1 { // it is in one round, however often it says so
		t.Fatalf("it is said to be in %d rounds", d.m.Load(witnesses[1]))
	}
	d.answerAll("c", down)
	d.wait(10 * time.Millisecond)
	if d.removes("c") {
		t.Fatal("removed although two observers of its first round reach it")
	}
}

// One buddy cannot keep a dead server by changing its mind while the verdict
// waits for the database.
func TestChangedMindKeepsNobody(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	liar := d.table.rows["c"].First
	d.close(d.byID["c"], false)
	d.miss("c")
	for i := range 10 {
		if d.flight == nil {
			d.intend(serverID(20+i%5), []member.Wish{member.WishDrain, member.WishMaintenance}[i%2])
		}
		d.answerAll("c", down)
		d.wait(5 * time.Millisecond)
		d.report(liar, "c", up)
		d.report(liar, "c", down)
		d.wait(100 * time.Millisecond)
		d.commit()
		if d.removes("c") {
			return
		}
		d.nextRound("c")
	}
	t.Fatalf("kept by %s", d.rule("c"))
}

// Nor can one that says nothing in rounds, and that it reaches the server as soon as all
// others have found it dead: by its own probes, or by an answer that is late.
func TestLateWordKeepsNobody(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(d *desk, liar member.ID, late pool.Answer){
		"its own probes": func(d *desk, liar member.ID, _ pool.Answer) {
			d.report(liar, "c", up)
			d.report(liar, "c", down)
		},
		"a late answer": func(d *desk, _ member.ID, late pool.Answer) { d.step(late) },
		"the one and the other": func(d *desk, liar member.ID, late pool.Answer) {
			if late.Round%2 == 0 {
				d.step(late)
				return
			}
			d.report(liar, "c", up)
			d.report(liar, "c", down)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 12)
			liar := d.table.rows["c"].First
			d.close(d.byID["c"], false)
			d.miss("c")
			for i := range 3 {
				d.intend(serverID(20+i), member.WishDrain) // is under way
				late, round := d.answerOf(liar, "c", up, true), d.notary.newest["c"]
				for _, final := range []bool{false, true} {
					for _, id := range round.observers {
						if id != liar {
							d.answer(id, "c", down, final)
						}
					}
					d.toLastProbe("c")
				}
				d.wait(250 * time.Millisecond)
				if !d.m.Confirmed("c") {
					t.Fatalf("there is no verdict, by %s", d.rule("c"))
				}
				say(d, liar, late)
				d.commit()
				if d.removes("c") {
					return
				}
				d.nextRound("c")
			}
			t.Fatalf("kept by %s", d.rule("c"))
		})
	}
}

// What an operator has confirmed is over with the incarnation that it was about.
func TestReleaseEndsWithTheIncarnation(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	dead := d.apart(8)
	d.missAll(dead)
	d.commitAll()
	d.releaseBrake(pool.Call{})
	for d.gone(dead) < len(dead) {
		d.nextRound(dead[0])
		d.answersOf(dead)
	}
	d.commitAll()
	for _, id := range dead {
		d.hello(reboot(id))
		d.commitAll()
	}
	if released := d.m.Brake().Released; len(released) > 0 {
		t.Fatalf("still released: %+v", released)
	}
}

// What an operator has confirmed holds for a minute.
func TestReleaseHoldsForAMinute(t *testing.T) {
	t.Parallel()
	d := many(t, 31, nil)
	d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
	d.commitAll()
	d.missAll(d.apart(8))
	d.commitAll()
	d.releaseBrake(pool.Call{})
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{0, 8}, {59 * time.Second, 8}, {time.Second, 0}} {
		d.live(step.after)
		if got := len(d.m.Brake().Released); got != step.want {
			t.Errorf("%v later: %d are released, want %d", step.after, got, step.want)
		}
	}
}

// A verdict that came from no suspicion counts for the brake, and makes its server
// suspect.
func TestVerdictMakesSuspect(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.intend("zebra", member.WishDrain) // is under way
	row := d.table.rows["c"]
	d.lossy("c", row.First, row.Second)
	heavy := pool.Evidence{Sight: up, Sent: 8, Lost: 6, RTT: time.Millisecond}
	d.measured("c", 4*time.Second, false, heavy, heavy, heavy)
	if _, suspect := d.marks["c"]; !suspect || d.m.Brake().Safety.Suspects != 1 {
		t.Fatalf("suspect %v, %+v", suspect, d.m.Brake().Safety)
	}
}

// If most of a pool does not echo a sweep in time, it is the coordinator that is
// slow: nobody is looked into until there was more time.
func TestSlowSweepWaits(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	row := d.table.rows["c"]
	for _, id := range d.table.order {
		d.said[[2]member.ID{"nobody", id}] = down // it will not echo
	}
	looked := func() int {
		n := 0
		for _, id := range d.table.order {
			if id != "c" && d.notary.newest[id] != nil {
				n++
			}
		}
		return n
	}
	d.report(row.Second, "c", down)
	d.report(row.First, "c", down)
	d.wait(time.Second)
	if n := looked(); n > 0 {
		t.Fatalf("%d are looked into", n)
	}
	d.wait(time.Second)
	if looked() == 0 {
		t.Fatal("nobody is ever looked into")
	}
}

// Who was overruled is heard again when a gate has refused the removal.
func TestGateHearsEverybodyAgain(t *testing.T) {
	t.Parallel()
	d := letters(t, 20)
	d.set(func(s *member.Settings) { s.RemovalGrace = 5 * time.Second })
	d.commitAll()
	d.close(d.byID["c"], false)
	d.miss("c")
	row := d.table.rows["c"]
	odd := slices.DeleteFunc(slices.Clone(d.observers("c")), func(id member.ID) bool { return id == row.First || id == row.Second })[0]
	d.answerWith("c", but(odd, up, down))
	d.answerWith("c", but(odd, up, down))
	d.staysAfterRound("c", "removal_grace")
	d.nextRound("c")
	if !slices.Contains(d.observers("c"), odd) {
		t.Fatalf("%s has reached c, and is not among %v", odd, d.observers("c"))
	}
}
