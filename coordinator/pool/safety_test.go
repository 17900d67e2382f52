package pool_test

import (
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one safety rule and fails without it.

// five is a pool of five in which all is well.
func five(t *testing.T) *desk {
	t.Helper()
	d := newDesk(t)
	d.pool("a", "b", "c", "d", "e")
	d.wait(time.Second)
	return d
}

// miss lets both watchers of a server miss it, which opens a round.
func (d *desk) miss(id member.ID) {
	d.t.Helper()
	row := d.table.rows[id]
	d.report(row.Second, id, down)
	if row.First != row.Second {
		d.report(row.First, id, down)
	}
}

// staysAfterRound fails unless the newest round about id is over, by that rule,
// and nothing is proposed against it.
func (d *desk) staysAfterRound(id member.ID, rule string) {
	d.t.Helper()
	if got := d.rule(id); got != rule {
		d.t.Fatalf("decision about %s by rule %q, want %q", id, got, rule)
	}
	if d.removes(id) || d.removed(id) {
		d.t.Fatalf("%s is removed", id)
	}
}

// A crash, for comparison: this is what the other tests hold up.
func TestCrashIsRemoved(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	d.answerAll("c", down)
	if !d.removes("c") {
		t.Fatalf("not removed: %s", d.rule("c"))
	}
	d.commit()
	if !d.removed("c") || len(d.table.rows) != 4 {
		t.Fatalf("the table has %v", d.table.order)
	}
}

func TestStreamProofVetoes(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*desk){
		"echo": func(d *desk) { d.echo("c") },
		"FIN":  func(d *desk) { d.close(d.byID["c"], true) },
		"echo of the nonce that another hello asked for": func(d *desk) {
			first := d.byID["c"].nonce
			twin := agent("c")
			twin.InstanceID = "another"
			d.hello(twin)
			if d.byID["c"].nonce == first {
				d.fail("the holder was not challenged")
			}
			d.echo("c")
		},
		"echo of the older of two nonces": func(d *desk) {
			first := d.byID["c"].nonce
			twin := agent("c")
			twin.InstanceID = "another"
			d.hello(twin)
			d.step(pool.Echo{Session: d.byID["c"].hello.Session, Nonce: first})
		},
		"echo of a new stream": func(d *desk) {
			d.close(d.byID["c"], false)
			d.hello(agent("c"))
			d.echo("c")
		},
	}
	for name, live := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.miss("c")
			live(d)
			d.answerAll("c", down)
			d.staysAfterRound("c", "stream_answers")
			if !d.alarm("UNREACHED", "c") {
				t.Error("nobody is told that ICMP may be filtered")
			}
		})
	}
}

