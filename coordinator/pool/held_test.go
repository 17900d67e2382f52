package pool_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// TestTimesOfAnotherClock is of a leader that takes over from one whose clock was
// ahead, or behind.
func TestTimesOfAnotherClock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{10 * time.Minute, 24 * time.Hour, -10 * time.Minute} {
		t.Run(fmt.Sprint(ahead), func(t *testing.T) {
			t.Parallel()
			d := held(t)
			row := d.table.rows["c"]
			row.JoinedAt, row.Since, row.HeldUntil = row.JoinedAt.Add(ahead), row.Since.Add(ahead), row.HeldUntil.Add(ahead)
			d.table.rows["c"] = row
			departed := d.table.departed["c"]
			departed.LeftAt = departed.LeftAt.Add(ahead - time.Second)
			d.table.departed["c"] = departed
			d.table.intents["x"] = member.Intent{
				ID: "x", Wish: member.WishBanned, SetAt: d.now.Add(ahead), ExpiresAt: d.now.Add(ahead + time.Minute),
			}
			d.table.at.Epoch++
			m, err := pool.New(d.table.load(), pool.Config{Now: d.now})
			if err != nil {
				t.Fatal(err)
			}
			// From a clock ahead it lasts from now on; one that was behind ends it earlier.
			left := 5*time.Second + min(ahead, 0)
			s, _ := m.Server("c")
			if row := s.Server; !row.HeldUntil.Equal(d.now.Add(left)) || row.Since.After(d.now) || row.JoinedAt.After(d.now) {
				t.Errorf("since %v, held until %v, at %v", row.Since, row.HeldUntil, d.now)
			}
			if d2, _ := m.Departed("c"); d2.LeftAt.After(d.now) {
				t.Errorf("it will have left at %v", d2.LeftAt)
			}
			if i := m.Intents()[0]; !i.ExpiresAt.Equal(d.now.Add(time.Minute+min(ahead, 0))) || i.SetAt.After(d.now) {
				t.Errorf("set at %v, expires at %v, at %v", i.SetAt, i.ExpiresAt, d.now)
			}
			// It was lost, a second before it came back, and counts.
			if n := m.Sizes()["losses"]; n != 1 {
				t.Errorf("%d losses", n)
			}
		})
	}
}

func TestHoldDownIsShortenedWithTheSettings(t *testing.T) {
	t.Parallel()
	d := held(t)
	row := d.table.rows["c"]
	row.HeldUntil = d.now.Add(24 * time.Hour)
	d.table.rows["c"] = row
	d.table.at.Epoch++
	m, err := pool.New(d.table.load(), pool.Config{Now: d.now})
	if err != nil {
		t.Fatal(err)
	}
	if s, _ := m.Server("c"); s.Server.HeldUntil.After(d.now.Add(d.table.settings.HoldDownMax)) {
		t.Fatalf("held until %v", s.Server.HeldUntil)
	}
}

// die takes a member out by verdict.
func (d *desk) die(id member.ID) {
	d.t.Helper()
	d.commitAll()
	d.miss(id)
	d.answerAll(id, down)
	d.commitAll()
	if !d.removed(id) {
		d.t.Fatalf("%s is kept by %s", id, d.rule(id))
	}
	for key := range d.said {
		if key[1] == id {
			delete(d.said, key)
		}
	}
	d.digests()
}

func reboot(id member.ID) pool.Hello {
	h := agent(id)
	h.BootID, h.InstanceID = "another", "another"
	return h
}

// held is a pool of five of which c is held after a crash.
func held(t *testing.T) *desk {
	t.Helper()
	d := five(t)
	d.die("c")
	d.hello(reboot("c"))
	d.commitAll()
	return d
}

