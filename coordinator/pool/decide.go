package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// endRound takes the round away, so that nothing more counts for it.
func (m *Machine) endRound(s *server) *verdict.Round {
	q := &s.inquiry
	r := q.round
	delete(m.rounds, r.ID)
	q.round, q.dialing = nil, false
	for _, id := range r.Observers() {
		if o := m.servers[id]; o != nil {
			o.load = max(0, o.load-1)
		}
	}
	for _, id := range r.Reaching() {
		q.remind(id)
	}
	if r.OddInsists() {
		q.remind(r.Odd)
	}
	q.last, q.lastProof, q.lastDial = r.Missing(), r.Proof(), r.Dial
	m.remember(s, m.now.Add(memoryOfAnswers))
	return r
}

// remember makes the newest finished round's negatives count until then.
func (m *Machine) remember(s *server, until time.Time) {
	s.inquiry.lastUntil = until
	m.wake(until, wakeAgain, string(s.row.ID), 0)
}

// decide ends a round with a verdict.
func (m *Machine) decide(s *server) {
	r := m.endRound(s)
	for _, id := range r.Mute() {
		m.tell(s, member.Moment{Kind: "no_answer", Round: r.ID, Who: string(id)})
	}
	for _, id := range r.Missing() {
		if !m.trusts(id) {
			m.tell(s, member.Moment{Kind: "not_counted", Round: r.ID, Who: string(id), Text: "what it says is not counted: it is muted, or suspect itself"})
		}
	}
	if s.claim != nil && m.settleClaim(s, r) || !m.judged(s) {
		m.endIncident(s)
		return
	}
	c := m.sum(s, r)
	ruling := verdict.Judge(c)
	m.tell(s, member.Moment{Kind: "verdict", Round: r.ID, Who: "coordinator", Result: ruling.Verdict.String(), Text: ruling.Reason})
	if ruling.Verdict == verdict.Split {
		if len(s.inquiry.overruled) == 0 && m.openSecond(s, r) {
			return
		}
		ruling.Verdict, ruling.Reason = verdict.Alive, ruling.Reason+"; nobody else is there to be asked"
	}
	m.settleOdd(s, r, ruling)
	unreached := ruling.Verdict == verdict.Unreached || ruling.Verdict == verdict.Unreachable
	s.inquiry.repeated, s.inquiry.goesOn = false, false
	m.acquit(s, r, ruling)
	m.blameEdges(s, r, ruling)
	if cause, removes := causes(ruling.Verdict); removes && m.mayRemove(s, cause, &ruling) {
		s.inquiry.verdict.round = r
		return
	}
	if unreached {
		m.raise(alarmUnreached, s.row.ID, fmt.Sprintf("%s: %s", s.row.ID, ruling.Reason))
	} else {
		m.clearAlarm(alarmUnreached, s.row.ID)
	}
	m.notRemoved(s, ruling)
	q := &s.inquiry
	q.repeated = unreached && c.NobodyConnects()
	q.goesOn = ruling.Rule == verdict.TooFew && c.Down >= 2 && c.Proof != verdict.ProofAlive && m.mayGoOn(r)
	m.again(s, ruling.Verdict)
	m.judgeLoss(s, r)
}

// mayGoOn reports whether another round may go on where this one ends: it has
// reached over the stall tolerance by itself.
func (m *Machine) mayGoOn(r *verdict.Round) bool {
	return !r.Second && r.LastProbe.Sub(r.Opened) >= m.settings.StallTolerance-ageCredit
}

// sum sums a round up for judgement.
func (m *Machine) sum(s *server, r *verdict.Round) verdict.Case {
	c := r.Case(m.others(s), m.trusts)
	c.Repeated = s.inquiry.repeated
	if !slices.ContainsFunc(s.row.Spec.Endpoints, member.Endpoint.OverTCP) {
		// Nothing that clients would connect to was tried.
		c.Unconnected = 0
	}
	return c
}

// causes says what a verdict removes a server for, if it does.
func causes(v verdict.Verdict) (member.Cause, bool) {
	switch v {
	case verdict.Crashed:
		return member.CauseCrashed, true
	case verdict.Unreachable:
		return member.CauseUnreachable, true
	case verdict.Lossy:
		return member.CauseLossy, true
	case verdict.Undecided, verdict.Alive, verdict.Split, verdict.Filtered, verdict.Unreached:
	}
	return member.CauseUnspecified, false
}

