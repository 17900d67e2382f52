package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on who is suspect and who is muted, and fails
// without it.

func (d *desk) suspect(id member.ID) bool {
	_, is := d.marks[id]
	return is
}

// deaf is a pool of n in which c misses both its subjects, whom all others reach,
// for so long that it is muted. Then its rounds are answered.
func deaf(t *testing.T, n int) (d *desk, subjects []member.ID) {
	t.Helper()
	d = letters(t, n)
	subjects = []member.ID{d.table.rows["c"].First, d.table.rows["c"].Second}
	for range 20 {
		for _, id := range subjects {
			d.missesOnly("c", id)
		}
		if d.alarm("OBSERVER_MUTED", "c") {
			return d, subjects
		}
		d.live(time.Second)
	}
	t.Fatal("never muted")
	return nil, nil
}

// missesOnly lets one watcher miss a server that answers all others, to the end of the
// round that is open about it.
func (d *desk) missesOnly(observer, id member.ID) {
	d.t.Helper()
	if d.said[[2]member.ID{observer, id}] != down {
		d.report(observer, id, down)
	}
	d.echo(id)
	d.answerWith(id, but(observer, down, up))
}

// The word of a muted observer makes nobody suspect and removes nobody, before the end
// of a round and at it.
func TestMutedCountsForNothing(t *testing.T) {
	t.Parallel()
	d, subjects := deaf(t, 8)
	id := subjects[0]
	row := d.table.rows[id]
	watcher := row.First
	if watcher == "c" {
		watcher = row.Second
	}
	d.live(6 * time.Second)
	d.missesOnly("c", id)
	d.report(watcher, id, down)
	d.nextRound(id)
	asked := d.observers(id)
	other := member.ID("")
	for _, o := range asked {
		if o == "c" || o == watcher {
			d.answer(o, id, down, false)
		} else {
			d.answer(o, id, verdict.SightUnknown, false)
			other = o
		}
	}
	if d.suspect(id) {
		t.Fatal("suspect by a watcher and a muted one")
	}
	d.toLastProbe(id)
	for _, o := range []member.ID{"c", watcher, other} {
		d.answer(o, id, down, true)
	}
	d.wait(300 * time.Millisecond)
	if d.removes(id) || d.rule(id) != "too_few_observers" {
		t.Fatalf("removes %v, by %q", d.removes(id), d.rule(id))
	}
}

// A muted observer is heard again 20 s after the last that spoke against it, and not
// while others still contradict it.
func TestMuteLasts(t *testing.T) {
	t.Parallel()
	t.Run("reaching all", func(t *testing.T) {
		t.Parallel()
		d, subjects := deaf(t, 8)
		for _, id := range subjects {
			d.report("c", id, up)
		}
		d.live(19900 * time.Millisecond)
		if !d.alarm("OBSERVER_MUTED", "c") {
			t.Fatal("heard too early")
		}
		d.live(100 * time.Millisecond)
		if d.alarm("OBSERVER_MUTED", "c") {
			t.Fatal("not heard")
		}
	})
	t.Run("still missing one", func(t *testing.T) {
		t.Parallel()
		d, subjects := deaf(t, 8)
		d.report("c", subjects[0], up)
		d.live(30 * time.Second)
		if !d.alarm("OBSERVER_MUTED", "c") {
			t.Fatal("heard while others reach whom it misses")
		}
		d.report("c", subjects[1], up)
		d.live(30 * time.Second)
		if d.alarm("OBSERVER_MUTED", "c") {
			t.Fatal("not heard")
		}
	})
	t.Run("going on", func(t *testing.T) {
		t.Parallel()
		d, subjects := deaf(t, 8)
		for muted := d.now; d.now.Sub(muted) < 15*time.Second; d.live(2 * time.Second) {
			d.missesOnly("c", subjects[0])
		}
		for _, id := range subjects {
			d.report("c", id, up)
		}
		d.live(8 * time.Second)
		if !d.alarm("OBSERVER_MUTED", "c") {
			t.Fatal("heard although it was wrong ten seconds ago")
		}
	})
}

// Who is doubted itself is not called deaf: its network may be going.
func TestDoubtedIsNotDeaf(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	subjects := []member.ID{d.table.rows["c"].First, d.table.rows["c"].Second}
	d.report(subjects[0], "c", down)
	for range 6 {
		for _, id := range subjects {
			d.missesOnly("c", id)
		}
		d.live(2 * time.Second)
	}
	if d.alarm("OBSERVER_MUTED", "c") {
		t.Fatal("muted")
	}
}

