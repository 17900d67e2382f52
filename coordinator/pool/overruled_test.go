package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on second rounds and late answers, and fails
// without it.

// A second round asks four who were not asked, and the odd one.
func TestSecondRoundAsksFour(t *testing.T) {
	t.Parallel()
	d := letters(t, 20)
	d.close(d.byID["c"], false)
	d.miss("c")
	first := slices.Clone(d.observers("c"))
	odd := first[3]
	d.answerWith("c", but(odd, up, down))
	second := d.observers("c")
	if len(second) != 5 || second[0] != odd || slices.ContainsFunc(second[1:], func(id member.ID) bool { return slices.Contains(first, id) }) {
		t.Fatalf("%v are asked after %v", second, first)
	}
}

// One that was not asked is not enough for a second round.
func TestSecondRoundNeedsTwo(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]bool{6: false, 7: true} {
		d := letters(t, n)
		d.close(d.byID["c"], false)
		d.miss("c")
		first := d.notary.newest["c"]
		d.answerWith("c", but(first.observers[3], up, down))
		if got := d.notary.newest["c"] != first; got != want {
			t.Errorf("of %d: a second round %v, want %v", n, got, want)
		}
	}
}

// overruled is a pool in which c was found dead by a second round while the database
// is away: odd says that it reaches c, and was the only one of the first round. late
// is an answer of odd to the first round that has not come yet.
func overruled(t *testing.T) (d *desk, odd member.ID, late pool.Answer) {
	t.Helper()
	d = letters(t, 20)
	d.intend("zebra", member.WishDrain) // is under way
	d.close(d.byID["c"], false)
	d.miss("c")
	odd = d.table.rows["c"].First
	late = d.answerOf(odd, "c", up, true)
	d.answerWith("c", but(odd, up, down))
	d.answerWith("c", but(odd, down, down))
	if _, suspect := d.marks["c"]; !suspect || d.rule("c") != "" {
		t.Fatalf("kept by %q", d.rule("c"))
	}
	return d, odd, late
}

// Who was overruled saves nobody while the verdict waits, by whatever it says.
func TestOverruledSavesNobody(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(d *desk, odd member.ID, late pool.Answer){
		"a report":      func(d *desk, odd member.ID, _ pool.Answer) { d.report(odd, "c", up) },
		"a late answer": func(d *desk, _ member.ID, late pool.Answer) { d.step(late) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, odd, late := overruled(t)
			d.wait(time.Millisecond)
			say(d, odd, late)
			d.commit()
			if !d.removes("c") {
				t.Fatalf("kept by %q", d.rule("c"))
			}
		})
	}
}

// mindChanger is a pool of n in which c is dead. A round about it is missed by its first
// buddy and most others at the most, and all else cannot judge; a change is under way at
// its end, so that a verdict waits, and the buddy changes its mind.
func mindChanger(t *testing.T, n, most int) (d *desk, liar member.ID, round func()) {
	t.Helper()
	d = letters(t, n)
	liar = d.table.rows["c"].First
	d.close(d.byID["c"], false)
	d.miss("c")
	rounds := 0
	return d, liar, func() {
		t.Helper()
		if d.flight == nil {
			d.intend(serverID(20+rounds%5), []member.Wish{member.WishDrain, member.WishMaintenance}[rounds%2])
		}
		rounds++
		for _, id := range d.observers("c") {
			d.answer(id, "c", down, false)
		}
		d.toLastProbe("c")
		left := most
		for _, id := range d.observers("c") {
			switch {
			case id == liar:
				d.answer(id, "c", down, true)
			case left > 0:
				left--
				d.answer(id, "c", down, true)
			default:
				d.answer(id, "c", verdict.SightCannotJudge, true)
			}
		}
		d.wait(5 * time.Millisecond)
		if slices.Contains(d.observers("c"), liar) {
			d.report(liar, "c", up)
			d.report(liar, "c", down)
		}
		d.wait(100 * time.Millisecond)
		d.commit()
	}
}