// mayRemove confirms a verdict unless a rule forbids it, which the ruling then
// says.
func (m *Machine) mayRemove(s *server, cause member.Cause, ruling *verdict.Ruling) bool {
	gate, forbidden := m.gate(s, cause)
	if !forbidden {
		m.confirm(s, cause, *ruling)
		return true
	}
	*ruling = verdict.Ruling{Verdict: verdict.Undecided, Rule: gate.Rule, Reason: gate.Reason + "; otherwise: " + ruling.Reason}
	// Until the gate opens everybody is to be heard again.
	s.inquiry.overruled = nil
	return false
}

// confirm keeps a verdict for the next change.
func (m *Machine) confirm(s *server, cause member.Cause, ruling verdict.Ruling) {
	s.inquiry.verdict = &confirmed{cause: cause, ruling: ruling, at: m.now}
	m.confirmed[s.row.ID] = true
	m.judgeSuspicion(s)
	m.wake(m.now.Add(gatherTime), wakePropose, "", 0)
	m.wake(m.now.Add(verdictLife), wakeAgain, string(s.row.ID), 0)
}

// withdraw drops a confirmed verdict that is not in the change under way; the
// doubt is looked into again.
func (m *Machine) withdraw(s *server) {
	s.inquiry.verdict = nil
	delete(m.confirmed, s.row.ID)
	m.wake(m.now, wakeAgain, string(s.row.ID), 0)
}

// graceLeft is how much longer a member has to be suspect before it may be
// removed.
func (m *Machine) graceLeft(s *server) time.Duration {
	if s.mark == nil {
		return m.settings.RemovalGrace
	}
	return max(0, m.settings.RemovalGrace-m.now.Sub(s.inquiry.suspectSince))
}

// again arranges for another round while the doubt lasts.
func (m *Machine) again(s *server, v verdict.Verdict) {
	q := &s.inquiry
	if !m.doubted(s) && len(q.last) < 2 {
		m.endIncident(s)
		return
	}
	first, longest := time.Second, 5*time.Second
	if v == verdict.Undecided || q.repeated {
		first, longest = 250*time.Millisecond, 2*time.Second
	}
	pause := min(first<<min(q.tries, 5), longest)
	if left := m.graceLeft(s); left > 0 && v == verdict.Undecided {
		// The round after this should end with the grace.
		pause = min(pause, max(left-m.settings.StallTolerance, first))
	}
	if q.goesOn {
		pause = 0
	}
	q.tries++
	q.next = m.now.Add(pause)
	m.wake(q.next, wakeAgain, string(s.row.ID), 0)
	if v == verdict.Undecided || v == verdict.Unreached {
		m.remember(s, q.next.Add(m.settings.StallTolerance+answerTime))
	}
}

// reconsider opens another round if the doubt has lasted, and forgets what is
// too old.
func (m *Machine) reconsider(s *server) {
	q := &s.inquiry
	if v := q.verdict; v != nil && !m.inFlight(s.row.ID) && m.now.Sub(v.at) >= verdictLife {
		m.withdraw(s)
	}
	m.judgeSuspicion(s)
	switch {
	case q.round != nil || q.verdict != nil || m.now.Before(q.next):
	case m.open(s.claim), m.judged(s) && (m.doubted(s) || s.mark != nil):
		m.openRound(s)
	default:
		m.endIncident(s)
	}
}

// others counts who could be asked about s: see verdict.Case.
func (m *Machine) others(s *server) int {
	n := m.ring.Len() - 1
	if n < 3 || n-len(m.marked) >= 3 {
		// Three are needed of so many, whoever else is suspect.
		return n
	}
	for id := range m.marked {
		if o := m.servers[id]; o != s && m.unproven(o) && (o.inquiry.round == nil || len(o.inquiry.round.Reaching()) == 0) {
			n--
		}
	}
	return max(n, 2)
}

// proof is what the stream says in the present round, or said in the last one.
func (q *inquiry) proof() verdict.Proof {
	if q.round != nil {
		return q.round.Proof()
	}
	return q.lastProof
}
