package detector

import "time"

const (
	maxExamProbes = 10
	minExamTime   = 50 * time.Millisecond
	maxExamTime   = 30 * time.Second
	// travel is kept back at the end of an examination for the last outcomes to
	// be noticed and the answer to arrive.
	travel = 20 * time.Millisecond
)

// Question asks for an Examination.
type Question struct {
	Subject Subject
	// Probes is how many probes to send, brought between 1 and 10.
	Probes int
	// Over is the time within which the final answer is due, brought between
	// 50 ms and 30 s.
	Over time.Duration
	// Timeout is how long a reply may take on this link as far as is known:
	// View.Timeout for a watched subject, see Detector.Patience for others.
	Timeout time.Duration
}

// Answer is what an Examination has found out.
type Answer struct {
	Evidence Evidence
	// Final is unset only in the one interim answer at the first lost probe.
	Final bool
}

// Findings are what the shell must do after an input of an Examination.
type Findings struct {
	Probes  []Probe
	Answers []Answer
}

// Examination probes one server for a round. The probes are spread so that the
// last one is sent as late as a reply to it can still be waited for, and each is
// waited for until the end. A reply to any of them is the final answer. It is
// not safe for concurrent use.
type Examination struct {
	subject Subject
	probes  int
	timeout time.Duration
	spacing time.Duration
	// Probes wait until deadline; the examination is over at limit.
	began, deadline, limit time.Time

	sent, lost int
	lastID     uint64
	firstSent  time.Time
	// interim is whether the interim answer has been given.
	interim bool
	done    bool
	// expected is when the next input was due.
	expected time.Time
}

// Examine begins an examination; call Tick at once.
func Examine(now time.Time, q Question) *Examination {
	probes := min(max(q.Probes, 1), maxExamProbes)
	over := min(max(q.Over, minExamTime), maxExamTime)
	e := &Examination{subject: q.Subject, probes: probes, began: now, limit: now.Add(over)}
	over -= min(travel, over/5)
	e.deadline = now.Add(over)
	e.timeout = min(max(q.Timeout, MinTimeout), over/2)
	if probes > 1 {
		e.spacing = (over - e.timeout) / time.Duration(probes-1)
	}
	return e
}

// Done reports whether the final answer has been given.
func (e *Examination) Done() bool { return e.done }

// Wake returns when Tick is due next.
func (e *Examination) Wake() time.Time {
	wake := e.limit
	if e.sent < e.probes {
		wake = earlier(wake, e.due())
	}
	if !e.interim && e.sent > 0 {
		wake = earlier(wake, e.firstSent.Add(e.timeout))
	}
	return wake
}

// due is when the next probe is to be sent.
func (e *Examination) due() time.Time {
	return e.began.Add(time.Duration(e.sent) * e.spacing)
}

// Tick tells the time.
func (e *Examination) Tick(now time.Time) Findings {
	var f Findings
	if e.done {
		return f
	}
	if !e.expected.IsZero() && now.Sub(e.expected) > lateness {
		e.end(CannotJudge, Outcome{Trouble: lateTimers}, &f)
		return f
	}
	for e.sent < e.probes && !e.due().After(now) {
		if e.sent == 0 {
			e.firstSent = now
		}
		e.sent++
		e.lastID++
		f.Probes = append(f.Probes, Probe{
			ID: e.lastID, Subject: e.subject, Timeout: max(e.deadline.Sub(now), 0),
		})
	}
	switch {
	case !now.Before(e.limit):
		e.end(CannotJudge, Outcome{Trouble: lateTimers}, &f)
	case !e.interim && !now.Before(e.firstSent.Add(e.timeout)):
		e.interim = true
		f.Answers = append(f.Answers, Answer{Evidence: Evidence{
			Sight: Down, Sent: e.sent, Lost: max(1, e.lost), FirstLost: e.firstSent,
		}})
	}
	e.expected = e.Wake()
	return f
}

// Outcome takes what became of a probe.
func (e *Examination) Outcome(now time.Time, o Outcome) Findings {
	var f Findings
	if e.done {
		return f
	}
	switch {
	case o.Result == Replied:
		o.Trouble = ""
		e.end(Up, o, &f)
		f.Answers[0].Evidence.LastReply = now
	case o.Result == NotSent:
		e.end(CannotJudge, o, &f)
	case o.Stalled:
		o.Trouble = lateTimers
		e.end(CannotJudge, o, &f)
	default:
		e.lost++
		if e.lost == e.probes {
			e.end(Down, Outcome{}, &f)
		}
	}
	return f
}

func (e *Examination) end(sight Sight, o Outcome, f *Findings) {
	e.done = true
	ev := Evidence{Sight: sight, Sent: e.sent, Lost: e.lost, RTT: o.RTT, Trouble: o.Trouble}
	if sight == Down {
		ev.FirstLost = e.firstSent
	}
	f.Answers = append(f.Answers, Answer{Evidence: ev, Final: true})
}

// Patience is how long to wait for a reply from a server that is not watched:
// twice the slowest link that is, and between 50 ms and MaxTimeout.
func (d *Detector) Patience() time.Duration {
	longest := time.Duration(0)
	for _, w := range d.watches {
		if w.rtt.known {
			longest = max(longest, w.rtt.timeout())
		}
	}
	if longest == 0 {
		return MaxTimeout
	}
	return min(max(2*longest, 50*time.Millisecond), MaxTimeout)
}
