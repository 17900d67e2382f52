package detector

import (
	"net/netip"
	"time"
)

const (
	maxExamProbes = 10
	maxExamTime   = time.Minute
	// straggle is how long after their time-out the last outcomes may be noticed.
	straggle = 50 * time.Millisecond
)

// Question asks for an Examination.
type Question struct {
	Subject Subject
	// Probes is how many probes to send, brought between 1 and 10.
	Probes int
	// Over is the time between the first and the last probe, brought between 0
	// and a minute.
	Over time.Duration
	// Timeout is how long a reply may take on this link, brought between
	// MinTimeout and MaxTimeout, which is also taken for 0.
	Timeout time.Duration
	// Connect lists what to connect to by TCP once the first probe is lost.
	Connect []netip.AddrPort
	// Exhaustive asks to send all probes and to count the lost ones instead of
	// being done at the first reply.
	Exhaustive bool
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

// Examination probes one server for a round. Every probe is waited for until
// the last one's time-out, and a reply to any of them is the final answer. It is
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
	e := &Examination{subject: q.Subject, probes: min(max(q.Probes, 1), maxExamProbes), began: now, timeout: MaxTimeout}
	if q.Timeout > 0 {
		e.timeout = min(max(q.Timeout, MinTimeout), MaxTimeout)
	}
	over := time.Duration(0)
	if e.probes > 1 {
		over = min(max(q.Over, 0), maxExamTime)
		e.spacing = over / time.Duration(e.probes-1)
	}
	e.deadline = now.Add(over + e.timeout)
	e.limit = e.deadline.Add(straggle)
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
			ID: e.lastID, Subject: e.subject, Timeout: max(e.deadline.Sub(now), MinTimeout),
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
