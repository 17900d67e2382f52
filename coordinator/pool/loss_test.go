package pool_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on loss and fails without it.

var (
	heavyLoss = pool.Evidence{Sight: up, Sent: 8, Lost: 6, RTT: time.Millisecond}
	noLoss    = pool.Evidence{Sight: up, Sent: 8, Lost: 0, RTT: time.Millisecond}
)

// measured answers the measurements of a server's loss that come within a time:
// the watchers and the first of the witnesses each in their way. The stream of one
// that loses packets does not answer at once.
func (d *desk) measured(subject member.ID, within time.Duration, prompt bool, watcher, first, others pool.Evidence) {
	d.t.Helper()
	answered := map[uint64]bool{}
	for end := d.now.Add(within); d.now.Before(end) && !d.removes(subject); d.wait(50 * time.Millisecond) {
		if p := d.byID[subject]; prompt {
			d.step(pool.Echo{Session: p.hello.Session, Nonce: p.nonce})
		}
		for _, round := range slices.Sorted(maps.Keys(d.notary.measured)) {
			l := d.notary.measured[round]
			if answered[round] || l.subject != subject || d.now.Sub(l.at) < 250*time.Millisecond {
				continue
			}
			answered[round] = true
			row, found := d.table.rows[subject], first
			for _, id := range l.asked {
				e := watcher
				if id != row.First && id != row.Second {
					e, found = found, others
				}
				d.step(pool.Answer{
					Session: d.byID[id].hello.Session, Round: round, Subject: subject, Incarnation: l.incarnation, Evidence: e, Final: true,
				})
			}
		}
	}
}

// lossy says that watchers reach a server and lose many of their regular probes.
func (d *desk) lossy(subject member.ID, watchers ...member.ID) {
	d.t.Helper()
	for _, id := range watchers {
		d.step(pool.Report{
			Session: d.byID[id].hello.Session, Subject: subject, Incarnation: d.table.rows[subject].Incarnation, Evidence: evidence(up), LostOfTen: 8,
		})
	}
}

// lossyLetters is a pool of n in which both watchers of c begin to see it lossy.
func lossyLetters(t *testing.T, n int) *desk {
	t.Helper()
	d := letters(t, n)
	row := d.table.rows["c"]
	d.lossy("c", row.First, row.Second)
	return d
}

// measurement is the newest one of c's loss, with its number; nil if there is none.
func (d *desk) measurement() (uint64, *measurement) {
	d.t.Helper()
	for _, round := range slices.Backward(slices.Sorted(maps.Keys(d.notary.measured))) {
		if l := d.notary.measured[round]; l.subject == "c" {
			return round, l
		}
	}
	return 0, nil
}

// measurers are those who measure c: two watchers, then the witnesses.
func (d *desk) measurers() []member.ID {
	d.t.Helper()
	_, l := d.measurement()
	if l == nil || len(l.asked) != 5 {
		d.t.Fatalf("%+v is asked", l)
	}
	return l.asked
}

// finding is what an observer says of c in the newest measurement.
func (d *desk) finding(observer member.ID, e pool.Evidence) pool.Answer {
	round, l := d.measurement()
	return pool.Answer{
		Session: d.byID[observer].hello.Session, Round: round, Subject: "c", Incarnation: l.incarnation, Evidence: e, Final: true,
	}
}

// Loss is judged by all watchers and by witnesses, and only of a server that
// answers at all, though not at once whenever it is asked.
func TestLoss(t *testing.T) {
	t.Parallel()
	heavy, clean := heavyLoss, noLoss
	gone := pool.Evidence{Sight: down, Sent: 8, Lost: 8}
	for name, test := range map[string]struct {
		watchers               int
		prompt                 bool
		watcher, first, others pool.Evidence
		rule                   string
	}{
		"as the rule says":         {2, false, heavy, heavy, heavy, "lossy"},
		"seen by one watcher":      {1, false, heavy, heavy, heavy, ""},
		"clean for the witnesses":  {2, false, heavy, clean, clean, "loss_not_confirmed"},
		"clean for one witness":    {2, false, heavy, clean, heavy, "loss_not_confirmed"},
		"clean for the watchers":   {2, false, clean, heavy, heavy, "loss_not_confirmed"},
		"never a reply":            {2, false, gone, gone, gone, "never_answers"},
		"its stream loses nothing": {2, true, heavy, heavy, heavy, "icmp_limited"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			row := d.table.rows["c"]
			began := d.now
			d.lossy("c", []member.ID{row.First, row.Second}[:test.watchers]...)
			d.measured("c", 6*time.Second, test.prompt, test.watcher, test.first, test.others)
			if !d.removes("c") {
				if d.rule("c") != test.rule {
					t.Fatalf("not removed by %q", d.rule("c"))
				}
				return
			}
			if test.rule != "lossy" {
				t.Fatal("removed")
			}
			if cause := d.flight.Remove[0].Cause; cause != member.CauseLossy {
				t.Errorf("as %s", cause)
			}
			if after := d.now.Sub(began); after < 2500*time.Millisecond {
				t.Errorf("removed after %v", after)
			}
		})
	}
}