// An echo that the round did not ask for is replayed, or old.
func TestOldEchoIsNoProof(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	old := d.byID["c"].nonce
	d.answerAll("c", up)
	d.report(d.table.rows["c"].First, "c", up)
	d.report(d.table.rows["c"].Second, "c", up)
	d.wait(10 * time.Second)
	d.digests()
	d.miss("c")
	if d.byID["c"].nonce == old {
		t.Fatal("no new nonce")
	}
	dropped := d.counts[pool.CountDropped]
	d.step(pool.Echo{Session: d.byID["c"].hello.Session, Nonce: old})
	d.step(pool.Echo{Session: d.byID["c"].hello.Session})
	d.step(pool.Echo{Session: d.byID["a"].hello.Session, Nonce: d.byID["c"].nonce})
	if got := d.counts[pool.CountDropped] - dropped; got != 3 {
		t.Errorf("%d echoes are dropped, want 3", got)
	}
	d.commitAll()
	d.answerAll("c", down)
	d.commitAll()
	if !d.removed("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

func TestOneReplyVetoes(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	d.toLastProbe("c")
	all := d.observers("c")
	d.answer(all[0], "c", up, true)
	for _, id := range all[1:] {
		d.answer(id, "c", down, true)
	}
	d.staysAfterRound("c", "one_reaches_it")
}

func TestThreeObserversMustMissIt(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	all := d.observers("c")
	if len(all) != 4 {
		t.Fatalf("asked %v", all)
	}
	d.toLastProbe("c")
	d.answer(all[0], "c", down, true)
	d.answer(all[1], "c", down, true)
	d.wait(time.Second)
	d.staysAfterRound("c", "too_few_observers")
	if _, suspect := d.marks["c"]; !suspect {
		t.Error("two observers miss it, and routers are not told")
	}
}

// One liar makes nobody suspect, whatever it says and however often, and with
// whatever it answers in the rounds that it causes.
func TestOneObserverMakesNoSuspect(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 4, 7} {
		d := newDesk(t)
		d.pool([]member.ID{"a", "b", "c", "d", "e", "f", "g"}[:n]...)
		liar := d.table.rows["c"].First
		d.report(liar, "c", down)
		for range 10 {
			for _, id := range d.observers("c") {
				if id == liar {
					d.answer(id, "c", down, false)
				} else {
					d.answer(id, "c", up, true)
				}
			}
			d.toLastProbe("c")
			d.answer(liar, "c", down, true)
			if _, suspect := d.marks["c"]; suspect || d.removes("c") {
				t.Fatalf("of %d: suspect %v, removed %v", n, suspect, d.removes("c"))
			}
			d.nextRound("c")
			d.commitAll()
		}
	}
}

func TestBothOthersMustMissItOfThree(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c")
	d.miss("c")
	d.toLastProbe("c")
	d.answer("a", "c", down, true)
	d.wait(200 * time.Millisecond)
	d.staysAfterRound("c", "too_few_observers")
	d.nextRound("c")
	d.step(pool.Dialed{Round: d.notary.newest["c"].id})
	d.answerAll("c", down)
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

func TestAnswersAboutAnotherIncarnationAreDropped(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	d.toLastProbe("c")
	for _, id := range d.observers("c") {
		in := d.answerOf(id, "c", down, true)
		in.Incarnation--
		d.step(in)
	}
	d.wait(time.Second)
	d.staysAfterRound("c", "too_few_observers")
	if d.counts[pool.CountDropped] < 4 {
		t.Errorf("%d dropped", d.counts[pool.CountDropped])
	}
}

func TestReportsAboutAnotherIncarnationAreDropped(t *testing.T) {
	t.Parallel()
	d := five(t)
	row := d.table.rows["c"]
	for _, observer := range []member.ID{row.First, row.Second} {
		d.step(pool.Report{Session: d.byID[observer].hello.Session, Subject: "c", Incarnation: row.Incarnation + 1, Evidence: evidence(down)})
	}
	if d.counts[pool.CountRound] > 0 {
		t.Fatal("a round is opened")
	}
}

func TestReportsOfStrangersAreDropped(t *testing.T) {
	t.Parallel()
	d := five(t)
	row := d.table.rows["c"]
	for _, id := range d.table.order {
		if id != "c" && id != row.First && id != row.Second {
			d.report(id, "c", down)
		}
	}
	if d.counts[pool.CountRound] > 0 {
		t.Fatal("a round is opened")
	}
}

// Seven members: a round about c asks four, and the others' answers are worth
// nothing, even if they guess its number.
func TestOnlyThoseAskedAreHeard(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d", "e", "f", "g", "h")
	d.miss("c")
	asked := d.observers("c")
	for _, id := range asked {
		d.answer(id, "c", down, false)
	}
	d.toLastProbe("c")
	d.answer(asked[0], "c", down, true)
	for _, id := range d.table.order {
		if id != "c" && !slices.Contains(asked, id) {
			d.answer(id, "c", down, true)
		}
	}
	d.wait(time.Second)
	d.staysAfterRound("c", "too_few_observers")
}

func TestAnswersCountOnceAndInTime(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	all := d.observers("c")
	late := d.answerOf(all[2], "c", down, true)
	d.toLastProbe("c")
	for range 4 {
		d.answer(all[0], "c", down, true)
	}
	d.answer(all[1], "c", down, true)
	d.wait(500 * time.Millisecond)
	d.staysAfterRound("c", "too_few_observers")
	d.step(late)
	if d.removes("c") {
		t.Fatal("a late answer counts")
	}
}

// Probes reach over the stall tolerance from the first lost one on. What an
// observer says of its age shortens that by little.
func TestProbesOutlastAStall(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		age   time.Duration
		least time.Duration
	}{
		"honest":       {20 * time.Millisecond, 480 * time.Millisecond},
		"liar":         {time.Hour, 400 * time.Millisecond},
		"negative age": {-time.Hour, 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			row := d.table.rows["c"]
			e := evidence(down)
			e.FirstLostAge = test.age
			d.said[[2]member.ID{row.First, "c"}] = down
			d.step(pool.Report{Session: d.byID[row.First].hello.Session, Subject: "c", Incarnation: row.Incarnation, Evidence: e})
			begun := d.now
			for _, id := range d.observers("c") {
				if over := d.byID[id].asks[0].Over; over != test.least {
					t.Errorf("%s probes over %v, want %v", id, over, test.least)
				}
			}
			// All say at once that they have finished, which cannot be.
			for _, id := range d.observers("c") {
				d.answer(id, "c", down, true)
			}
			d.staysAfterRound("c", "too_few_observers")
			d.nextRound("c")
			d.answerAll("c", down)
			if !d.removes("c") || d.now.Sub(begun) < test.least {
				t.Fatalf("removed %v after %v", d.removes("c"), d.now.Sub(begun))
			}
		})
	}
}

