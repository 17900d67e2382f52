package sim

import (
	"slices"
	"time"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/verdict"
)

// The times of package agent/prober, which marks a result as late when the
// process was.
const (
	proberLate       = 20 * time.Millisecond
	proberGrace      = 20 * time.Millisecond
	proberStarvation = 100 * time.Millisecond
	loopbackRTT      = 30 * time.Microsecond
)

// exam is an examination under way.
type exam struct {
	*detector.Examination

	ask    pool.Ask
	stream *stream
	// due is when the next tick is arranged for.
	due time.Duration
}

// drive carries out what a detector asks for and arranges for its next call.
func (s *Sim) drive(h *host, out detector.Output) {
	for _, p := range out.Probes {
		s.probe(h, p, nil)
	}
	for _, r := range out.Reports {
		s.trace.report(s, h, r)
		s.report(h, r)
	}
	a := &h.agent
	now := h.clock.read(s.now)
	a.wake = a.detector.Wake(now)
	at := s.now + h.clock.virtual(a.wake.Sub(now))
	// A call that is arranged for an earlier time finds out that it is too early.
	if at < a.tick {
		a.tick = at
		s.queue.push(at, event{kind: agentTick, host: h, run: h.run})
	}
}

// ticked is a call of the detector that was arranged for.
func (s *Sim) ticked(h *host) {
	a := &h.agent
	a.tick = never
	now := h.clock.read(s.now)
	if left := a.wake.Sub(now); left > 0 {
		a.tick = s.now + h.clock.virtual(left)
		s.queue.push(a.tick, event{kind: agentTick, host: h, run: h.run})
		return
	}
	s.drive(h, a.detector.Tick(now))
}

// flight is a probe whose end is known and lies ahead.
type flight struct {
	// exam is nil for a probe of the detector.
	exam *exam
	id   uint64
	// sent and deadline are by the host's monotonic clock.
	sent, deadline time.Duration
	replied        bool
	// again says that the process came late and looks once more; late, how it will
	// call the result then.
	again, late bool
}

// probe sends a probe: what becomes of it is decided on the way.
func (s *Sim) probe(h *host, p detector.Probe, x *exam) {
	sent := h.clock.monotonic(s.now)
	f := flight{exam: x, id: p.ID, sent: sent, deadline: sent + p.Timeout}
	wait := h.clock.until(s.now, f.deadline)
	if p.Loopback {
		f.replied, wait = true, loopbackRTT
	} else if rtt, ok := s.echo(h, p); ok && rtt <= wait {
		f.replied, wait = true, rtt
	}
	s.queue.push(s.now+wait, event{kind: probeEnd, host: h, run: h.run, flight: f})
}

// echo says how long the reply to a probe takes, if one comes.
func (s *Sim) echo(h *host, p detector.Probe) (time.Duration, bool) {
	s.ledger.probes++
	for _, a := range p.Subject.Addresses {
		o := s.hostAt(a)
		if o == nil || !s.net.carries(packet{from: h, to: o, icmp: true}, s.now) {
			continue
		}
		s.ledger.replies++
		if s.net.carries(packet{from: o, to: h, icmp: true}, s.now) && h.agent.deaf == 0 {
			return s.net.delay(h, o) + s.net.delay(o, h), true
		}
	}
	return 0, false
}

// ended hands the outcome of a probe to whoever asked for it.
func (s *Sim) ended(h *host, f flight) {
	now := h.clock.monotonic(s.now)
	behind := now - f.deadline
	o := detector.Outcome{Probe: f.id, Result: detector.Lost, Stalled: f.late || f.again && behind > proberLate}
	switch {
	case f.replied:
		o.Result, o.RTT, o.Stalled = detector.Replied, now-f.sent, behind > proberStarvation
	case behind > proberLate && !f.again:
		f.again, f.late, f.deadline = true, behind > proberStarvation, now+proberGrace
		s.queue.push(s.now+h.clock.until(s.now, f.deadline), event{kind: probeEnd, host: h, run: h.run, flight: f})
		return
	}
	if f.exam != nil {
		if !f.exam.Done() {
			s.found(h, f.exam, f.exam.Outcome(h.clock.read(s.now), o))
		}
		return
	}
	s.drive(h, h.agent.detector.Outcome(h.clock.read(s.now), o))
}