// An agent that is gone took its stream with it: nothing tells then whether it is only
// ICMP that is limited, and nobody is removed. A stream that is there and silent, or that
// was lost without a word long ago, does tell.
func TestLossWithoutAStream(t *testing.T) {
	t.Parallel()
	lost := func(byPeer bool) func(*desk) { return func(d *desk) { d.close(d.byID["c"], byPeer) } }
	for name, test := range map[string]struct {
		before, meanwhile func(*desk)
		rule              string
	}{
		"its agent was killed":               {lost(true), nil, "no_stream"},
		"its agent is killed meanwhile":      {nil, lost(true), "no_stream"},
		"its agent starts anew meanwhile":    {nil, func(d *desk) { lost(true)(d); d.hello(agent("c")); lost(true)(d) }, "no_stream"},
		"its stream has just been lost":      {lost(false), nil, "no_stream"},
		"its stream is there, and silent":    {nil, nil, ""},
		"its stream was lost without a word": {func(d *desk) { lost(false)(d); d.live(13 * time.Second); d.commitAll() }, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			if test.before != nil {
				test.before(d)
			}
			row := d.table.rows["c"]
			d.lossy("c", row.First, row.Second)
			if test.meanwhile != nil {
				d.wait(100 * time.Millisecond)
				test.meanwhile(d)
			}
			d.measured("c", 6*time.Second, false, heavyLoss, heavyLoss, heavyLoss)
			if want := test.rule == ""; d.removes("c") != want || d.rule("c") != test.rule {
				t.Errorf("removed %v by %q, want %v by %q", d.removes("c"), d.rule("c"), want, test.rule)
			}
		})
	}
}

// However long the loss has lasted: when measurements take their time, because a witness
// says nothing, there must be ten of them all the same.
func TestLossTakesTenMeasurements(t *testing.T) {
	t.Parallel()
	d := lossyLetters(t, 8)
	began, last, measured := d.now, uint64(0), 0
	for !d.removes("c") && measured < 20 {
		round, _ := d.measurement()
		if round == last {
			d.wait(10 * time.Millisecond)
			continue
		}
		last, measured = round, measured+1
		d.wait(250 * time.Millisecond)
		for _, id := range d.measurers()[:4] {
			d.step(d.finding(id, heavyLoss))
		}
	}
	if took := d.now.Sub(began); measured != 10 || took < 4*time.Second {
		t.Fatalf("removed %v after %d measurements in %v, by %s", d.removes("c"), measured, took, d.rule("c"))
	}
}

// Once it is known that something limits ICMP, or that nothing tells for want of a
// stream, the loss is not measured again for a minute: each inquiry could take the server
// out by mischance, and marks it.
func TestLimitedICMPIsLeftAlone(t *testing.T) {
	t.Parallel()
	for rule, stream := range map[string]bool{"icmp_limited": true, "no_stream": false} {
		t.Run(rule, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			if !stream {
				d.close(d.byID["c"], true)
			}
			row := d.table.rows["c"]
			d.lossy("c", row.First, row.Second)
			d.measured("c", 6*time.Second, stream, heavyLoss, heavyLoss, heavyLoss)
			if d.rule("c") != rule {
				t.Fatalf("by %q", d.rule("c"))
			}
			before := len(d.notary.measured)
			for _, step := range []struct {
				after time.Duration
				again bool
			}{{10 * time.Second, false}, {50 * time.Second, true}} {
				d.live(step.after)
				d.lossy("c", row.First, row.Second)
				if again := len(d.notary.measured) > before; again != step.again {
					t.Errorf("after %v more it is measured again: %v", step.after, again)
				}
			}
		})
	}
}