// A witness that is asked late probes until the same time.
func TestLateWitnessesProbeToTheEnd(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n")
	d.miss("c")
	first := len(d.observers("c"))
	end := d.notary.newest["c"].lastProbe
	d.wait(300 * time.Millisecond)
	if n := len(d.observers("c")); n <= first {
		t.Fatalf("%d observers, nobody was replaced", n)
	}
	if got := d.notary.newest["c"].lastProbe; got.Before(end) {
		t.Errorf("the late ones end %v earlier", end.Sub(got))
	}
}

func TestSickObserversDoNotCount(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	d.toLastProbe("c")
	for i, id := range d.observers("c") {
		in := d.answerOf(id, "c", down, true)
		if i < 2 {
			in.SelfScore = 1
		}
		d.step(in)
	}
	d.staysAfterRound("c", "too_few_observers")
}

// Two sick watchers make no suspect.
func TestSickWatchersMakeNoSuspect(t *testing.T) {
	t.Parallel()
	d := five(t)
	row := d.table.rows["c"]
	d.digest(d.byID[row.First], 2)
	d.digest(d.byID[row.Second], 2)
	d.miss("c")
	if _, suspect := d.marks["c"]; suspect {
		t.Fatal("c is suspect")
	}
}

// A verdict is good for two seconds: when the database was away for longer, a
// new round decides.
func TestVerdictExpires(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.intend("zebra", member.WishDrain) // is under way
	d.miss("c")
	d.answerAll("c", down)
	if d.rule("c") != "" {
		t.Fatalf("kept by %s", d.rule("c"))
	}
	d.wait(1999 * time.Millisecond)
	if d.counts[pool.CountRound] != 1 {
		t.Fatal("the verdict falls too early")
	}
	d.wait(time.Second)
	d.commit()
	if d.removes("c") {
		t.Fatal("removed by a verdict of long ago")
	}
	d.nextRound("c")
	d.answerAll("c", down)
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

func TestVerdictFallsWithASignOfLife(t *testing.T) {
	t.Parallel()
	signs := map[string]func(*desk){
		"a watcher's reply": func(d *desk) { d.report(d.table.rows["c"].First, "c", up) },
		"the echo, late":    func(d *desk) { d.echo("c") },
		"a FIN":             func(d *desk) { d.close(d.byID["c"], true) },
		"a hello":           func(d *desk) { d.hello(agent("c")) },
		"a hello after a reboot": func(d *desk) {
			d.close(d.byID["c"], false)
			d.hello(reboot("c"))
		},
	}
	for name, sign := range signs {
		t.Run(name+", before the proposal", func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.intend("zebra", member.WishDrain)
			d.miss("c")
			d.answerAll("c", down)
			sign(d)
			d.commit()
			if d.removes("c") {
				t.Fatal("removed")
			}
		})
		t.Run(name+", before the rejection", func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.miss("c")
			d.answerAll("c", down)
			if !d.removes("c") {
				t.Fatalf("kept by %s", d.rule("c"))
			}
			sign(d)
			d.reject()
			d.wait(400 * time.Millisecond)
			if d.removes("c") {
				t.Fatal("removed")
			}
		})
		t.Run(name+", while its outcome is unknown", func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.miss("c")
			d.answerAll("c", down)
			sign(d)
			d.report(d.table.rows["c"].First, "c", up)
			d.report(d.table.rows["c"].Second, "c", up)
			d.live(time.Minute)
			d.reject()
			d.live(10 * time.Second)
			if d.removes("c") || d.removed("c") {
				t.Fatal("removed")
			}
		})
	}
}