// Who is overruled for changing its mind has not missed the server either: without
// three others nobody is removed. In a pool in which nobody else can be asked it is
// heard again, and when it means what it says the server goes.
func TestOverruledMissesNobody(t *testing.T) {
	t.Parallel()
	d, liar, round := mindChanger(t, 4, 2)
	for range 4 {
		round()
		if d.removes("c") || d.removed("c") {
			t.Fatal("removed by two of three")
		}
		d.nextRound("c")
		if !slices.Contains(d.observers("c"), liar) {
			t.Fatalf("%v are asked, and nobody else is there", d.observers("c"))
		}
	}
	d.answerAll("c", down)
	d.commitAll()
	if !d.removed("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// Of four that miss a server, one may take it back, and not two: three are needed.
func TestTwoMayNotChangeTheirMind(t *testing.T) {
	t.Parallel()
	d := letters(t, 7)
	row := d.table.rows["c"]
	d.close(d.byID["c"], false)
	d.miss("c")
	for i, turning := range [][]member.ID{{row.First}, {row.Second}, {row.First, row.Second}} {
		d.intend(serverID(20+i), member.WishDrain) // is under way
		d.answerAll("c", down)
		d.wait(5 * time.Millisecond)
		for _, id := range turning {
			d.report(id, "c", up)
			d.report(id, "c", down)
		}
		d.commit()
		if d.removes("c") {
			t.Fatalf("removed by two of %v", d.observers("c"))
		}
		d.nextRound("c")
	}
	d.answerAll("c", down)
	if !d.removes("c") {
		t.Fatalf("kept by %s, after %v were asked", d.rule("c"), d.observers("c"))
	}
}

// What a muted observer has missed is nobody's in the place of one that is overruled.
func TestMutedMakesUpForNobody(t *testing.T) {
	t.Parallel()
	d, subjects := deaf(t, 8)
	id := subjects[0]
	row := d.table.rows[id]
	turning := row.First
	if turning == "c" {
		turning = row.Second
	}
	d.live(6 * time.Second)
	d.close(d.byID[id], false)
	d.commitAll()
	d.report(turning, id, down)
	st, _ := d.m.Server(id)
	helper := st.Temporary[0]
	d.report(helper, id, down)
	for _, wish := range []member.Wish{member.WishDrain, member.WishMaintenance} {
		d.intend("zebra", wish) // is under way
		witness := slices.DeleteFunc(slices.Clone(d.observers(id)), func(o member.ID) bool { return o == "c" || o == turning || o == helper })[0]
		d.answerWith(id, func(o member.ID) pool.Evidence {
			if o == "c" || o == turning || o == helper || o == witness {
				return evidence(down)
			}
			return evidence(verdict.SightCannotJudge)
		})
		d.wait(200 * time.Millisecond)
		if !d.m.Confirmed(id) {
			t.Fatalf("there is no verdict, by %s", d.rule(id))
		}
		d.report(turning, id, up)
		d.report(turning, id, down)
		d.commit()
		if d.removes(id) {
			t.Fatalf("removed by two of %v", d.observers(id))
		}
		d.nextRound(id)
	}
}

// A server that nobody can connect to goes by the same rule: who changes its mind
// twice does not keep it.
func TestChangedMindKeepsNoUnreachable(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.respec("c", func(s *member.Spec) { s.Endpoints = []member.Endpoint{{Address: "10.0.0.9:80"}} })
	liar := d.table.rows["c"].First
	d.miss("c")
	for _, wish := range []member.Wish{member.WishDrain, member.WishMaintenance} {
		d.intend("zebra", wish) // is under way
		for rounds := range 2 {
			d.echo("c")
			d.answerWith("c", func(member.ID) pool.Evidence {
				e := evidence(down)
				e.Connect = verdict.ConnectUnanswered
				return e
			})
			if rounds == 0 {
				d.nextRound("c")
			}
		}
		d.wait(5 * time.Millisecond)
		d.report(liar, "c", up)
		d.report(liar, "c", down)
		d.commit()
		if wish == member.WishDrain {
			d.nextRound("c")
		}
	}
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// underWay is a pool of twenty in which c was found dead and its removal is under way.
func underWay(t *testing.T) *desk {
	t.Helper()
	d := letters(t, 20)
	d.close(d.byID["c"], false)
	d.miss("c")
	d.answerAll("c", down)
	if !d.removes("c") || !d.suspect("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
	return d
}

// A verdict that has fallen while its change is under way does not fall again: who
// speaks for the server twice then is not overruled.
func TestFallsOnceWhileUnderWay(t *testing.T) {
	t.Parallel()
	d := underWay(t)
	odd := d.table.rows["c"].First
	for range 2 {
		d.wait(time.Millisecond)
		d.report(odd, "c", down)
		d.report(odd, "c", up)
	}
	d.reject()
	d.report(odd, "c", down)
	d.nextRound("c")
	d.answerWith("c", but(odd, up, down))
	if d.removes("c") {
		t.Fatal("nobody is asked beside the one that reaches it")
	}
}

// A server that is reached while its removal is under way is suspect no more, however
// long it takes to learn how that ends.
func TestReachedWhileUnderWay(t *testing.T) {
	t.Parallel()
	d := underWay(t)
	row := d.table.rows["c"]
	for _, id := range []member.ID{row.First, row.Second} {
		d.wait(time.Millisecond)
		d.report(id, "c", up)
	}
	if d.suspect("c") {
		t.Error("it is suspect")
	}
}

// Where others can be asked in its place, they are, and the server goes.
func TestOverruledIsReplaced(t *testing.T) {
	t.Parallel()
	d, liar, round := mindChanger(t, 8, 2)
	for range 2 {
		round()
		if d.removes("c") {
			t.Fatal("removed by two of three")
		}
		d.nextRound("c")
	}
	if slices.Contains(d.observers("c"), liar) {
		t.Fatalf("%v are asked", d.observers("c"))
	}
	d.answerAll("c", down)
	d.commitAll()
	if !d.removed("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// Another observer of the first round does, however late.
func TestLateReplyToTheFirstOfTwoSaves(t *testing.T) {
	t.Parallel()
	d := letters(t, 20)
	d.intend("zebra", member.WishDrain) // is under way
	d.close(d.byID["c"], false)
	d.miss("c")
	first := d.notary.newest["c"]
	odd, slow := first.observers[0], first.observers[len(first.observers)-1]
	late := d.answerOf(slow, "c", up, true)
	for _, id := range first.observers {
		if id != odd && id != slow {
			d.answer(id, "c", down, false)
		}
	}
	d.answer(odd, "c", up, true)
	d.toLastProbe("c")
	for _, id := range slices.Clone(first.observers) {
		if id != odd && id != slow && d.notary.newest["c"] == first {
			d.answer(id, "c", down, true)
		}
	}
	d.wait(200 * time.Millisecond)
	d.answerWith("c", but(odd, up, down))
	if _, suspect := d.marks["c"]; !suspect || d.rule("c") != "" {
		t.Fatalf("kept by %q: there is no verdict to save it from", d.rule("c"))
	}
	d.step(late)
	d.commit()
	if d.removes("c") {
		t.Fatal("removed")
	}
}

// Who was overruled is heard again when the second round finds that it was right.
func TestAcquittedOddIsAskedAgain(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	honest := d.table.rows["c"].First
	d.report(d.table.rows["c"].Second, "c", down)
	d.answerWith("c", but(honest, up, down))
	other := slices.DeleteFunc(slices.Clone(d.observers("c")), func(id member.ID) bool { return id == honest })[0]
	d.answerWith("c", func(id member.ID) pool.Evidence {
		if id == honest || id == other {
			return evidence(up)
		}
		return evidence(down)
	})
	d.nextRound("c")
	if !slices.Contains(d.observers("c"), honest) {
		t.Fatalf("%s was right, and is not among %v", honest, d.observers("c"))
	}
}

// What comes after the quorum saves a server only if it is a sign of life, from one
// that was asked, in that round and of that incarnation.
func TestWhatComesLate(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		edit  func(d *desk, in *pool.Answer)
		saves bool
	}{
		"a reply": {func(*desk, *pool.Answer) {}, true},
		"a connect": {func(_ *desk, in *pool.Answer) {
			in.Evidence = evidence(down)
			in.Evidence.Connect = verdict.ConnectAnswered
		}, true},
		"of one that has answered": {func(d *desk, in *pool.Answer) {
			in.Session = d.byID[d.observers("c")[0]].hello.Session
		}, false},
		"a miss":                    {func(_ *desk, in *pool.Answer) { in.Evidence = evidence(down) }, false},
		"about another incarnation": {func(_ *desk, in *pool.Answer) { in.Incarnation-- }, false},
		"about nobody":              {func(_ *desk, in *pool.Answer) { in.Subject = "nobody" }, false},
		"in another round":          {func(_ *desk, in *pool.Answer) { in.Round-- }, false},
		"of one not asked": {func(d *desk, in *pool.Answer) {
			for _, id := range d.table.order {
				if id != "c" && !slices.Contains(d.observers("c"), id) {
					in.Session = d.byID[id].hello.Session
				}
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 14)
			d.intend("zebra", member.WishDrain) // is under way
			d.miss("c")
			for _, id := range d.observers("c") {
				d.answer(id, "c", down, false)
			}
			all := slices.Clone(d.observers("c"))
			late := d.answerOf(all[len(all)-1], "c", up, true)
			d.toLastProbe("c")
			for _, id := range all[:len(all)-1] {
				d.answer(id, "c", down, true)
			}
			d.wait(110 * time.Millisecond)
			test.edit(d, &late)
			dropped := d.counts[pool.CountDropped]
			d.step(late)
			if got := d.counts[pool.CountDropped] - dropped; got != 1 {
				t.Errorf("%d are dropped", got)
			}
			d.commit()
			if d.removes("c") == test.saves {
				t.Errorf("removed: %v", d.removes("c"))
			}
		})
	}
}

// An answer about another server than that of its round is dropped.
func TestAnswersAboutAnotherServerAreDropped(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	d.toLastProbe("c")
	for _, id := range d.observers("c") {
		in := d.answerOf(id, "c", down, true)
		in.Subject = "nobody"
		d.step(in)
	}
	d.wait(time.Second)
	d.staysAfterRound("c", "too_few_observers")
}

// UNREACHABLE takes two rounds in a row without a reply between them.
func TestReplyBetweenRoundsOfUnreachable(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.respec("c", func(s *member.Spec) { s.Endpoints = []member.Endpoint{{Address: "10.0.0.9:80"}} })
	round := func() {
		d.echo("c")
		d.answerWith("c", func(member.ID) pool.Evidence {
			e := evidence(down)
			e.Connect = verdict.ConnectUnanswered
			return e
		})
		d.commitAll()
	}
	d.miss("c")
	round()
	d.wait(10 * time.Millisecond)
	d.report(d.table.rows["c"].First, "c", up)
	d.nextRound("c")
	round()
	if d.removed("c") {
		t.Fatal("removed although a watcher had a reply between the two rounds")
	}
	d.nextRound("c")
	round()
	if !d.removed("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// A buddy that changes its mind between rounds wipes out once what the others have
// found: the mark stays, and a grace ends.
func TestGraceOutlastsALiar(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	d.set(func(s *member.Settings) { s.RemovalGrace = 5 * time.Second })
	d.commitAll()
	d.close(d.byID["c"], false)
	d.miss("c")
	liar, since := d.table.rows["c"].First, d.now
	for !d.removed("c") && d.now.Sub(since) < time.Minute {
		d.answerWith("c", but("", up, down))
		d.report(liar, "c", up)
		d.report(liar, "c", down)
		d.live(300 * time.Millisecond)
		d.commitAll()
		if !d.removed("c") && d.notary.newest["c"].ended {
			d.nextRound("c")
		}
	}
	if took := d.now.Sub(since); took > 10*time.Second {
		t.Fatalf("after %v it is kept by %s", took, d.rule("c"))
	}
}

// Two who reach a server one after the other are not both odd.
func TestOnlyOneIsOdd(t *testing.T) {
	t.Parallel()
	d, odd, _ := overruled(t)
	other := d.table.rows["c"].Second
	d.wait(time.Millisecond)
	d.report(other, "c", up) // the verdict falls
	d.nextRound("c")
	d.answerWith("c", but(other, up, down))
	if d.rule("c") != "one_reaches_it" {
		t.Fatalf("%s is taken for odd after %s: by %q", other, odd, d.rule("c"))
	}
}