func TestHoldDown(t *testing.T) {
	t.Parallel()
	t.Run("is served", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		if row := d.table.rows["c"]; row.Phase != member.PhaseHeld || !row.HeldUntil.Equal(d.now.Add(5*time.Second)) {
			t.Fatalf("row %+v", row)
		}
		d.report(d.table.rows["c"].First, "c", up)
		d.live(4 * time.Second)
		d.commitAll()
		if d.table.rows["c"].Phase != member.PhaseHeld {
			t.Fatal("too early")
		}
		d.live(time.Second)
		d.reject()
		d.live(time.Second)
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseActive {
			t.Fatalf("c is %s", p)
		}
	})
	t.Run("without being reached", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		d.wait(4 * time.Second)
		d.close(d.byID["c"], true)
		d.wait(2 * time.Second)
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseJoining {
			t.Fatalf("c is %s", p)
		}
		for range 40 {
			d.wait(time.Second)
			d.commitAll()
		}
		if !d.removed("c") {
			t.Fatal("it joins for ever")
		}
	})
	t.Run("outlives the coordinator", func(t *testing.T) {
		t.Parallel()
		d := held(t)
		d.live(time.Second)
		d.table.at.Epoch++
		d.boot()
		d.hello(reboot("c"))
		d.report("c", d.table.rows["c"].First, up)
		for _, id := range d.table.order {
			if id != "c" {
				d.hello(agent(id))
			}
		}
		d.digests()
		d.live(3 * time.Second)
		d.commitAll()
		if d.table.rows["c"].Phase != member.PhaseHeld {
			t.Fatal("too early")
		}
		d.live(2 * time.Second)
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseActive {
			t.Fatalf("c is %s", p)
		}
	})
	t.Run("is waived for a removal that was wrong", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.die("c")
		d.hello(agent("c"))
		d.commit()
		if p := d.table.rows["c"].Phase; p != member.PhaseJoining || d.counts[pool.CountContradicted] != 1 || !d.alarm("REMOVAL_CONTRADICTED", "c") {
			t.Fatalf("c is %s, %d contradicted, alarms %v", p, d.counts[pool.CountContradicted], d.alarms)
		}
		d.commitAll()
		d.remove("c")
		d.commitAll()
		d.hello(agent("c"))
		d.commitAll()
		if d.counts[pool.CountContradicted] != 1 {
			t.Fatal("counted again")
		}
		d.live(11 * time.Minute)
		if d.alarm("REMOVAL_CONTRADICTED", "c") {
			t.Fatal("the alarm is never over")
		}
	})
	t.Run("may be switched off", func(t *testing.T) {
		t.Parallel()
		d := five(t)
		d.set(func(s *member.Settings) { s.HoldDown = 0 })
		d.commit()
		d.die("c")
		d.die("e")
		d.hello(reboot("c"))
		d.hello(agent("e"))
		d.commitAll()
		if p := d.table.rows["c"].Phase; p != member.PhaseJoining {
			t.Fatalf("c is %s", p)
		}
		if d.counts[pool.CountContradicted] != 1 {
			t.Fatalf("%d removals contradicted", d.counts[pool.CountContradicted])
		}
	})
}

// Who is back on the same boot was not crashed. Within its hold-down it was well
// all the time; later it was unreachable, and is held as after loss.
func TestHoldDownWithoutReboot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		away time.Duration
		edit func(*member.Settings)
		held time.Duration
	}{
		"within the hold-down":                       {5 * time.Second, nil, 0},
		"after it":                                   {5100 * time.Millisecond, nil, 30 * time.Second},
		"after it, with another setting":             {20 * time.Second, func(s *member.Settings) { s.HoldDownLoss = time.Minute }, time.Minute},
		"after it, with the hold-down of loss off":   {20 * time.Second, func(s *member.Settings) { s.HoldDownLoss = 0 }, 0},
		"after it, with as many held as may be":      {20 * time.Second, nil, 0},
		"with the hold-down of crashes off: at once": {time.Second, func(s *member.Settings) { s.HoldDown = 0 }, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := five(t)
			if test.edit != nil {
				d.set(test.edit)
				d.commitAll()
			}
			d.die("c")
			d.live(test.away)
			if name == "after it, with as many held as may be" {
				d.die("e")
				d.hello(reboot("e"))
				d.commitAll()
			}
			d.hello(agent("c"))
			d.commit()
			row := d.table.rows["c"]
			if test.held == 0 && row.Phase == member.PhaseHeld || test.held > 0 && !row.HeldUntil.Equal(d.now.Add(test.held)) {
				t.Fatalf("%s until %v, now %v", row.Phase, row.HeldUntil, d.now)
			}
			if d.counts[pool.CountContradicted] != 1 || !d.alarm("REMOVAL_CONTRADICTED", "c") {
				t.Errorf("%d contradicted, %v", d.counts[pool.CountContradicted], d.alarms)
			}
		})
	}
}