// Loss is measured as soon as a round has shown that many probes are lost; but not
// again at once when it has come to nothing.
func TestRoundShowsLoss(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sent     int
		measured bool
	}{
		"answered at once":       {1, false},
		"answered at the fourth": {4, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			reached := pool.Evidence{Sight: up, Sent: test.sent, RTT: time.Millisecond}
			round := func() {
				d.report(d.table.rows["c"].First, "c", down)
				d.answerWith("c", func(member.ID) pool.Evidence { return reached })
				d.report(d.table.rows["c"].First, "c", up)
			}
			round()
			if measured := len(d.notary.measured) > 0; measured != test.measured {
				t.Fatalf("measured %v", measured)
			}
			d.measured("c", time.Second, true, noLoss, noLoss, noLoss)
			before := len(d.notary.measured)
			d.wait(time.Second)
			round()
			if again := len(d.notary.measured) - before; again > 0 {
				t.Errorf("measured again, %d times", again)
			}
			d.wait(5 * time.Second)
			round()
			if again := len(d.notary.measured) > before; again != test.measured {
				t.Errorf("measured after a rest: %v", again)
			}
		})
	}
}

// What one observer finds counts as heavy from half of the probes on, as clean if
// none is lost; anything between, and whatever proves nothing, as neither. Two witnesses
// cannot tell, so that it is the third that decides whether to measure on.
func TestWhatAWitnessFinds(t *testing.T) {
	t.Parallel()
	const on, unconfirmed, tooFew = "", "loss_not_confirmed", "too_few_observers"
	counts := func(sent, lost int) func(*pool.Answer) {
		return func(in *pool.Answer) { in.Evidence.Sent, in.Evidence.Lost = sent, lost }
	}
	for name, test := range map[string]struct {
		edit func(*pool.Answer)
		want string
	}{
		"half":                   {counts(8, 4), on},
		"less than half":         {counts(8, 3), tooFew},
		"none":                   {counts(8, 0), unconfirmed},
		"one":                    {counts(8, 1), tooFew},
		"four probes":            {counts(4, 4), on},
		"three probes":           {counts(3, 3), tooFew},
		"it distrusts itself":    {func(in *pool.Answer) { in.SelfScore = 1 }, tooFew},
		"it gave up, half lost":  {func(in *pool.Answer) { in.Evidence.Lost, in.Evidence.Trouble = 4, "its timers were late" }, tooFew},
		"it gave up, none lost":  {func(in *pool.Answer) { in.Evidence.Lost, in.Evidence.Trouble = 0, "its timers were late" }, tooFew},
		"it cannot judge":        {func(in *pool.Answer) { in.Evidence.Sight = verdict.SightCannotJudge }, tooFew},
		"all lost":               {func(in *pool.Answer) { in.Evidence.Sight, in.Evidence.Lost = down, 8 }, on},
		"before its last probe":  {nil, tooFew},
		"not done yet":           {func(in *pool.Answer) { in.Final = false }, tooFew},
		"of another":             {func(in *pool.Answer) { in.Subject = "a" }, tooFew},
		"of another incarnation": {func(in *pool.Answer) { in.Incarnation-- }, tooFew},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := lossyLetters(t, 8)
			round, _ := d.measurement()
			all := d.measurers()
			d.wait(249 * time.Millisecond)
			in := d.finding(all[2], heavyLoss)
			if test.edit == nil {
				d.step(in)
			}
			d.wait(time.Millisecond)
			if test.edit != nil {
				test.edit(&in)
				d.step(in)
			}
			d.step(d.finding(all[0], heavyLoss), d.finding(all[1], heavyLoss))
			d.wait(300 * time.Millisecond)
			newest, _ := d.measurement()
			if d.rule("c") != test.want || (newest != round) != (test.want == on) {
				t.Errorf("by %q, want %q; measured again: %v", d.rule("c"), test.want, newest != round)
			}
		})
	}
}