// examine works on a question of a round.
func (s *Sim) examine(h *host, st *stream, ask pool.Ask) {
	a := &h.agent
	if a.lie != Honest {
		s.lieAbout(h, st, ask)
		return
	}
	a.exams = slices.DeleteFunc(a.exams, func(x *exam) bool { return x.Done() })
	if len(a.exams) >= maxExaminations {
		s.answer(h, &exam{ask: ask, stream: st}, detector.Answer{Final: true, Evidence: detector.Evidence{
			Sight: detector.CannotJudge, Trouble: "this agent is busy with too many questions",
		}})
		return
	}
	now := h.clock.read(s.now)
	q := toQuestion(ask)
	for _, v := range a.detector.Views(now) {
		if v.Key == q.Subject.Key && v.Timeout > 0 {
			q.Timeout = v.Timeout
		}
	}
	x := &exam{Examination: detector.Examine(now, q), ask: ask, stream: st}
	a.exams = append(a.exams, x)
	s.found(h, x, x.Tick(now))
}

// found carries out what an examination asks for.
func (s *Sim) found(h *host, x *exam, f detector.Findings) {
	for _, p := range f.Probes {
		s.probe(h, p, x)
	}
	if len(f.Dial.To) > 0 {
		s.dial(h, x, f.Dial)
	}
	for _, a := range f.Answers {
		s.answer(h, x, a)
	}
	if x.Done() {
		return
	}
	now := h.clock.read(s.now)
	due := h.clock.monotonic(s.now) + max(0, x.Wake().Sub(now))
	if due == x.due {
		return
	}
	x.due = due
	s.queue.push(s.now+h.clock.until(s.now, x.due), event{kind: examTick, host: h, run: h.run, flight: flight{exam: x, deadline: x.due}})
}

// dial tries the TCP connects of an examination, which no filter of ICMP and no
// deafness of a prober touches. There is no time for a second SYN.
func (s *Sim) dial(h *host, x *exam, d detector.Dial) {
	result, wait := detector.ConnectUnanswered, d.Timeout
	for _, to := range d.To {
		o := s.hostAt(to.Addr())
		if o != nil && s.net.carries(packet{from: h, to: o}, s.now) && s.net.carries(packet{from: o, to: h}, s.now) {
			result, wait = detector.ConnectAnswered, min(wait, s.net.delay(h, o)+s.net.delay(o, h))
		}
	}
	s.agentAfter(h, wait, func() {
		if !x.Done() {
			s.found(h, x, x.Connected(result))
		}
	})
}

// examined is a call of an examination that was arranged for.
func (s *Sim) examined(h *host, f flight) {
	if x := f.exam; !x.Done() && x.due == f.deadline && x.stream == h.agent.link.stream {
		x.due = 0
		s.found(h, x, x.Tick(h.clock.read(s.now)))
	}
}

func (s *Sim) answer(h *host, x *exam, a detector.Answer) {
	now := h.clock.read(s.now)
	score, _ := h.agent.detector.Self(now)
	s.sendUp(x.stream, pool.Answer{
		Session: x.stream.id, Round: x.ask.Round, Subject: x.ask.Subject.ID, Incarnation: x.ask.Subject.Incarnation,
		Evidence: toEvidence(a.Evidence, now), Final: a.Final, SelfScore: score,
	})
}

// The forms that things have on the other side of the wire.

func toSubject(s pool.Subject) detector.Subject {
	return detector.Subject{
		Key:       detector.Key{ID: s.ID, Incarnation: s.Incarnation},
		Addresses: s.Addresses, Probe: s.Probe, PhaseOffset: s.PhaseOffset,
	}
}

func toQuestion(a pool.Ask) detector.Question {
	q := detector.Question{
		Subject: toSubject(a.Subject), Probes: a.Probes, Over: a.Over, Timeout: a.Timeout, Exhaustive: a.Exhaustive,
	}
	for _, c := range a.Connect {
		if to, err := parseAddrPort(c); err == nil {
			q.Connect = append(q.Connect, to)
		}
	}
	return q
}

// toEvidence turns moments into ages, as the daemon does when it sends.
func toEvidence(e detector.Evidence, now time.Time) pool.Evidence {
	out := pool.Evidence{Sight: verdict.Sight(e.Sight), Sent: e.Sent, Lost: e.Lost, RTT: e.RTT, Trouble: e.Trouble}
	switch e.Connect {
	case detector.ConnectAnswered:
		out.Connect = verdict.ConnectAnswered
	case detector.ConnectUnanswered:
		out.Connect = verdict.ConnectUnanswered
	case detector.ConnectNone, detector.ConnectNotSent:
	}
	if !e.FirstLost.IsZero() {
		out.FirstLostAge = max(0, now.Sub(e.FirstLost))
	}
	if !e.LastReply.IsZero() {
		out.LastReplyAge = max(0, now.Sub(e.LastReply))
	}
	return out
}
