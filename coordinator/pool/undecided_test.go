package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on what an undecided round leaves behind, and
// fails without it.

// After a whole round to whose end two miss a server the next one follows at once and
// takes half the time; not after one that a single observer misses, nor after one that
// took half the time itself.
func TestUndecidedRoundGoesOn(t *testing.T) {
	t.Parallel()
	const whole, half, pause = 500 * time.Millisecond, 250 * time.Millisecond, 250 * time.Millisecond
	for missed, want := range map[int]struct{ pause, over time.Duration }{1: {pause, whole}, 2: {0, half}} {
		d := letters(t, 8)
		d.close(d.byID["c"], false)
		d.miss("c")
		if got, over := d.missedBy("c", missed); got != want.pause || over != want.over {
			t.Errorf("missed by %d: the next round comes %v later, over %v", missed, got, over)
		}
		if missed != 2 {
			continue
		}
		if got, over := d.missedBy("c", 2); got == 0 || over != whole {
			t.Errorf("a round that went on goes on itself %v later, over %v", got, over)
		}
	}
}

// missedBy lets so many observers miss a server to the end of its newest round, and
// all others say nothing. It returns how long after it the next one comes, and over
// what time that one probes.
func (d *desk) missedBy(id member.ID, n int) (pause, over time.Duration) {
	d.t.Helper()
	round := d.notary.newest[id]
	for _, o := range round.observers[:n] {
		d.answer(o, id, down, false)
	}
	d.toLastProbe(id)
	for _, o := range round.observers[:n] {
		d.answer(o, id, down, true)
	}
	for d.rule(id) == "" || d.m.Decisions(id)[0].Explanation.Decided.Before(round.lastProbe) {
		d.wait(time.Millisecond)
	}
	ended := d.m.Decisions(id)[0].Explanation.Decided
	if d.notary.newest[id] == round {
		d.nextRound(id)
	}
	next := d.notary.newest[id]
	return next.opened.Sub(ended), next.lastProbe.Sub(next.opened)
}

// undecided ends the newest round about a server with two that miss it and others that
// cannot judge. It returns the answer that is its end, which is yet to be given.
func (d *desk) undecided(id member.ID) pool.Answer {
	d.t.Helper()
	round := d.notary.newest[id]
	for _, o := range round.observers[:2] {
		d.answer(o, id, down, false)
	}
	d.toLastProbe(id)
	for _, o := range round.observers[1:] {
		sight := verdict.SightCannotJudge
		if o == round.observers[1] {
			sight = down
		}
		d.answer(o, id, sight, true)
	}
	return d.answerOf(round.observers[0], id, down, true)
}

// A reply in the very step in which an undecided round ends is the end of what that
// round has seen: the next one takes its whole time.
func TestReplyEndsWhatGoesOn(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]bool{"a reply": true, "none": false} {
		d := letters(t, 8)
		d.close(d.byID["c"], false)
		d.miss("c")
		in := []pool.Input{d.undecided("c")}
		if reply {
			in = append(in, pool.Report{
				Session: d.byID[d.table.rows["c"].First].hello.Session, Subject: "c", Incarnation: d.table.rows["c"].Incarnation, Evidence: evidence(up),
			})
		}
		d.step(in...)
		want := 250 * time.Millisecond
		if reply {
			want *= 2
		}
		next := d.notary.newest["c"]
		if got := next.lastProbe.Sub(next.opened); !next.opened.Equal(d.now) || got != want {
			t.Errorf("%s: the next round comes %v later and takes %v, want %v", name, next.opened.Sub(d.now), got, want)
		}
	}
}

// A round that has come to a verdict is not gone on with when the verdict falls.
func TestVerdictEndsWhatGoesOn(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.intend("zebra", member.WishDrain) // is under way
	d.miss("c")
	d.step(d.undecided("c"))
	round := d.notary.newest["c"]
	if got := round.lastProbe.Sub(round.opened); got != 250*time.Millisecond {
		t.Fatalf("the second round takes %v", got)
	}
	silent := round.observers[len(round.observers)-1]
	late := d.answerOf(silent, "c", up, true)
	for _, final := range []bool{false, true} {
		for _, id := range round.observers {
			if id != silent {
				d.answer(id, "c", down, final)
			}
		}
		d.toLastProbe("c")
	}
	d.wait(150 * time.Millisecond)
	if !d.m.Confirmed("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
	d.close(d.byID["c"], false)
	d.step(late)
	next := d.notary.newest["c"]
	if got := next.lastProbe.Sub(next.opened); next == round || got != 500*time.Millisecond {
		t.Fatalf("another round: %v, it takes %v", next != round, got)
	}
}

// A suspect whose own stream answers is one of those of whom three must miss a
// server, though it is not heard.
func TestProvenSuspectLowersNothing(t *testing.T) {
	t.Parallel()
	for name, proven := range map[string]bool{"proven": true, "silent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 4)
			o := d.table.order // a ring of four
			subject, other, live := o[1], o[2], []member.ID{o[0], o[3]}
			d.report(o[3], other, down)
			if proven {
				d.echo(other)
			}
			for _, id := range live {
				d.answer(id, other, down, false)
			}
			d.toLastProbe(other)
			for _, id := range live {
				d.answer(id, other, down, true)
			}
			d.report(o[0], subject, down)
			d.missedByThese(subject, live)
			if _, suspect := d.marks[other]; !suspect {
				t.Fatalf("%s is not suspect", other)
			}
			d.commitAll()
			if d.removed(subject) == proven {
				t.Errorf("removed: %v, by %s", d.removed(subject), d.rule(subject))
			}
		})
	}
}

