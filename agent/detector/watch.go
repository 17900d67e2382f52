package detector

import (
	"math/bits"
	"time"
)

// watch is what the detector knows of one subject.
type watch struct {
	Subject

	sight  Sight
	rtt    estimator
	window window
	// lossy is whether the window was last seen with too many losses.
	lossy   bool
	lastRTT time.Duration
	// run counts the probes lost since the last reply, the first of them sent at
	// firstLost.
	run       int
	firstLost time.Time
	lastReply time.Time
	// answered is when the youngest probe that was answered had been sent.
	answered time.Time
	trouble  string
	// sendable is whether a probe has ever gone out: a subject that never could
	// be reached from here says nothing about the observer.
	sendable bool

	// next is when the regular probe is due.
	next time.Time
	// burst counts the extra probes still to send, the next at burstNext.
	burst     int
	burstNext time.Time
}

// timeout is the link's own while it answers. In a doubt it is the longest, so
// that a link that has become slower is seen as slow and not as dead.
func (w *watch) timeout() time.Duration {
	if w.sight != Up || !w.rtt.known {
		return MaxTimeout
	}
	return w.rtt.measured()
}

func (w *watch) replied(now time.Time, f flight, o Outcome) {
	w.sendable = true
	if !f.extra {
		w.window.add(false)
	}
	w.run, w.firstLost, w.burst, w.trouble = 0, time.Time{}, 0, ""
	w.lastReply = now
	if f.sent.After(w.answered) {
		w.answered = f.sent
	}
	if !o.Stalled {
		w.lastRTT = o.RTT
		w.rtt.sample(o.RTT)
	}
	w.sight = Up
}

// lost counts a loss. It opens or prolongs a doubt only if no later probe has
// been answered.
func (w *watch) lost(now time.Time, f flight) {
	w.sendable = true
	if !f.extra {
		w.window.add(true)
	}
	if !f.sent.After(w.answered) {
		return
	}
	w.run++
	if w.run == 1 || f.sent.Before(w.firstLost) {
		w.firstLost = f.sent
	}
	w.trouble = ""
	if w.sight != Down {
		w.sight = Down
		w.burst, w.burstNext = burstProbes, now
	}
}

func (w *watch) notSent(trouble string) {
	w.sight, w.burst, w.trouble = CannotJudge, 0, trouble
	w.run, w.firstLost = 0, time.Time{}
}

// forget drops what was seen while the observer may have stood still. A doubt
// becomes "cannot judge". It reports whether there is something to report.
func (w *watch) forget(trouble string) bool {
	w.window = window{}
	w.run, w.firstLost, w.burst = 0, time.Time{}, 0
	crossed := w.crossed()
	if w.sight != Down {
		return crossed
	}
	w.sight, w.trouble = CannotJudge, trouble
	return true
}

// crossed reports whether the subject has become lossy, or is so no more, since
// it was last asked.
func (w *watch) crossed() bool {
	before, lost := w.lossy, w.window.lost()
	w.lossy = lost >= lossyFrom || before && lost > lossyUntil
	return w.lossy != before
}

func (w *watch) evidence() Evidence {
	e := Evidence{
		Sight: w.sight, Sent: w.window.size(), Lost: w.window.lost(), RTT: w.lastRTT,
		FirstLost: w.firstLost, LastReply: w.lastReply, Trouble: w.trouble,
	}
	if w.sight == Down {
		e.Sent, e.Lost = w.run, w.run
	}
	return e
}

// window holds the last WindowSize results, the newest in bit 0.
type window struct {
	bits  uint16
	count uint8
}

func (w *window) add(lost bool) {
	w.bits <<= 1
	if lost {
		w.bits |= 1
	}
	w.bits &= 1<<WindowSize - 1
	w.count = min(w.count+1, WindowSize)
}

func (w window) size() int { return int(w.count) }

func (w window) lost() int { return bits.OnesCount16(w.bits) }

// estimator smooths the round trip of one link as RFC 6298, section 2, does.
type estimator struct {
	smoothed, deviation time.Duration
	known               bool
}

func (e *estimator) sample(rtt time.Duration) {
	if !e.known {
		e.smoothed, e.deviation, e.known = rtt, rtt/2, true
		return
	}
	e.deviation += ((e.smoothed - rtt).Abs() - e.deviation) / 4
	e.smoothed += (rtt - e.smoothed) / 8
}

// measured is the longest that a healthy reply takes, between MinTimeout and
// MaxTimeout, or 0 before the first sample.
func (e estimator) measured() time.Duration {
	if !e.known {
		return 0
	}
	return min(max(e.smoothed+4*e.deviation, MinTimeout), MaxTimeout)
}