// An observer is heard once, and only if it was asked; nobody else is.
func TestObserversOfLossAreHeardOnce(t *testing.T) {
	t.Parallel()
	d := lossyLetters(t, 8)
	all := d.measurers()
	stranger := d.table.order[slices.IndexFunc(d.table.order, func(id member.ID) bool { return id != "c" && !slices.Contains(all, id) })]
	d.wait(250 * time.Millisecond)
	d.step(d.finding(all[0], heavyLoss), d.finding(all[1], heavyLoss))
	d.step(d.finding(all[2], pool.Evidence{Sight: up, Sent: 8, Lost: 3}), d.finding(all[2], heavyLoss), d.finding(stranger, heavyLoss))
	if got := d.counts[pool.CountDropped]; got != 2 {
		t.Errorf("%d are dropped, want 2", got)
	}
	d.wait(300 * time.Millisecond)
	d.staysAfterRound("c", "too_few_observers")
}

// The measurement ends with the last answer, and without it when its time is up.
func TestMeasurementEnds(t *testing.T) {
	t.Parallel()
	d := lossyLetters(t, 8)
	all := d.measurers()
	first, _ := d.measurement()
	d.wait(250 * time.Millisecond)
	for _, id := range all {
		if round, _ := d.measurement(); round != first {
			t.Fatalf("it ended before %s had answered", id)
		}
		d.step(d.finding(id, heavyLoss))
	}
	second, _ := d.measurement()
	if second == first {
		t.Fatal("all have answered, and it goes on")
	}
	d.wait(250 * time.Millisecond)
	for _, id := range all[1:] {
		d.step(d.finding(id, heavyLoss))
	}
	d.wait(250 * time.Millisecond)
	if round, _ := d.measurement(); round == second {
		t.Fatal("it waits for one that does not answer")
	}
}

// Who measures, and of whom.
func TestLossIsMeasured(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		n        int
		before   func(*desk)
		measured bool
	}{
		"in a pool of four":     {4, nil, true},
		"not in one of three":   {3, nil, false},
		"not in maintenance":    {8, func(d *desk) { d.intend("c", member.WishMaintenance); d.commitAll() }, false},
		"not by a sick watcher": {8, func(d *desk) { d.digest(d.byID[d.table.rows["c"].First], 1) }, false},
		"not by an absent one":  {8, func(d *desk) { d.wait(13 * time.Second); d.digest(d.byID[d.table.rows["c"].Second], 0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, test.n)
			if test.before != nil {
				test.before(d)
			}
			row := d.table.rows["c"]
			d.lossy("c", row.First, row.Second)
			if round, _ := d.measurement(); (round != 0) != test.measured {
				t.Errorf("measured: %v", round != 0)
			}
		})
	}
}

// A server that nobody has reached of late is not measured: that is an outage.
func TestOutageIsNoLoss(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	row := d.table.rows["c"]
	d.wait(2 * time.Second)
	for _, id := range []member.ID{row.First, row.Second} {
		d.step(pool.Report{
			Session: d.byID[id].hello.Session, Subject: "c", Incarnation: row.Incarnation, Evidence: pool.Evidence{Sight: verdict.SightCannotJudge}, LostOfTen: 8,
		})
	}
	if round, _ := d.measurement(); round != 0 {
		t.Error("it is measured")
	}
}

// A watcher that loses packets itself does not count, nor does a lossy witness.
func TestLossyObserversDoNotCount(t *testing.T) {
	t.Parallel()
	t.Run("watcher", func(t *testing.T) {
		t.Parallel()
		d := letters(t, 8)
		row := d.table.rows["c"]
		watcher := d.table.rows[row.First]
		d.lossy(watcher.ID, watcher.First, watcher.Second)
		d.lossy("c", row.First, row.Second)
		if round, _ := d.measurement(); round != 0 {
			t.Error("c is measured, too")
		}
	})
	t.Run("witness", func(t *testing.T) {
		t.Parallel()
		d := lossyLetters(t, 12)
		all := d.measurers()
		d.wait(250 * time.Millisecond)
		d.step(d.finding(all[0], heavyLoss), d.finding(all[1], heavyLoss), d.finding(all[2], heavyLoss))
		row := d.table.rows[all[2]]
		d.lossy(row.ID, row.First, row.Second)
		d.wait(250 * time.Millisecond)
		d.staysAfterRound("c", "too_few_observers")
	})
}

