package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on whom a round asks, and fails without it.

// A first round leaves two for a second one where there are enough: in a pool of
// six there are not, and all may be asked.
func TestFirstRoundLeavesSomeForASecond(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{6: 5, 7: 4, 8: 5} {
		d := letters(t, n)
		d.miss("c")
		d.wait(300 * time.Millisecond)
		if got := d.observers("c"); len(got) != want {
			t.Errorf("of %d, all silent, %v are asked, want %d", n, got, want)
		}
	}
}

// So also a liar that is a witness keeps no dead server in a pool of seven in which
// others have been silent.
func TestReserveOfSeven(t *testing.T) {
	t.Parallel()
	d := letters(t, 7)
	d.close(d.byID["c"], false)
	d.miss("c")
	d.wait(300 * time.Millisecond) // time to ask others in the place of the silent
	first := d.notary.newest["c"]
	liar := first.observers[3]
	d.answerWith("c", but(liar, up, down))
	if d.notary.newest["c"] == first {
		t.Fatalf("no second round: %s", d.rule("c"))
	}
	d.answerWith("c", but(liar, up, down))
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// However many are silent, twelve are asked at the most.
func TestTwelveAreAskedAtMost(t *testing.T) {
	t.Parallel()
	d := letters(t, 20)
	d.miss("c")
	d.wait(450 * time.Millisecond)
	if got := d.observers("c"); len(got) != 12 {
		t.Fatalf("%d are asked: %v", len(got), got)
	}
}

// Four are asked about a doubt, eight about a suspect, fewer if a second round would
// have nobody.
func TestMoreLookAtASuspect(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{9: 6, 10: 7, 11: 8, 14: 8} {
		d := letters(t, n)
		d.report(d.table.rows["c"].Second, "c", down)
		if got := len(d.observers("c")); got != 4 {
			t.Errorf("of %d, %d are asked about a doubt", n, got)
		}
		d.report(d.table.rows["c"].First, "c", down)
		if got := len(d.observers("c")); got != want {
			t.Errorf("of %d, %d are asked about a suspect, want %d", n, got, want)
		}
	}
}

// Who is asked last must have begun when the round had a while to go.
func TestNobodyIsAskedAtTheEnd(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]int{150 * time.Millisecond: 8, 149 * time.Millisecond: 4} {
		d := letters(t, 14)
		d.report(d.table.rows["c"].Second, "c", down)
		for _, id := range d.observers("c") {
			d.answer(id, "c", verdict.SightUnknown, false) // it is there, no more
		}
		d.wait(d.notary.newest["c"].lastProbe.Sub(d.now) - left)
		d.report(d.table.rows["c"].First, "c", down)
		if _, suspect := d.marks["c"]; !suspect || len(d.observers("c")) != want {
			t.Errorf("%v before the end: suspect %v, %d are asked, want %d", left, suspect, len(d.observers("c")), want)
		}
	}
}

// Who is asked late probes for a while all the same.
func TestShortestProbing(t *testing.T) {
	t.Parallel()
	d := letters(t, 14)
	d.report(d.table.rows["c"].Second, "c", down)
	asked := slices.Clone(d.observers("c"))
	for _, id := range asked {
		d.answer(id, "c", verdict.SightUnknown, false)
	}
	d.wait(d.notary.newest["c"].lastProbe.Sub(d.now) - 50*time.Millisecond)
	d.answer(asked[0], "c", verdict.SightCannotJudge, true)
	late := d.observers("c")[len(asked):]
	if len(late) != 1 {
		t.Fatalf("%v are asked in the place of %s", late, asked[0])
	}
	asks := d.byID[late[0]].asks
	if over := asks[len(asks)-1].Over; over != 150*time.Millisecond {
		t.Errorf("%s probes over %v", late[0], over)
	}
}

// When many are suspect, nobody is a witness of more than four at a time, as long as
// there are others.
func TestWitnessesShareTheLoad(t *testing.T) {
	t.Parallel()
	d := many(t, 40, nil)
	for _, id := range d.apart(13) {
		d.miss(id)
		d.echoSweep()
	}
	most := 0
	for id, p := range d.byID {
		for i, ask := range p.asks {
			if ask.Subject.Role != pool.RoleWitness {
				continue
			}
			most = max(most, i+1)
			if i >= 4 {
				t.Errorf("%s is asked about %s beside %d others", id, ask.Subject.ID, i)
			}
		}
	}
	if most < 4 {
		t.Fatalf("nobody is asked about more than %d: the limit is not reached", most)
	}
}

// Who was asked in rounds that are over is as free as before.
func TestLoadEndsWithTheRound(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	for range 3 {
		d.miss("c")
		for _, id := range d.observers("c") {
			if n := d.m.Load(id); n != 1 {
				t.Fatalf("%s is asked in %d rounds, want 1", id, n)
			}
		}
		asked := slices.Clone(d.observers("c"))
		d.answerAll("c", up)
		d.report(d.table.rows["c"].First, "c", up)
		d.report(d.table.rows["c"].Second, "c", up)
		for _, id := range asked {
			if n := d.m.Load(id); n != 0 {
				t.Fatalf("%s is asked in %d rounds, want none", id, n)
			}
		}
		d.live(10 * time.Second)
	}
}

// Who has reached the server in the incident is asked again, also in a pool in which
// the draw would hardly hit it.
func TestReachersAreAskedAgain(t *testing.T) {
	t.Parallel()
	d := many(t, 60, nil)
	c := numbered(30)
	d.miss(c)
	row := d.table.rows[c]
	witnesses := slices.DeleteFunc(slices.Clone(d.observers(c)), func(id member.ID) bool { return id == row.First || id == row.Second })
	reach := witnesses[:2]
	d.answerWith(c, func(id member.ID) pool.Evidence {
		if slices.Contains(reach, id) {
			return evidence(up)
		}
		return evidence(down)
	})
	d.nextRound(c)
	for _, id := range reach {
		if !slices.Contains(d.observers(c), id) {
			t.Errorf("%s has reached %s, and is not among %v", id, c, d.observers(c))
		}
	}
}

// Only the doubt that begins an incident is credited with its age, in the first round (ADR
// 7): a server whose loss is being measured is in an incident already.
func TestOneCreditAnIncident(t *testing.T) {
	t.Parallel()
	d := lossyLetters(t, 8)
	d.wait(200 * time.Millisecond)
	lost := d.now.Add(-20 * time.Millisecond)
	d.report(d.table.rows["c"].First, "c", down)
	d.answerWith("c", but("", up, down))
	if span := d.now.Sub(lost); d.removes("c") && span < 500*time.Millisecond {
		t.Fatalf("removed %v after the first lost probe", span)
	}
}

// Nor is it where the server was reached since: what was lost before that says nothing.
func TestNoCreditAfterAReply(t *testing.T) {
	t.Parallel()
	for _, reply := range []bool{false, true} {
		d := letters(t, 8)
		row := d.table.rows["c"]
		d.report(row.First, "c", down)
		d.report(row.First, "c", up)
		d.wait(30 * time.Millisecond)
		d.report(row.First, "c", down) // too soon for another round
		d.wait(10 * time.Millisecond)
		if reply {
			d.report(row.Second, "c", up)
		}
		before := d.notary.newest["c"]
		d.wait(60 * time.Millisecond)
		r := d.notary.newest["c"]
		if r == before {
			t.Fatal("there is no other round")
		}
		if span := r.lastProbe.Sub(r.opened); span >= 500*time.Millisecond != reply {
			t.Errorf("replied %v: probes over %v", reply, span)
		}
	}
}