// A host that flips faster than its hold-down contradicts each removal. The first
// is forgiven; after that it is held as after loss.
func TestFlappingIsHeld(t *testing.T) {
	t.Parallel()
	d := five(t)
	for i, phase := range []member.Phase{member.PhaseJoining, member.PhaseHeld} {
		d.die("c")
		d.live(4 * time.Second)
		d.hello(agent("c"))
		d.commit()
		if row := d.table.rows["c"]; row.Phase != phase {
			t.Fatalf("it is %s after its return %d, want %s", row.Phase, i+1, phase)
		}
		d.report(d.table.rows["c"].First, "c", up)
		d.commitAll()
	}
}

// A HELD member gets no work, so a verdict about it does not take its row out:
// its hold-down begins anew, doubled, once for each incident.
func TestHeldAnew(t *testing.T) {
	t.Parallel()
	d := held(t)
	d.live(time.Second)
	d.missAll([]member.ID{"c"})
	d.commitAll()
	row := d.table.rows["c"]
	if row.Phase != member.PhaseHeld || !row.HeldUntil.Equal(row.Since.Add(10*time.Second)) {
		t.Fatalf("%+v", row)
	}
	if x := d.m.Decisions("c")[0]; x.Explanation.Rule != "held_anew" || x.Revision != d.table.at.Revision || x.Explanation.Verdict != "held" {
		t.Errorf("%+v", x)
	}
	// The same incident goes on: the row stays as it is, also past the hold-down.
	until := row.HeldUntil
	for d.now.Before(until.Add(2 * time.Second)) {
		d.nextRound("c")
		d.answersOf([]member.ID{"c"})
		d.commitAll()
	}
	if row := d.table.rows["c"]; row.Phase != member.PhaseHeld || !row.HeldUntil.Equal(until) || d.rule("c") != "held" {
		t.Fatalf("%+v by %s", row, d.rule("c"))
	}
	// Reached again, it is let out.
	d.nextRound("c")
	d.answerAll("c", up)
	d.report(d.table.rows["c"].First, "c", up)
	d.report(d.table.rows["c"].Second, "c", up)
	d.live(3 * time.Second)
	d.commitAll()
	if p := d.table.rows["c"].Phase; p != member.PhaseActive {
		t.Fatalf("c is %s", p)
	}
}

// While it is silent it stays suspect: there is one incident, however long the pauses
// between its rounds are and though only one of its watchers can judge, until it is taken
// out.
func TestHeldStaysSuspect(t *testing.T) {
	t.Parallel()
	d := held(t)
	d.live(time.Second)
	d.miss("c")
	for range 4 {
		d.answerAll("c", verdict.SightCannotJudge)
		d.nextRound("c")
	}
	d.answersOf([]member.ID{"c"})
	d.commitAll()
	anew := d.table.departed["c"].LeftAt
	d.report(d.table.rows["c"].Second, "c", verdict.SightCannotJudge)
	for since := d.now; d.now.Sub(since) < 20*time.Second; d.live(100 * time.Millisecond) {
		if !d.suspect("c") {
			t.Fatalf("no longer suspect after %v", d.now.Sub(since))
		}
		d.answersOf([]member.ID{"c"})
	}
	if p := d.phase("c"); p != member.PhaseHeld || !d.table.departed["c"].LeftAt.Equal(anew) {
		t.Fatalf("it is %s, held anew at %v after %v", p, d.table.departed["c"].LeftAt, anew)
	}
}

// Loss may last for ever: it begins the hold-down anew when that is nearly over, and not
// whenever it is found.
func TestHeldForLossIsHeldAnewAtTheEnd(t *testing.T) {
	t.Parallel()
	d := letters(t, 8)
	d.set(func(s *member.Settings) { s.HoldDown = time.Minute })
	d.commitAll()
	d.die("c")
	d.hello(reboot("c"))
	d.commitAll()
	row := d.table.rows["c"]
	d.report(row.First, "c", up)
	d.lossy("c", row.First, row.Second)
	measured := func(seconds int) {
		for range seconds {
			d.digests()
			d.measured("c", time.Second, false, heavyLoss, heavyLoss, heavyLoss)
			d.commitAll()
		}
	}
	measured(45)
	if now := d.table.rows["c"]; now.Phase != member.PhaseHeld || !now.HeldUntil.Equal(row.HeldUntil) || !d.suspect("c") || d.rule("c") != "held" {
		t.Fatalf("%s until %v by %s, it was held until %v", now.Phase, now.HeldUntil, d.rule("c"), row.HeldUntil)
	}
	measured(10)
	if now := d.table.rows["c"]; now.Phase != member.PhaseHeld || now.HeldUntil.Sub(now.Since) != 2*time.Minute {
		t.Fatalf("%s until %v, since %v", now.Phase, now.HeldUntil, now.Since)
	}
}

