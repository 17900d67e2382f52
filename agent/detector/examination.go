package detector

import (
	"net/netip"
	"time"
)

const (
	maxExamProbes = 50
	maxExamTime   = time.Minute
	// straggle is how long after their time-out the last outcomes may be noticed.
	straggle = 50 * time.Millisecond
)

// Question asks for an Examination.
type Question struct {
	Subject Subject
	// Probes is how many probes to send, brought between 1 and 50.
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
	// Final is unset in the interim answers, of which there is at most one for
	// each: the first probe is lost, a TCP connect is answered, a probe is answered.
	Final bool
}

// Dial asks the shell for TCP connects to all addresses at once, and to hand to
// Connected what came of them: the first answer at once, anything else when all
// have ended.
type Dial struct {
	To      []netip.AddrPort
	Timeout time.Duration
}

// Findings are what the shell must do after an input of an Examination.
type Findings struct {
	Probes []Probe
	// Dial has no addresses where there is nothing to connect to.
	Dial    Dial
	Answers []Answer
}

// Examination probes one server for a round. Every probe is waited for until
// the last one's time-out, and a reply to any of them is the final answer; one
// that is exhaustive ends when the fate of all is known, and waits for none
// longer than MaxTimeout. Connects run beside the probes and never end it. It is
// not safe for concurrent use.
type Examination struct {
	question Question
	spacing  time.Duration
	// Probes wait until deadline; the examination is over at limit.
	began, deadline, limit time.Time

	sent, replied, lost int
	lastID              uint64
	firstSent           time.Time
	rtt                 time.Duration
	lastReply           time.Time
	connect             Connect
	// dialing says that connects are under way.
	dialing bool
	// missed says that the time-out of the first probe has passed.
	missed bool
	done   bool
	// expected is when the next input was due.
	expected time.Time
}

// Examine begins an examination; call Tick at once.
func Examine(now time.Time, q Question) *Examination {
	q.Probes = min(max(q.Probes, 1), maxExamProbes)
	if q.Timeout <= 0 {
		q.Timeout = MaxTimeout
	}
	q.Timeout = min(max(q.Timeout, MinTimeout), MaxTimeout)
	q.Over = min(max(q.Over, 0), maxExamTime)
	e := &Examination{question: q, began: now}
	if q.Probes > 1 {
		e.spacing = q.Over / time.Duration(q.Probes-1)
	} else {
		q.Over = 0
	}
	e.deadline = now.Add(q.Over + q.Timeout)
	e.limit = e.deadline.Add(straggle)
	return e
}

// Schedule returns how many probes there are and how far apart. Their IDs count
// from 1.
func (e *Examination) Schedule() (probes int, spacing time.Duration) {
	return e.question.Probes, e.spacing
}

// Done reports whether the final answer has been given.
func (e *Examination) Done() bool { return e.done }

// Wake returns when Tick is due next.
func (e *Examination) Wake() time.Time {
	wake := e.limit
	if e.sent < e.question.Probes {
		wake = earlier(wake, e.due())
	}
	if !e.missed && e.sent > 0 {
		wake = earlier(wake, e.firstSent.Add(e.question.Timeout))
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
		e.giveUp(lateTimers, &f)
		return f
	}
	for e.sent < e.question.Probes && !e.due().After(now) {
		e.send(now, &f)
	}
	if !now.Before(e.limit) {
		e.expire(&f)
		return f
	}
	if !e.missed && !now.Before(e.firstSent.Add(e.question.Timeout)) {
		e.miss(now, &f)
	}
	e.expected = e.Wake()
	return f
}

func (e *Examination) send(now time.Time, f *Findings) {
	if e.sent == 0 {
		e.firstSent = now
	}
	e.sent++
	e.lastID++
	timeout := max(e.deadline.Sub(now), MinTimeout)
	if e.question.Exhaustive {
		timeout = min(timeout, MaxTimeout)
	}
	f.Probes = append(f.Probes, Probe{ID: e.lastID, Subject: e.question.Subject, Timeout: timeout})
}

// miss says that the first probe is lost, unless another has been answered, and
// tries another way.
func (e *Examination) miss(now time.Time, f *Findings) {
	e.missed = true
	if e.replied > 0 {
		return
	}
	e.answer(Down, "", f)
	if left := e.deadline.Sub(now); len(e.question.Connect) > 0 && left >= MinTimeout {
		e.dialing = true
		f.Dial = Dial{To: e.question.Connect, Timeout: left}
	}
}

// expire ends an examination whose time is up. If it still lacks the outcome of
// a probe, the observer is late.
func (e *Examination) expire(f *Findings) {
	if e.replied+e.lost < e.question.Probes {
		e.giveUp(lateTimers, f)
		return
	}
	if e.dialing {
		e.connect = ConnectNotSent
	}
	e.conclude(f)
}

// Outcome takes what became of a probe.
func (e *Examination) Outcome(now time.Time, o Outcome) Findings {
	var f Findings
	if e.done {
		return f
	}
	switch {
	case o.Result == Replied:
		e.replied++
		e.rtt, e.lastReply = o.RTT, now
	case o.Result == NotSent:
		e.giveUp(o.Trouble, &f)
		return f
	case o.Stalled:
		e.giveUp(lateTimers, &f)
		return f
	default:
		e.lost++
	}
	e.settle(&f)
	if e.replied == 1 && !e.done && o.Result == Replied {
		e.answer(Up, "", &f)
	}
	return f
}

// Connected takes what came of a Dial. Only its first outcome counts.
func (e *Examination) Connected(c Connect) Findings {
	var f Findings
	if e.done || !e.dialing {
		return f
	}
	e.dialing, e.connect = false, c
	e.settle(&f)
	if !e.done && e.replied == 0 && c == ConnectAnswered {
		e.answer(Down, "", &f)
	}
	return f
}

// settle ends the examination when everything is known that it is for.
func (e *Examination) settle(f *Findings) {
	replied := e.replied > 0 && !e.question.Exhaustive
	complete := e.replied+e.lost == e.question.Probes && (e.replied > 0 || !e.dialing)
	if replied || complete {
		e.conclude(f)
	}
}

// conclude gives the final answer: one reply is enough for "up".
func (e *Examination) conclude(f *Findings) {
	e.done = true
	if e.replied > 0 {
		e.answer(Up, "", f)
		return
	}
	e.answer(Down, "", f)
}

// giveUp ends the examination for trouble of the observer. Its losses prove
// nothing, but a reply is a reply.
func (e *Examination) giveUp(trouble string, f *Findings) {
	e.done = true
	if e.replied > 0 {
		e.answer(Up, trouble, f)
		return
	}
	e.answer(CannotJudge, trouble, f)
}

func (e *Examination) answer(s Sight, trouble string, f *Findings) {
	ev := Evidence{
		Sight: s, Sent: e.sent, Lost: e.lost, RTT: e.rtt, LastReply: e.lastReply, Trouble: trouble, Connect: e.connect,
	}
	if s == Down {
		ev.Lost, ev.FirstLost = max(1, e.lost), e.firstSent
	}
	f.Answers = append(f.Answers, Answer{Evidence: ev, Final: e.done})
}