// Once others miss the server too, the watcher that was the first is no bad edge any
// more, and needs nobody in its place.
func TestBadEdgeIsOverWhenOthersMissIt(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
	d.commitAll()
	watcher := d.table.rows["c"].First
	helpers := func() int {
		st, _ := d.m.Server("c")
		return len(st.Temporary)
	}
	for range 3 {
		d.missesOnly(watcher, "c")
		d.nextRound("c")
	}
	if helpers() != 1 {
		t.Fatalf("%d helpers", helpers())
	}
	d.answerAll("c", down)
	if helpers() != 0 {
		t.Fatalf("%d helpers", helpers())
	}
}

// A doubt of long ago that was contradicted is not when the suspicion began.
func TestOldDoubtIsAnotherMatter(t *testing.T) {
	t.Parallel()
	for age, most := range map[time.Duration]time.Duration{1500 * time.Millisecond: 3 * time.Second, 10 * time.Second: time.Second} {
		d := letters(t, 8)
		first, begun := d.table.rows["c"].First, d.now
		d.missesOnly(first, "c")
		for d.now.Sub(begun) < age-time.Second {
			d.nextRound("c")
			d.missesOnly(first, "c")
		}
		d.nextRound("c")
		d.report(d.table.rows["c"].Second, "c", down)
		d.answerAll("c", down)
		took := time.Duration(0)
		for !d.removed("c") {
			if d.flight == nil {
				d.nextRound("c")
				d.answerAll("c", down)
				continue
			}
			d.commit()
			for _, e := range d.effects {
				if r, ok := e.(pool.Removed); ok {
					took = r.Detection
				}
			}
		}
		if took <= 0 || took > most {
			t.Errorf("doubted for %v: detected in %v, want at most %v", age, took, most)
		}
	}
}

// A server that two observers have just reached is suspect only when a whole round has
// spoken against it; then it need not be over.
func TestAcquittedUntilTheLastProbe(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	row := d.table.rows["c"]
	d.missesOnly(row.First, "c")
	d.nextRound("c")
	d.report(row.Second, "c", up)
	asked := d.observers("c")
	for _, id := range asked[:3] {
		d.answer(id, "c", down, false)
	}
	if d.suspect("c") {
		t.Fatal("suspect by first lost probes right after an acquittal")
	}
	d.toLastProbe("c")
	for _, id := range asked[:2] {
		d.answer(id, "c", down, true)
	}
	if !d.suspect("c") {
		t.Fatal("not suspect though the round is over but for the last answers")
	}
}

