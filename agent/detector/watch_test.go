package detector

import (
	"testing"
	"time"
)

// flightAt is a probe sent so long after the epoch.
func flightAt(w *watch, after time.Duration) flight {
	return flight{watch: w, sent: epoch.Add(after)}
}

// A subject becomes lossy with the fourth lost probe of ten and ceases to be so when two
// are left; three change nothing.
func TestLossyHasTwoBounds(t *testing.T) {
	t.Parallel()
	w := &watch{}
	feed := func(lost bool, want bool, how string) {
		t.Helper()
		w.window.add(lost)
		w.crossed()
		if w.lossy != want {
			t.Errorf("%s: lossy %v, %d lost", how, w.lossy, w.window.lost())
		}
	}
	for range 3 {
		feed(true, false, "up to three")
	}
	feed(true, true, "the fourth")
	for range 6 {
		feed(false, true, "four of ten")
	}
	feed(false, true, "three of ten")
	feed(false, false, "two of ten")
	feed(true, false, "two of ten again")
}

// What stood in the window is forgotten with a stall, also that the subject was lossy; a
// subject that is up stays so.
func TestForgetting(t *testing.T) {
	t.Parallel()
	for _, lossy := range []bool{true, false} {
		w := &watch{sight: Up}
		for range 5 {
			w.window.add(lossy)
		}
		w.crossed()
		if told := w.forget("stall"); told != lossy || w.sight != Up || w.window.size() != 0 {
			t.Errorf("lossy %v: told %v, sight %v, %d in the window", lossy, told, w.sight, w.window.size())
		}
	}
}

// The probes of a burst do not count in the window, whatever becomes of them.
func TestBurstsAreNotCounted(t *testing.T) {
	t.Parallel()
	w := &watch{}
	f := flightAt(w, time.Second)
	f.extra = true
	w.lost(epoch, f)
	w.replied(epoch, f, Outcome{Result: Replied})
	if w.window.size() != 0 || w.sight != Up {
		t.Errorf("%d in the window, sight %v", w.window.size(), w.sight)
	}
}

// The first of a run of lost probes is the one that was sent first, in whatever order
// they are known to be lost; and a late reply to an old probe ends no later run.
func TestOutcomesInAnyOrder(t *testing.T) {
	t.Parallel()
	w := &watch{}
	w.lost(epoch, flightAt(w, 2*time.Second))
	w.lost(epoch, flightAt(w, time.Second))
	w.lost(epoch, flightAt(w, 3*time.Second))
	if w.run != 3 || !w.firstLost.Equal(epoch.Add(time.Second)) {
		t.Errorf("%d lost since %v", w.run, w.firstLost.Sub(epoch))
	}
	w.replied(epoch, flightAt(w, 5*time.Second), Outcome{Result: Replied})
	w.replied(epoch, flightAt(w, 2*time.Second), Outcome{Result: Replied})
	w.lost(epoch, flightAt(w, 4*time.Second))
	if w.sight != Up || w.run != 0 {
		t.Errorf("a probe older than one that was answered opens a doubt: %v, %d", w.sight, w.run)
	}
}

// Of short periods the longest time-out is no stall.
func TestStallOfAShortPeriod(t *testing.T) {
	t.Parallel()
	for gap, want := range map[time.Duration]bool{MaxTimeout: false, MaxTimeout + time.Millisecond: true} {
		d := New()
		d.Assign(epoch, MinPeriod, []Subject{subject("a", 0)})
		d.Tick(epoch.Add(gap))
		if got := d.self.stall != ""; got != want {
			t.Errorf("%v: a stall %v", gap, got)
		}
	}
}

// That the own host cannot be probed counts at any time; that it does not answer, only
// when the observer has not stood still just before.
func TestLoopbackInQuarantine(t *testing.T) {
	t.Parallel()
	for result, want := range map[Result]string{NotSent: "this host cannot probe itself: no permission", Lost: ""} {
		var s self
		s.quarantine = epoch.Add(time.Second)
		s.loopback(epoch, flight{}, Outcome{Result: result, Trouble: "no permission"})
		if s.loopTrouble != want {
			t.Errorf("%v: %q, want %q", result, s.loopTrouble, want)
		}
	}
}

// A new phase is kept: the probes after the next keep to it.
func TestPhaseIsKept(t *testing.T) {
	t.Parallel()
	d := New()
	s := subject("a", 0)
	d.Assign(epoch, time.Second, []Subject{s})
	s.PhaseOffset = 300 * time.Millisecond
	d.Assign(epoch.Add(100*time.Millisecond), time.Second, []Subject{s})
	d.Tick(epoch.Add(300 * time.Millisecond))
	if next := d.watches[0].next.Sub(epoch); next != 1300*time.Millisecond {
		t.Errorf("the next but one comes after %v", next)
	}
}
