package detector

import (
	"fmt"
	"strings"
	"time"
)

const (
	// lateness is how late an input may come after Wake before the observer
	// doubts its timers.
	lateness = 100 * time.Millisecond
	// loopbackPeriod is how often a healthy host probes itself.
	loopbackPeriod = 5 * time.Second

	lateTimers = "this agent's timers are late"
)

// self is what the observer knows of its own health.
type self struct {
	// last is the time of the last input, expected when the next was due.
	last, expected time.Time
	// quarantine is until when losses say nothing after a stall; stall says what
	// happened.
	quarantine time.Time
	stall      string
	// lateUntil is until when the timers count as late.
	lateUntil time.Time
	// loopNext is when to probe the loopback address; loopTrouble is why the last
	// such probe failed, or empty.
	loopNext    time.Time
	loopTrouble string
}

// observe looks at the clock before anything else is done with an input, and
// discards what was seen when the host has stood still.
func (d *Detector) observe(now time.Time, out *Output) {
	s := &d.self
	defer func() { s.last = now }()
	if s.last.IsZero() {
		return
	}
	if !s.expected.IsZero() && now.Sub(s.expected) > lateness {
		s.late(now, d.period)
	}
	stall := stalled(now.Sub(s.last), now.Round(0).Sub(s.last.Round(0)), max(2*d.period, MaxTimeout))
	if stall == "" {
		return
	}
	s.stall = stall
	s.quarantine = now.Add(d.period)
	for id, f := range d.flights {
		f.void = true
		d.flights[id] = f
	}
	for _, w := range d.watches {
		w.next = earlier(w.next, nextPhase(now, w.PhaseOffset, d.period))
		if w.forget(s.stall) {
			out.Reports = append(out.Reports, d.report(now, w))
		}
	}
}

// stalled says what is wrong with the time since the last input, as the
// monotonic clock and the wall clock tell it, or "".
func stalled(monotonic, wall, limit time.Duration) string {
	switch apart := wall - monotonic; {
	case monotonic > limit:
		return fmt.Sprintf("this agent stood still for %v", monotonic.Round(time.Millisecond))
	case apart.Abs() > limit:
		return fmt.Sprintf("this host's clocks moved apart by %v", apart.Round(time.Millisecond))
	}
	return ""
}

// late notes that the observer's timers run late; it wears off in two periods.
func (s *self) late(now time.Time, period time.Duration) { s.lateUntil = now.Add(2 * period) }

func (s *self) loopback(now time.Time, f flight, o Outcome) {
	switch {
	case o.Result == Replied:
		s.loopTrouble = ""
	case o.Result == NotSent:
		s.loopTrouble = "this host cannot probe itself: " + o.Trouble
	case !f.void && !o.Stalled && !now.Before(s.quarantine):
		s.loopTrouble = "this host does not answer its own probes"
	}
}

func (d *Detector) loopbackPeriod() time.Duration {
	if d.self.loopTrouble != "" {
		return d.period
	}
	return loopbackPeriod
}

func (d *Detector) loopbackInFlight() bool {
	for _, f := range d.flights {
		if f.watch == nil {
			return true
		}
	}
	return false
}

// Examiner returns how far the observer distrusts itself in an Examination: as
// Self, but for late timers, which an Examination notices in its own probes.
func (d *Detector) Examiner(now time.Time) int {
	score, _ := d.Self(now)
	if now.Before(d.self.lateUntil) {
		score--
	}
	return score
}

// Self returns how far the observer distrusts itself: 0 is a healthy one, and
// each kind of trouble adds 1. The text names them.
func (d *Detector) Self(now time.Time) (score int, trouble string) {
	var troubles []string
	if d.self.loopTrouble != "" {
		troubles = append(troubles, d.self.loopTrouble)
	}
	if now.Before(d.self.quarantine) {
		troubles = append(troubles, d.self.stall)
	}
	if now.Before(d.self.lateUntil) {
		troubles = append(troubles, lateTimers)
	}
	down, unsent := 0, 0
	for _, w := range d.watches {
		switch w.sight {
		case Down:
			down++
		case CannotJudge:
			if w.sendable {
				unsent++
			}
		case Unknown, Up:
		}
	}
	if unsent > 0 {
		troubles = append(troubles, fmt.Sprintf("%d of %d subjects cannot be judged", unsent, len(d.watches)))
	}
	if down > 1 && down == len(d.watches) {
		troubles = append(troubles, fmt.Sprintf("all %d subjects are silent at once", down))
	}
	return len(troubles), strings.Join(troubles, "; ")
}