// A change that removes by several verdicts is worth as much as the oldest of them.
func TestRemovalsLastAsLongAsTheOldestVerdict(t *testing.T) {
	t.Parallel()
	d := letters(t, 20)
	d.intend("zebra", member.WishDrain) // is under way
	var oldest time.Time
	for _, id := range []member.ID{"c", "m"} {
		d.close(d.byID[id], false)
		d.miss(id)
		d.answerAll(id, down)
		if oldest.IsZero() {
			oldest = d.now
		}
	}
	d.commit()
	if !d.removes("c") || !d.removes("m") {
		t.Fatalf("kept by %s and %s", d.rule("c"), d.rule("m"))
	}
	if want := oldest.Add(verdictLife + time.Second + 2*time.Millisecond); !d.until.Equal(want) || !d.now.After(oldest) {
		t.Errorf("they are to be tried until %v, want %v", d.until, want)
	}
}

// What the database has not done for long is not done at all, though nothing speaks
// against the verdict: it takes another round.
func TestOldVerdictTakesAnotherRound(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	d.answerAll("c", down)
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
	d.live(time.Minute)
	before := d.notary.newest["c"]
	d.reject()
	d.live(400 * time.Millisecond)
	if d.removes("c") || d.notary.newest["c"] == before {
		t.Fatal("removed by evidence of a minute ago, or not looked into")
	}
	d.answerAll("c", down)
	if !d.removes("c") {
		t.Fatalf("kept by %s", d.rule("c"))
	}
}

// A reply to a watcher's own probes in the round is a positive, even if nobody
// asked it.
func TestReplyToAWatcherVetoes(t *testing.T) {
	t.Parallel()
	for name, final := range map[string]bool{"before its answer": false, "after its answer": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			d.miss("c")
			all := d.observers("c")
			for _, id := range all {
				d.answer(id, "c", down, false)
			}
			d.toLastProbe("c")
			watcher := d.table.rows["c"].First
			d.answer(watcher, "c", down, final)
			d.wait(time.Millisecond)
			d.report(watcher, "c", up)
			for _, id := range all {
				if id != watcher {
					d.answer(id, "c", down, true)
				}
			}
			d.staysAfterRound("c", "one_reaches_it")
		})
	}
}

// A stream speaks for a member only while it is the member's newest.
func TestFormerStreamsAreNotHeard(t *testing.T) {
	t.Parallel()
	d := five(t)
	old := d.byID["c"]
	d.step(pool.Leave{Session: old.hello.Session, Incarnation: old.inc})
	d.commit()
	again := agent("c")
	again.InstanceID = "another"
	d.hello(again)
	d.commitAll()
	first := d.table.rows["c"].First
	dropped := d.counts[pool.CountDropped]
	d.step(
		pool.Report{Session: old.hello.Session, Subject: first, Incarnation: d.table.rows[first].Incarnation, Evidence: evidence(down)},
		pool.Echo{Session: old.hello.Session, Nonce: old.nonce},
		pool.Digest{Session: old.hello.Session},
		pool.AssignmentAck{Session: old.hello.Session, Seq: 1},
	)
	if got := d.counts[pool.CountDropped] - dropped; got != 4 || d.counts[pool.CountRound] > 0 {
		t.Fatalf("%d of 4 dropped, %d rounds", got, d.counts[pool.CountRound])
	}
	d.step(pool.Leave{Session: old.hello.Session, Incarnation: old.inc})
	if d.flight != nil || !old.left.Left {
		t.Fatal("the former stream takes the member out")
	}
}

// Old news is no sign of life: the watcher's last reply is older than the
// verdict.
func TestVerdictStandsAgainstOldNews(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.intend("zebra", member.WishDrain)
	d.miss("c")
	d.answerAll("c", down)
	d.wait(100 * time.Millisecond)
	row := d.table.rows["c"]
	e := evidence(up)
	e.LastReplyAge = 2 * time.Second
	d.step(pool.Report{Session: d.byID[row.First].hello.Session, Subject: "c", Incarnation: row.Incarnation, Evidence: e})
	d.commit()
	if !d.removes("c") {
		t.Fatal("kept")
	}
}

// A rejected removal is proposed again as long as the verdict is good.
func TestRejectedRemovalIsDerivedAgain(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.miss("c")
	d.answerAll("c", down)
	for range 3 {
		d.reject()
		if d.flight != nil {
			t.Fatal("proposed again without a pause")
		}
		d.wait(250 * time.Millisecond)
		if !d.removes("c") {
			t.Fatal("not proposed again")
		}
	}
	d.commit()
}

func TestOneChangeAtATime(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.hello(agent("a"))
	first := *d.flight
	for _, id := range []member.ID{"b", "c", "d"} {
		d.hello(agent(id)) // the desk fails when a second change is proposed
	}
	d.wait(time.Minute)
	if d.flight.ID != first.ID {
		t.Fatal("another change")
	}
	d.commit()
	if d.flight == nil || len(d.flight.Put) != 4 {
		t.Fatalf("the three that waited are not one change: %+v", d.flight)
	}
	d.commit()
}