// One that was found lossy a moment ago, or may be, is not let out although nobody
// measures it at the end of its hold-down; one of which only ICMP is limited is.
func TestHeldWhileItMayBeLossy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before, measured time.Duration // the loss begins, and is measured
		prompt, stays    bool          // its stream answers, and is there
		last             pool.Evidence // what the last measurement finds
		held             time.Duration // after its hold-down
	}{
		"being measured":     {before: 100 * time.Millisecond, stays: true, last: noLoss, held: time.Second},
		"found lossy":        {before: 2 * time.Second, measured: time.Second, stays: true, last: noLoss, held: 9 * time.Second},
		"without a stream":   {before: 6 * time.Second, measured: 6 * time.Second, last: noLoss, held: 67 * time.Second},
		"its stream answers": {before: 6500 * time.Millisecond, measured: 6 * time.Second, prompt: true, stays: true, last: heavyLoss, held: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := letters(t, 8)
			d.set(func(s *member.Settings) { s.HoldDown = 30 * time.Second })
			d.commitAll()
			d.die("c")
			d.hello(reboot("c"))
			d.commitAll()
			row := d.table.rows["c"]
			d.report(row.First, "c", up)
			d.live(row.HeldUntil.Sub(d.now) - test.before)
			if !test.stays {
				d.close(d.byID["c"], true)
			}
			d.lossy("c", row.First, row.Second)
			d.measured("c", test.measured, test.prompt, heavyLoss, heavyLoss, heavyLoss)
			d.report(row.First, "c", up)
			d.report(row.Second, "c", up)
			d.measured("c", 500*time.Millisecond, test.prompt, heavyLoss, test.last, heavyLoss)
			for d.now.Before(row.HeldUntil.Add(2 * time.Minute)) {
				if d.commitAll(); d.phase("c") != member.PhaseHeld {
					break
				}
				d.live(100 * time.Millisecond)
			}
			late := d.now.Sub(row.HeldUntil)
			if d.phase("c") != member.PhaseActive || (late-test.held).Abs() > time.Second/4 {
				t.Fatalf("%s %v after its hold-down", d.phase("c"), late)
			}
		})
	}
}

// One that is silent and unreached for half a minute is taken out.
func TestHeldIsTakenOut(t *testing.T) {
	t.Parallel()
	d := held(t)
	d.live(time.Second)
	d.miss("c")
	since := d.now
	d.answersOf([]member.ID{"c"})
	for range 60 {
		d.commitAll()
		if d.removed("c") {
			break
		}
		d.nextRound("c")
		d.answersOf([]member.ID{"c"})
	}
	if took := d.now.Sub(since); !d.removed("c") || took < 30*time.Second || took > 40*time.Second {
		t.Fatalf("after %v it is %s by %s", took, d.table.rows["c"].Phase, d.rule("c"))
	}
	if d.table.departed["c"].HoldDown < 10*time.Second {
		t.Errorf("%+v", d.table.departed["c"])
	}
}

// One that died while it was held, of which a new coordinator hears nothing, is let out
// of its hold-down as JOINING, has half a minute, and is taken out.
func TestReleasedIsTakenOut(t *testing.T) {
	t.Parallel()
	d := held(t)
	until := d.table.rows["c"].HeldUntil
	d.table.at.Epoch++
	d.boot()
	d.set(func(s *member.Settings) { s.Mode = member.ModePaused }) // nobody is judged
	d.commitAll()
	d.live(until.Sub(d.now))
	d.commitAll()
	if p := d.table.rows["c"].Phase; p != member.PhaseJoining {
		t.Fatalf("c is %s", p)
	}
	for step, want := range []bool{false, true} {
		d.live([]time.Duration{29 * time.Second, time.Second}[step])
		d.commitAll()
		if d.removed("c") != want {
			t.Fatalf("removed %v after %v", d.removed("c"), d.now.Sub(until))
		}
	}
}

