package pool_test

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Each test here is about one rule on loss and fails without it.

// loses lets a watcher reach a server and lose so many of ten probes to it.
func (d *desk) loses(observer, subject member.ID, lost int) {
	d.t.Helper()
	d.step(pool.Report{
		Session: d.byID[observer].hello.Session, Subject: subject,
		Incarnation: d.table.rows[subject].Incarnation, Evidence: evidence(up), LostOfTen: lost,
	})
}

// lossy is a pool of n in which both watchers of c begin to see it lossy.
func lossy(t *testing.T, n int) *desk {
	t.Helper()
	d := letters(t, n)
	row := d.table.rows["c"]
	d.loses(row.First, "c", 8)
	d.loses(row.Second, "c", 8)
	return d
}

// witnesses lists who measures the loss of c, and the number of the measurement.
func (d *desk) witnesses() (uint64, []member.ID) {
	d.t.Helper()
	var round uint64
	for id := range d.notary.measured {
		round = max(round, id)
	}
	if round == 0 {
		return 0, nil
	}
	return round, d.notary.measured[round].asked
}

var (
	heavyLoss = pool.Evidence{Sight: up, Sent: 15, Lost: 12, RTT: time.Millisecond}
	noLoss    = pool.Evidence{Sight: up, Sent: 15, RTT: time.Millisecond}
)

// finding is what a witness says of c.
func (d *desk) finding(witness member.ID, e pool.Evidence) pool.Answer {
	round, _ := d.witnesses()
	return pool.Answer{
		Session: d.byID[witness].hello.Session, Round: round, Subject: "c",
		Incarnation: d.table.rows["c"].Incarnation, Evidence: e, Final: true,
	}
}

// What one witness finds counts as heavy from half of the probes on, as clean up to a
// fifth; anything between, and whatever proves nothing, as neither. The other two
// cannot tell, so that it is the one that decides.
func TestWhatAWitnessFinds(t *testing.T) {
	t.Parallel()
	const removed, unconfirmed, tooFew = "", "loss_not_confirmed", "too_few_observers"
	counts := func(sent, lost int) func(*pool.Answer) {
		return func(in *pool.Answer) { in.Evidence.Sent, in.Evidence.Lost = sent, lost }
	}
	for name, test := range map[string]struct {
		edit func(*pool.Answer)
		want string
	}{
		"half":                   {counts(16, 8), removed},
		"less than half":         {counts(15, 7), tooFew},
		"a fifth":                {counts(15, 3), unconfirmed},
		"more than a fifth":      {counts(15, 4), tooFew},
		"seven probes":           {counts(7, 7), removed},
		"six probes":             {counts(6, 6), tooFew},
		"it distrusts itself":    {func(in *pool.Answer) { in.SelfScore = 1 }, tooFew},
		"it cannot judge":        {func(in *pool.Answer) { in.Evidence.Sight = verdict.SightCannotJudge }, tooFew},
		"all lost":               {func(in *pool.Answer) { in.Evidence.Sight, in.Evidence.Lost = down, 15 }, removed},
		"not done yet":           {func(in *pool.Answer) { in.Final = false }, tooFew},
		"of another":             {func(in *pool.Answer) { in.Subject = "a" }, tooFew},
		"of another incarnation": {func(in *pool.Answer) { in.Incarnation-- }, tooFew},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := lossy(t, 8)
			_, all := d.witnesses()
			if len(all) != 3 {
				t.Fatalf("%v measure", all)
			}
			d.loses(d.table.rows["c"].First, "c", 8) // it goes on answering
			d.wait(1700 * time.Millisecond)
			in := d.finding(all[0], heavyLoss)
			test.edit(&in)
			d.step(in)
			d.wait(100 * time.Millisecond)
			if d.rule("c") != test.want || d.removes("c") != (test.want == removed) {
				t.Errorf("removed %v, by %q, want %q", d.removes("c"), d.rule("c"), test.want)
			}
		})
	}
}

// A witness is heard once, and only if it was asked; nobody else is.
func TestWitnessesOfLossAreHeardOnce(t *testing.T) {
	t.Parallel()
	d := lossy(t, 8)
	_, all := d.witnesses()
	stranger := member.ID("")
	for _, id := range d.table.order {
		row := d.table.rows["c"]
		if id != "c" && id != row.First && id != row.Second && id != all[0] && id != all[1] && id != all[2] {
			stranger = id
		}
	}
	d.wait(1700 * time.Millisecond)
	for _, in := range []pool.Answer{d.finding(all[0], pool.Evidence{Sight: up, Sent: 15, Lost: 5}), d.finding(all[0], heavyLoss), d.finding(stranger, heavyLoss)} {
		d.step(in)
	}
	if got := d.counts[pool.CountDropped]; got != 2 {
		t.Errorf("%d are dropped, want 2", got)
	}
	d.wait(100 * time.Millisecond)
	d.staysAfterRound("c", "too_few_observers")
}