// The last server of a pool is said to be silent after twelve seconds without a word,
// over a stream that is there or one that has timed out.
func TestSilenceOfTheLast(t *testing.T) {
	t.Parallel()
	for name, stream := range map[string]func(*desk){
		"the stream timed out": func(d *desk) { d.close(d.byID["a"], false) },
		"the second stream says nothing": func(d *desk) {
			d.close(d.byID["a"], true)
			d.hello(agent("a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.pool("a")
			stream(d)
			d.wait(11900 * time.Millisecond)
			if d.suspect("a") {
				t.Fatal("silent too early")
			}
			d.wait(200 * time.Millisecond)
			if !d.suspect("a") || !d.alarm("LAST_SERVER_SILENT", "a") {
				t.Fatal("nobody is told")
			}
		})
	}
}

// In a pool of two, an unanswered connect makes the silence of a server without a
// stream, also until the next round has told.
func TestPairSuspicionByConnect(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b")
	d.table.at.Epoch++
	d.boot()
	d.hello(agent("a"))
	d.wait(20 * time.Second)
	d.commitAll()
	d.digests()
	d.miss("b")
	if d.suspect("b") {
		t.Fatal("suspect by one observer")
	}
	d.toLastProbe("b")
	d.step(pool.Dialed{Round: d.notary.newest["b"].id})
	if !d.suspect("b") {
		t.Fatal("not suspect though the connect is unanswered")
	}
	d.answer("a", "b", down, true)
	d.nextRound("b")
	if !d.suspect("b") {
		t.Fatal("no longer suspect when the next round begins")
	}
	d.toLastProbe("b")
	d.step(pool.Dialed{Round: d.notary.newest["b"].id, Answered: true})
	d.answer("a", "b", down, true)
	d.wait(3 * time.Second)
	if d.removed("b") {
		t.Fatal("removed")
	}
}

// Two that reach a server outweigh two that miss it to the end of the round; one does
// not, where nobody else can be asked.
func TestTwoThatReachItOutweigh(t *testing.T) {
	t.Parallel()
	for reaching, want := range map[int]bool{1: true, 2: false} {
		d := five(t)
		d.miss("c")
		asked := d.observers("c")
		d.answerWith("c", func(id member.ID) pool.Evidence {
			if id == asked[3] || reaching == 2 && id == asked[2] {
				return evidence(up)
			}
			return evidence(down)
		})
		if d.notary.newest["c"].observers[0] != asked[0] || d.suspect("c") != want {
			t.Errorf("reached by %d of 4: suspect %v, want %v", reaching, d.suspect("c"), want)
		}
	}
}

// Whose word does not count is what it is when the round ends, not when the answer
// comes.
func TestWhoIsNotCountedIsToldAtTheEnd(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.miss("c")
	asked := d.observers("c")
	d.toLastProbe("c")
	d.answer(asked[0], "c", down, true)
	// It becomes suspect itself before the others have answered.
	d.miss(asked[0])
	for _, o := range d.observers(asked[0]) {
		d.answer(o, asked[0], down, false)
	}
	if !d.suspect(asked[0]) {
		t.Fatal("it is not suspect")
	}
	for _, o := range asked[1:] {
		d.answer(o, "c", up, true)
	}
	d.wait(time.Second)
	var told []string
	for _, moment := range d.m.Decisions("c")[0].Explanation.Timeline {
		if moment.Kind == "not_counted" {
			told = append(told, moment.Who)
		}
	}
	if !slices.Equal(told, []string{string(asked[0])}) {
		t.Errorf("told of %v, want %s", told, asked[0])
	}
}

// What does not count is told with the reason.
func TestWhatDoesNotCountIsTold(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	asked := d.observers("c")
	sick := d.answerOf(asked[1], "c", down, true)
	sick.SelfScore = 1
	d.answer(asked[0], "c", down, true)
	d.step(sick)
	d.answer(asked[2], "c", down, false)
	d.answer(asked[3], "c", verdict.SightCannotJudge, true)
	d.wait(time.Second)
	told := map[string]string{}
	for _, moment := range d.m.Decisions("c")[0].Explanation.Timeline {
		if moment.Kind == "answer" {
			told[moment.Who] = moment.Text
		}
	}
	for i, want := range []string{"not counted: it came before its last probe was due", "not counted: it does not trust itself", "first probe lost", ""} {
		if got := told[string(asked[i])]; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The alarm about a server that only its own stream reaches is over with the next round
// that says something else; that about one that does not get in, with a reply.
func TestAlarmsAboutReachingEnd(t *testing.T) {
	t.Parallel()
	t.Run("UNREACHED", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.miss("c")
		d.echo("c")
		d.answerAll("c", down)
		if !d.alarm("UNREACHED", "c") {
			t.Fatal("no alarm")
		}
		d.nextRound("c")
		d.wait(900 * time.Millisecond)
		if d.alarm("UNREACHED", "c") {
			t.Fatalf("the alarm stays after %s", d.rule("c"))
		}
	})
	t.Run("UNREACHED while its removal is refused", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.set(func(s *member.Settings) { s.Mode = member.ModeShadow })
		d.respec("c", func(s *member.Spec) { s.Endpoints = []member.Endpoint{{Address: "10.0.0.9:80"}} })
		d.commitAll()
		d.miss("c")
		for _, want := range []string{"stream_answers", "shadow_mode", "shadow_mode", "shadow_mode"} {
			d.echo("c")
			d.answerWith("c", func(member.ID) pool.Evidence {
				e := evidence(down)
				e.Connect = verdict.ConnectUnanswered
				return e
			})
			if d.rule("c") != want || !d.alarm("UNREACHED", "c") {
				t.Fatalf("by %s, want %s; alarms %v", d.rule("c"), want, d.alarms)
			}
			d.nextRound("c")
		}
	})
	t.Run("NOT_JOINING", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.hello(agent("f"))
		d.commitAll()
		d.wait(31 * time.Second)
		if !d.alarm("NOT_JOINING", "f") {
			t.Fatal("no alarm")
		}
		d.report(d.table.rows["f"].First, "f", up)
		if d.alarm("NOT_JOINING", "f") {
			t.Fatal("the alarm stays")
		}
	})
}