// An outcome that nobody waits for changes nothing.
func TestForeignOutcomesAreIgnored(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.step(pool.Committed{ChangeID: "1-1"}, pool.Rejected{ChangeID: "1-1", Err: errDatabase})
	d.hello(agent("f"))
	flight := d.flight
	d.step(pool.Committed{ChangeID: "9-9"}, pool.Rejected{ChangeID: "9-9", Err: errDatabase})
	if d.flight != flight || d.m.Position() != d.table.at {
		t.Fatal("a foreign outcome counts")
	}
	d.commit()
}

// N = 2: the observer, the stream's silence and the connect must agree.
func TestPairNeedsAll(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		dial  pool.Dialed
		do    func(*desk)
		rule  string
		goes  bool
		sight pool.Sight
	}{
		"all agree":               {sight: down, goes: true},
		"the connect answered":    {sight: down, dial: pool.Dialed{Answered: true}, rule: "tcp_answers"},
		"no connect was tried":    {sight: down, dial: pool.Dialed{CannotJudge: true}, rule: "pair_needs_dial"},
		"the stream answers":      {sight: down, do: func(d *desk) { d.echo("b") }, rule: "stream_answers"},
		"the stream was closed":   {sight: down, do: func(d *desk) { d.close(d.byID["b"], true) }, rule: "stream_answers"},
		"the observer reaches it": {sight: up, rule: "answers"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			d.pool("a", "b")
			d.miss("b")
			if test.do != nil {
				test.do(d)
			}
			d.toLastProbe("b")
			test.dial.Round = d.notary.newest["b"].id
			d.step(test.dial)
			d.answer("a", "b", test.sight, true)
			if d.removes("b") != test.goes || d.rule("b") != test.rule {
				t.Fatalf("removed %v by %q, want %v by %q", d.removes("b"), d.rule("b"), test.goes, test.rule)
			}
		})
	}
}

// A stream that is not there says nothing in a pool of two, unless it has timed
// out.
func TestPairNeedsSilenceOfAStream(t *testing.T) {
	t.Parallel()
	missed := func(d *desk) {
		d.miss("b")
		d.toLastProbe("b")
		d.step(pool.Dialed{Round: d.notary.newest["b"].id})
		d.answer("a", "b", down, true)
	}
	t.Run("closed by its kernel", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b")
		d.close(d.byID["b"], true)
		d.wait(20 * time.Second)
		d.commitAll()
		d.digests()
		missed(d)
		d.staysAfterRound("b", "pair_needs_silence")
	})
	t.Run("not seen since the coordinator's start", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b")
		d.table.at.Epoch++
		d.boot()
		d.hello(agent("a"))
		d.wait(20 * time.Second)
		d.commitAll()
		d.digests()
		missed(d)
		d.staysAfterRound("b", "pair_needs_silence")
	})
	t.Run("timed out", func(t *testing.T) {
		t.Parallel()
		d := newDesk(t)
		d.pool("a", "b")
		d.close(d.byID["b"], false)
		d.wait(20 * time.Second)
		d.commitAll()
		d.digests()
		missed(d)
		if !d.removes("b") {
			t.Fatalf("kept by %s", d.rule("b"))
		}
	})
}

func TestTheLastIsKept(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a")
	d.wait(20 * time.Second)
	if _, suspect := d.marks["a"]; !suspect || !d.alarm("LAST_SERVER_SILENT", "a") {
		t.Fatal("nobody is told that the last server is silent")
	}
	d.wait(time.Minute)
	d.commitAll()
	if d.removed("a") {
		t.Fatal("removed")
	}
	d.hello(agent("b"))
	d.commit()
	if d.alarm("LAST_SERVER_SILENT", "a") {
		t.Error("the alarm stays although there are two")
	}
}

// The verdict about b is reached while a leaves: then b is the last.
func TestTheLastIsKeptWhenTheOtherLeaves(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.pool("a", "b")
	d.miss("b")
	d.toLastProbe("b")
	d.step(pool.Dialed{Round: d.notary.newest["b"].id})
	d.step(pool.Leave{Session: d.byID["a"].hello.Session, Incarnation: d.byID["a"].inc})
	d.answer("a", "b", down, true)
	d.commit()
	if !d.removed("a") || d.removes("b") || d.removed("b") {
		t.Fatalf("the table has %v", d.table.order)
	}
}