// Who measures, and when the measurement comes to nothing.
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
			d.loses(row.First, "c", 8)
			d.loses(row.Second, "c", 8)
			if round, _ := d.witnesses(); (round != 0) != test.measured || d.suspect("c") != test.measured {
				t.Errorf("measured: %v, suspect: %v", round != 0, d.suspect("c"))
			}
		})
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
		d.loses(watcher.First, watcher.ID, 8)
		d.loses(watcher.Second, watcher.ID, 8)
		before, _ := d.witnesses()
		d.loses(row.First, "c", 8)
		d.loses(row.Second, "c", 8)
		if round, _ := d.witnesses(); before == 0 || round != before {
			t.Error("c is measured, too")
		}
	})
	t.Run("witness", func(t *testing.T) {
		t.Parallel()
		d := lossy(t, 12)
		round, all := d.witnesses()
		d.wait(1700 * time.Millisecond)
		in := d.finding(all[0], heavyLoss)
		row := d.table.rows[all[0]]
		d.loses(row.First, row.ID, 8)
		d.loses(row.Second, row.ID, 8)
		if newest, _ := d.witnesses(); newest == round {
			t.Fatalf("%s is not lossy", row.ID)
		}
		d.step(in)
		d.wait(100 * time.Millisecond)
		d.staysAfterRound("c", "too_few_observers")
	})
}

// As soon as a watcher sees the server well the matter is over, also while the verdict
// waits for the database.
func TestLossThatEnds(t *testing.T) {
	t.Parallel()
	t.Run("before the verdict", func(t *testing.T) {
		t.Parallel()
		d := lossy(t, 8)
		if _, suspect := d.marks["c"]; !suspect {
			t.Fatal("not suspect")
		}
		_, all := d.witnesses()
		d.loses(d.table.rows["c"].First, "c", 2)
		if _, suspect := d.marks["c"]; suspect {
			t.Fatal("still suspect")
		}
		d.wait(1700 * time.Millisecond)
		for _, id := range all {
			d.step(d.finding(id, heavyLoss))
		}
		d.wait(200 * time.Millisecond)
		if d.removes("c") || d.rule("c") != "" {
			t.Errorf("removed %v, by %q", d.removes("c"), d.rule("c"))
		}
	})
	t.Run("while the verdict waits", func(t *testing.T) {
		t.Parallel()
		d := lossy(t, 8)
		d.intend("zebra", member.WishDrain) // is under way
		d.wait(1700 * time.Millisecond)
		_, all := d.witnesses()
		for _, id := range all {
			d.step(d.finding(id, heavyLoss))
		}
		d.wait(200 * time.Millisecond)
		d.loses(d.table.rows["c"].First, "c", 2)
		d.commit()
		d.wait(300 * time.Millisecond)
		if d.removes("c") {
			t.Error("removed")
		}
	})
}

// One clean witness keeps it, whatever the others say.
func TestCleanWitnessKeeps(t *testing.T) {
	t.Parallel()
	d := lossy(t, 8)
	_, all := d.witnesses()
	d.wait(1700 * time.Millisecond)
	d.step(d.finding(all[0], heavyLoss), d.finding(all[1], heavyLoss), d.finding(all[2], noLoss))
	d.wait(100 * time.Millisecond)
	d.staysAfterRound("c", "loss_not_confirmed")
}

// A watcher that comes to see the loss later must have seen it as long as it takes.
func TestLossTakesItsTime(t *testing.T) {
	t.Parallel()
	d := lossy(t, 8)
	row := d.table.rows["c"]
	_, all := d.witnesses()
	d.wait(time.Second)
	d.loses(row.First, "c", 0)
	d.loses(row.First, "c", 8)
	d.wait(700 * time.Millisecond)
	for _, id := range all {
		in := d.finding(id, heavyLoss)
		in.Round-- // the measurement that is over
		d.step(in)
	}
	d.wait(100 * time.Millisecond)
	if d.removes("c") {
		t.Fatal("removed although one watcher has seen it for 0.8 s")
	}
}

// A server that has a round about it when it is found lossy is removed all the same,
// and the round is over.
func TestLossEndsARound(t *testing.T) {
	t.Parallel()
	d := lossy(t, 8)
	_, all := d.witnesses()
	d.wait(1700 * time.Millisecond)
	for _, id := range all {
		d.step(d.finding(id, heavyLoss))
	}
	row := d.table.rows["c"]
	e := evidence(down)
	d.step(pool.Report{Session: d.byID[row.First].hello.Session, Subject: "c", Incarnation: row.Incarnation, Evidence: e, LostOfTen: 9})
	if d.notary.newest["c"] == nil {
		t.Fatal("no round")
	}
	d.wait(200 * time.Millisecond)
	if !d.removes("c") || d.flight.Remove[0].Cause != member.CauseLossy {
		t.Fatalf("kept by %q", d.rule("c"))
	}
	d.commitAll()
}