// While a gate is shut it is measured on, but less often; and it stays suspect.
func TestLossBehindAGate(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.set(func(s *member.Settings) { s.RemovalGrace = 6 * time.Second })
	d.commit()
	row := d.table.rows["c"]
	d.lossy("c", row.First, row.Second)
	d.measured("c", 5*time.Second, false, heavyLoss, heavyLoss, heavyLoss)
	if _, suspect := d.marks["c"]; !suspect || d.removes("c") || d.rule("c") != "removal_grace" {
		t.Fatalf("suspect %v, by %q", suspect, d.rule("c"))
	}
	if n := len(d.notary.measured); n > 14 {
		t.Errorf("measured %d times in 5 s", n)
	}
	for range 4 {
		d.measured("c", time.Second, false, heavyLoss, heavyLoss, heavyLoss)
		d.commitAll() // also that the history says that it was not removed
		if d.rule("c") == "lossy" {
			return
		}
	}
	t.Fatalf("kept by %q", d.rule("c"))
}

// A server that has a round about it when it is found lossy is removed all the same,
// and the round is over.
func TestLossEndsARound(t *testing.T) {
	t.Parallel()
	d := lossyLetters(t, 8)
	d.measured("c", 2500*time.Millisecond, false, heavyLoss, heavyLoss, heavyLoss)
	row := d.table.rows["c"]
	d.report(row.First, "c", down)
	if d.notary.newest["c"] == nil {
		t.Fatal("no round")
	}
	d.measured("c", 1200*time.Millisecond, false, heavyLoss, heavyLoss, heavyLoss)
	if !d.removes("c") || d.flight.Remove[0].Cause != member.CauseLossy {
		t.Fatalf("kept by %q", d.rule("c"))
	}
	d.commitAll()
}

// measuring lets all measurements of these find heavy loss; the streams echo after a time.
func (d *desk) measuring(ids []member.ID, span, echo time.Duration) {
	d.t.Helper()
	done, due := map[uint64]bool{}, map[uint64]time.Time{}
	for end := d.now.Add(span); d.now.Before(end); {
		for _, id := range ids {
			p := d.byID[id]
			if at, ok := due[p.nonce]; !ok {
				due[p.nonce] = d.now.Add(echo)
			} else if p.nonce != 0 && !d.now.Before(at) {
				d.echo(id)
				p.nonce = 0
			}
		}
		for round, l := range d.notary.measured {
			if done[round] || d.now.Sub(l.at) < 250*time.Millisecond {
				continue
			}
			done[round] = true
			for _, id := range l.asked {
				d.step(pool.Answer{Session: d.byID[id].hello.Session, Round: round, Subject: l.subject, Incarnation: l.incarnation, Evidence: heavyLoss, Final: true})
			}
		}
		for _, id := range ids {
			d.byID[id].swept = false // their echo takes its time
		}
		d.wait(10 * time.Millisecond)
	}
}

// Servers whose streams answer while their loss is measured do not count for the brake.
func TestLimitedICMPDoesNotBrake(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	ids := d.apart(4)
	for _, id := range ids {
		d.lossy(id, d.table.rows[id].First, d.table.rows[id].Second)
	}
	d.measuring(ids, 1500*time.Millisecond, 0)
	if st := d.m.Brake(); st.Safety.Suspects > 0 || len(st.Stops) > 0 {
		t.Fatalf("%d suspects count, held %v", st.Safety.Suspects, st.Held)
	}
}

// A server behind something that limits ICMP stays, however far the coordinator is.
func TestLimitedICMPFarAway(t *testing.T) {
	t.Parallel()
	d := lossyLetters(t, 8)
	d.measuring([]member.ID{"c"}, 6*time.Second, 160*time.Millisecond)
	if d.removes("c") || d.rule("c") != "icmp_limited" {
		t.Fatalf("removed %v, by %q", d.removes("c"), d.rule("c"))
	}
}

// One measurement may be bad luck, where something limits ICMP: the mark comes with the
// second.
func TestSecondMeasurementMarks(t *testing.T) {
	t.Parallel()
	d := lossyLetters(t, 8)
	for _, want := range []bool{false, true} {
		d.measuring([]member.ID{"c"}, 300*time.Millisecond, 0)
		if d.suspect("c") != want {
			t.Fatalf("suspect after %d measurements: %v", len(d.notary.measured)-1, !want)
		}
	}
}