// One that an observer still reaches is not, however long it is suspect.
func TestReachedHeldStays(t *testing.T) {
	t.Parallel()
	d := held(t)
	d.live(time.Second)
	d.miss("c")
	row, since := d.table.rows["c"], d.now
	for range 100 {
		d.answerWith("c", func(id member.ID) pool.Evidence {
			if d.now.Sub(since) < 25*time.Second && id != row.First && id != row.Second && id == d.observers("c")[2] {
				return evidence(up)
			}
			return evidence(down)
		})
		d.commitAll()
		if d.removed("c") {
			break
		}
		d.nextRound("c")
		if !d.suspect("c") {
			t.Fatalf("no longer suspect after %v", d.now.Sub(since))
		}
	}
	if took := d.now.Sub(since); !d.removed("c") || took < 50*time.Second || took > 65*time.Second {
		t.Fatalf("after %v it is %s by %s", took, d.table.rows["c"].Phase, d.rule("c"))
	}
}

// A host that comes and goes every 20 seconds without rebooting is removed once.
func TestFlapperIsRemovedOnce(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.die("c")
	removals := 0
	for range 12 {
		d.live(20 * time.Second)
		d.commitAll()
		if d.removed("c") {
			d.hello(agent("c"))
			d.commitAll()
		}
		row := d.table.rows["c"]
		d.report(row.First, "c", up)
		d.report(row.Second, "c", up)
		d.live(20 * time.Second)
		d.commitAll()
		d.missAll([]member.ID{"c"})
		d.commitAll()
		if d.removed("c") {
			removals++
		}
	}
	if removals > 0 {
		t.Errorf("removed %d times more", removals)
	}
}

// At most one in ten is held at once, and one in a small pool.
func TestFewAreHeld(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"small": 8, "larger": 30} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t)
			var ids []member.ID
			for i := range n {
				ids = append(ids, member.ID(fmt.Sprintf("s%02d", i)))
			}
			d.pool(ids...)
			d.set(func(s *member.Settings) { s.BrakePercent, s.FloorPercent = 100, 100 })
			d.commitAll()
			dead := ids[:5]
			for _, id := range dead {
				d.die(id)
			}
			d.intend("zebra", member.WishDrain)
			for _, id := range dead {
				d.hello(reboot(id)) // all in one change
			}
			d.commitAll()
			held := 0
			for _, row := range d.table.rows {
				if row.Phase == member.PhaseHeld {
					held++
				}
			}
			if want := max(1, n/10); held != want {
				t.Errorf("%d of %d are held, want %d", held, n, want)
			}
		})
	}
}

// What is remembered of a server that left is forgotten after a week.
func TestDepartedAreForgotten(t *testing.T) {
	t.Parallel()
	d := five(t)
	d.die("c")
	if _, known := d.m.Departed("c"); !known {
		t.Fatal("not remembered")
	}
	for _, p := range d.byID {
		if p.open() {
			d.close(p, true)
		}
	}
	d.wait(7*24*time.Hour - time.Minute)
	if _, known := d.m.Departed("c"); !known {
		t.Fatal("forgotten too early")
	}
	d.wait(2 * time.Minute)
	if _, known := d.m.Departed("c"); known {
		t.Fatal("never forgotten")
	}
}

// A buddy whose digests say up does not keep a dead server that is held: three others
// have just missed it.
func TestHeldOutlastsALiar(t *testing.T) {
	t.Parallel()
	d := letters(t, 12)
	d.die("c")
	d.hello(reboot("c"))
	d.commitAll()
	d.close(d.byID["c"], false)
	liar, since := d.table.rows["c"].First, d.now
	d.report(d.table.rows["c"].Second, "c", down)
	for !d.removed("c") && d.now.Sub(since) < 5*time.Minute {
		d.answerWith("c", but(liar, verdict.SightCannotJudge, down))
		d.live(300 * time.Millisecond) // the liar's digests say up
		d.commitAll()
		if !d.removed("c") && d.notary.newest["c"].ended {
			d.nextRound("c")
		}
	}
	if took := d.now.Sub(since); took > 90*time.Second {
		t.Fatalf("after %v it is %s by %s", took, d.table.rows["c"].Phase, d.rule("c"))
	}
}