// missedByThese is missedBy for those.
func (d *desk) missedByThese(id member.ID, observers []member.ID) {
	d.t.Helper()
	for _, o := range observers {
		d.answer(o, id, down, false)
	}
	d.toLastProbe(id)
	for _, o := range observers {
		d.answer(o, id, down, true)
	}
	d.wait(400 * time.Millisecond)
}

// However many others are suspect, one observer alone decides nothing in a pool of
// four.
func TestOneOfFourDecidesNothing(t *testing.T) {
	t.Parallel()
	d := letters(t, 4)
	o := d.table.order
	for _, id := range []member.ID{o[1], o[3]} {
		d.report(o[0], id, down)
		d.report(o[2], id, down)
	}
	if len(d.marks) != 2 {
		t.Fatalf("suspect are %v", d.marks)
	}
	d.report(o[1], o[0], down)
	d.missedByThese(o[0], o[2:3])
	d.staysAfterRound(o[0], "too_few_observers")
}

// What the stream has proved in the round before holds until there was time for an
// echo in the present one, and no longer.
func TestProofOutlivesTheRoundBriefly(t *testing.T) {
	t.Parallel()
	for name, echoes := range map[string]bool{"it echoes": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			d.report(d.table.rows["c"].Second, "c", down)
			d.echo("c")
			d.report(d.table.rows["c"].First, "c", down)
			for _, id := range d.observers("c") {
				d.answer(id, "c", verdict.SightCannotJudge, true)
			}
			d.wait(verdict.ReplaceAfter)
			d.nextRound("c")
			opened := d.notary.newest["c"].opened
			d.wait(opened.Add(49 * time.Millisecond).Sub(d.now))
			if _, suspect := d.marks["c"]; suspect {
				t.Fatal("suspect before there was time for an echo")
			}
			if echoes {
				d.echo("c")
			}
			d.wait(time.Millisecond)
			if _, suspect := d.marks["c"]; suspect == echoes {
				t.Fatalf("suspect: %v", suspect)
			}
		})
	}
}

// A watcher that has had no reply for a second from a server that others reach gets
// another one beside it; after half a second it does not.
func TestBadEdgeTakesASecond(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	buddy := d.table.rows["c"].First
	helped := func() bool {
		st, _ := d.m.Server("c")
		return len(st.Temporary) > 0
	}
	d.report(buddy, "c", down)
	d.answerWith("c", but(buddy, down, up)) // half a second later
	if helped() {
		t.Fatal("helped already")
	}
	d.nextRound("c")
	// It ends at once, a second and a half after the first lost probe.
	d.answerWith("c", but(buddy, verdict.SightCannotJudge, up))
	if !helped() {
		t.Fatal("not helped")
	}
}

// An observer that leaves while its round is under way counts no more.
func TestObserverLeavesDuringItsRound(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	row := d.table.rows["c"]
	var leaver member.ID
	for _, id := range d.observers("c") {
		d.answer(id, "c", down, false)
		if id != row.First && id != row.Second {
			leaver = id
		}
	}
	d.toLastProbe("c")
	d.answer(leaver, "c", down, true)
	d.step(pool.Leave{Session: d.byID[leaver].hello.Session, Incarnation: d.byID[leaver].inc})
	d.commitAll()
	for _, id := range d.observers("c") {
		if id != leaver {
			d.answer(id, "c", down, true)
		}
	}
	d.wait(time.Second)
	if !d.removed(leaver) {
		t.Fatalf("%s is there", leaver)
	}
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// A suspect whom somebody reaches in its round is one of the others who must miss a server.
func TestReachedSuspectIsAnother(t *testing.T) {
	t.Parallel()
	d := letters(t, 4)
	row := d.table.rows["b"]
	opposite := d.table.rows[row.First].First
	d.close(d.byID["b"], false)
	d.miss("b")
	d.answer(opposite, "b", up, true)
	d.close(d.byID[opposite], false)
	d.miss(opposite)
	d.answerAll(opposite, down)
	if _, suspect := d.marks["b"]; !suspect || d.removes(opposite) || d.rule(opposite) != "too_few_observers" {
		t.Fatalf("b suspect %v, %s removed %v, by %q", suspect, opposite, d.removes(opposite), d.rule(opposite))
	}
}
