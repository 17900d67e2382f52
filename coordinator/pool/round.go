package pool

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// observersWanted is how many a round asks: the watchers and two witnesses.
	observersWanted = 4
	// probesPerRound is how many probes each of them sends.
	probesPerRound = 3
	// ageCredit is how much of the stall tolerance the first doubt of an incident
	// may have behind it; more could be a liar's invention.
	ageCredit = 100 * time.Millisecond
	// shortestRound is the shortest time over which confirming probes go out.
	shortestRound = 150 * time.Millisecond
	// straggle is how long after its time-out a final answer may arrive.
	straggle = 150 * time.Millisecond
	// pairSilence is how long a nonce may go unanswered in a pool of two before
	// the one observer's doubt makes a suspect.
	pairSilence = 150 * time.Millisecond
	// memoryOfAnswers is how long a finished round's negatives support a mark.
	memoryOfAnswers = 2 * time.Second
	// oldDoubt is the age from which a doubt does not count as the beginning of a
	// suspicion.
	oldDoubt = 2 * time.Second
	// Bounds of the time-out for links that the observer has not measured.
	minTimeout, maxTimeout = 50 * time.Millisecond, 200 * time.Millisecond
)

// good hears that a watcher reaches a server.
func (m *Machine) good(s *server, observer member.ID, before Sight) {
	m.reach(s)
	if before != verdict.SightDown {
		return
	}
	m.tell(s, member.Moment{Kind: "cleared", Who: string(observer), Role: "buddy", Result: "up", RTT: s.sights[observer].RTT})
	if s.inquiry.verdict != nil && !m.inFlight(s.row.ID) {
		m.withdraw(s)
	}
	if r := s.inquiry.round; r != nil && s.claim == nil && len(r.Down()) == 0 && !m.doubted(s) {
		m.endRound(s)
		m.endIncident(s)
	}
}

// reach notes that this incarnation has been reached by an observer.
func (m *Machine) reach(s *server) {
	if s.reached {
		return
	}
	s.reached = true
	m.due[s.row.ID] = true
	m.clearAlarm(alarmNotJoining, s.row.ID)
}

// doubt hears that a watcher misses a server. It opens a round at most.
func (m *Machine) doubt(s *server, observer member.ID, seen sight, before Sight) {
	if !m.judged(s) {
		return
	}
	if s.inquiry.tale == nil {
		m.beginIncident(s, seen.firstLost)
	}
	if before != verdict.SightDown {
		m.tell(s, member.Moment{
			Kind: "doubt", Who: string(observer), Role: "buddy", Result: "down",
			Sent: seen.Sent, Lost: seen.Lost, Age: m.now.Sub(seen.firstLost),
		})
	}
	if s.inquiry.round == nil && s.inquiry.verdict == nil && (before != verdict.SightDown || !m.now.Before(s.inquiry.next)) {
		m.openRound(s)
	}
}

// openRound asks observers, the subject itself and, in pools too small for
// witnesses, the coordinator's own network.
func (m *Machine) openRound(s *server) {
	q := &s.inquiry
	if q.tale == nil {
		m.beginIncident(s, m.now)
	}
	credit := time.Duration(0)
	if q.tries == 0 && s.claim == nil {
		credit = min(m.now.Sub(q.firstLost), ageCredit)
	}
	over := max(m.settings.StallTolerance-credit, shortestRound)
	m.roundSeq++
	r := &verdict.Round{
		ID: m.roundSeq, Subject: s.row.ID, Incarnation: s.row.Incarnation,
		Opened: m.now, Deadline: m.now.Add(over + m.timeout(s) + straggle),
	}
	q.round, q.lastProbe = r, m.now.Add(over)
	m.rounds[r.ID] = s
	m.count(CountRound)
	m.tell(s, member.Moment{Kind: "round", Round: r.ID, Who: "coordinator", Text: fmt.Sprintf("%d probes each over %v", probesPerRound, over)})
	if sess := m.sessions[s.session]; sess != nil {
		r.Nonce = m.challenge(sess)
		m.tell(s, member.Moment{Kind: "nonce", Round: r.ID, Who: "coordinator", Role: "coordinator"})
	}
	m.askObservers(s, r)
	if m.ring.Len() <= 2 {
		m.dial(s, r)
	}
	id := r.ID
	m.wake(m.now.Add(pairSilence), wakeRound, "", id)
	m.wake(m.now.Add(verdict.ReplaceAfter), wakeRound, "", id)
	m.wake(r.Deadline, wakeRound, "", id)
}

func (m *Machine) askObservers(s *server, r *verdict.Round) {
	for _, w := range m.watchers(s) {
		if m.live(w.id) != nil {
			m.ask(s, r, w)
		}
	}
	for len(r.Observers()) < observersWanted {
		id, ok := m.drawObserver(s, r.Observers())
		if !ok {
			return
		}
		m.ask(s, r, watcher{id, RoleWitness})
	}
}

func (m *Machine) ask(s *server, r *verdict.Round, w watcher) {
	sess := m.live(w.id)
	if sess == nil {
		return
	}
	r.Ask(w.id, m.now)
	m.emit(Ask{
		Session: sess.id, Round: r.ID, Subject: m.subject(s, w.role), Probes: probesPerRound,
		Over: max(s.inquiry.lastProbe.Sub(m.now), shortestRound), Timeout: m.timeout(s),
	})
	m.tell(s, member.Moment{Kind: "asked", Round: r.ID, Who: string(w.id), Role: roleName(w.role)})
}

func roleName(r Role) string {
	switch r {
	case RoleFirst, RoleSecond:
		return "buddy"
	default:
		return r.String()
	}
}

// timeout is for observers that have not measured the link: from what the
// subject's buddies see.
func (m *Machine) timeout(s *server) time.Duration {
	if s.rtt == 0 {
		return maxTimeout
	}
	return min(max(4*s.rtt, minTimeout), maxTimeout)
}

// dial asks for TCP connects to the subject's endpoints, or to its probe
// addresses where it has none: any answer, also a refusal, proves a kernel.
func (m *Machine) dial(s *server, r *verdict.Round) {
	var targets []string
	ports := map[string]bool{}
	for _, e := range s.row.Spec.Endpoints {
		host, port, err := net.SplitHostPort(e.Address)
		if err != nil {
			continue
		}
		ports[port] = true
		if _, err := netip.ParseAddr(host); err == nil {
			targets = append(targets, e.Address)
		}
	}
	if s.row.Spec.Probe.Method == member.ProbeTCP {
		ports[strconv.Itoa(int(s.row.Spec.Probe.Port))] = true
	}
	if len(ports) == 0 {
		ports[discardPort] = true
	}
	for _, a := range s.row.Spec.ProbeAddresses {
		for port := range ports {
			targets = append(targets, net.JoinHostPort(a.String(), port))
		}
	}
	slices.Sort(targets)
	s.inquiry.dialing = true
	m.emit(Dial{Round: r.ID, Addresses: slices.Compact(targets), Timeout: s.inquiry.lastProbe.Sub(m.now)})
}

// discardPort is the port to connect to where a server has none: a live host
// refuses.
const discardPort = "9"

// dialed hears the outcome of the coordinator's own connect.
func (m *Machine) dialed(in Dialed) {
	s := m.rounds[in.Round]
	if s == nil {
		m.count(CountDropped)
		return
	}
	s.inquiry.dialing = false
	result := "cannot_judge"
	switch {
	case in.CannotJudge:
	case in.Answered:
		s.inquiry.round.Dial, result = verdict.DialAnswered, "up"
	default:
		s.inquiry.round.Dial, result = verdict.DialUnanswered, "down"
	}
	m.tell(s, member.Moment{Kind: "dial", Round: in.Round, Who: "coordinator", Role: "coordinator", Result: result, Text: in.Text})
	m.progress(s)
}

// answer hears what an observer found out for a round.
func (m *Machine) answer(in Answer) {
	sess, _ := m.from(in.Session)
	if sess == nil {
		return
	}
	s := m.rounds[in.Round]
	if s == nil || in.Subject != s.row.ID || in.Incarnation != s.row.Incarnation ||
		!s.inquiry.round.Answer(sess.hello.ID, in.Evidence, in.Final, in.SelfScore) {
		m.count(CountDropped)
		return
	}
	e := in.Evidence
	text := e.Trouble
	if !in.Final {
		text = "first probe lost"
	}
	m.tell(s, member.Moment{
		Kind: "answer", Round: in.Round, Who: string(sess.hello.ID), Result: e.Sight.String(),
		Sent: e.Sent, Lost: e.Lost, RTT: e.RTT, Text: text,
	})
	if e.Sight == verdict.SightUp {
		m.reach(s)
	}
	m.progress(s)
}

// progress looks at a round after something has happened or time has passed.
func (m *Machine) progress(s *server) {
	r := s.inquiry.round
	for _, id := range r.Silent(m.now) {
		m.tell(s, member.Moment{Kind: "no_answer", Round: r.ID, Who: string(id), Text: "another is asked"})
		if other, ok := m.drawObserver(s, r.Observers()); ok {
			m.ask(s, r, watcher{other, RoleWitness})
		}
	}
	m.judgeSuspicion(s)
	if r.Complete(m.now, s.inquiry.dialing) {
		m.decide(s)
	}
}

// endRound takes the round away, so that nothing more counts for it.
func (m *Machine) endRound(s *server) *verdict.Round {
	r := s.inquiry.round
	delete(m.rounds, r.ID)
	s.inquiry.round, s.inquiry.dialing = nil, false
	s.inquiry.last, s.inquiry.lastUntil, s.inquiry.lastProof = r.Down(), m.now.Add(memoryOfAnswers), r.Proof()
	return r
}

// decide ends a round with a verdict.
func (m *Machine) decide(s *server) {
	r := m.endRound(s)
	for _, id := range r.Mute() {
		m.tell(s, member.Moment{Kind: "no_answer", Round: r.ID, Who: string(id)})
	}
	if s.claim != nil {
		reached := len(r.Up()) > 0 || r.Dial == verdict.DialAnswered || r.Proof() == verdict.ProofAlive
		m.settleClaim(s, reached)
		if !reached {
			m.endIncident(s)
			return
		}
	}
	if !m.judged(s) {
		m.endIncident(s)
		return
	}
	ruling := verdict.Judge(r.Case(m.others(s)))
	m.tell(s, member.Moment{Kind: "verdict", Round: r.ID, Who: "coordinator", Result: ruling.Verdict.String(), Text: ruling.Reason})
	if ruling.Verdict == verdict.Crashed {
		if gate, ok := m.gate(s); ok {
			ruling = verdict.Ruling{Verdict: verdict.Undecided, Rule: gate.Rule, Reason: gate.Reason + "; otherwise: " + ruling.Reason}
		} else {
			m.confirm(s, ruling)
			return
		}
	}
	if ruling.Verdict != verdict.Unreached {
		m.clearAlarm(alarmUnreached, s.row.ID)
	} else {
		m.raise(alarmUnreached, s.row.ID, fmt.Sprintf("%s: %s; is ICMP filtered? try --probe tcp", s.row.ID, ruling.Reason))
	}
	m.notRemoved(s, ruling)
	m.again(s, ruling.Verdict)
}

// confirm keeps a verdict for the next change.
func (m *Machine) confirm(s *server, ruling verdict.Ruling) {
	s.inquiry.verdict = &confirmed{cause: member.CauseCrashed, ruling: ruling, at: m.now}
	m.confirmed[s.row.ID] = true
	m.wake(m.now.Add(gatherTime), wakePropose, "", 0)
	m.wake(m.now.Add(verdictLife), wakeAgain, string(s.row.ID), 0)
}

// withdraw drops a confirmed verdict that has not been proposed.
func (m *Machine) withdraw(s *server) {
	s.inquiry.verdict = nil
	delete(m.confirmed, s.row.ID)
}

// gate says which rule, if any, forbids to act on a confirmed verdict now.
func (m *Machine) gate(s *server) (member.RefusedError, bool) {
	switch since := m.now.Sub(s.inquiry.suspectSince); {
	case m.warming:
		return member.RefusedError{Rule: "warm_up", Reason: "the coordinator has just started and waits for the agents' streams"}, true
	case m.settings.Mode == member.ModeShadow:
		return member.RefusedError{Rule: "shadow_mode", Reason: "the pool is in shadow mode"}, true
	case since < m.settings.RemovalGrace:
		return member.RefusedError{Rule: "removal_grace", Reason: fmt.Sprintf("it has been suspect for %v, and removal waits for %v", since.Round(time.Millisecond), m.settings.RemovalGrace)}, true
	}
	return member.RefusedError{}, false
}

// again arranges for another round while the doubt lasts.
func (m *Machine) again(s *server, v verdict.Verdict) {
	if !m.doubted(s) && len(s.inquiry.last) < 2 {
		m.endIncident(s)
		return
	}
	first, longest := time.Second, 5*time.Second
	if v == verdict.Undecided {
		first, longest = 250*time.Millisecond, 2*time.Second
	}
	pause := min(first<<min(s.inquiry.tries, 5), longest)
	s.inquiry.tries++
	s.inquiry.next = m.now.Add(pause)
	m.wake(s.inquiry.next, wakeAgain, string(s.row.ID), 0)
	m.wake(s.inquiry.lastUntil, wakeAgain, string(s.row.ID), 0)
}

// reconsider opens another round if the doubt has lasted, and forgets what is
// too old.
func (m *Machine) reconsider(s *server) {
	q := &s.inquiry
	if q.verdict != nil && !m.inFlight(s.row.ID) && m.now.Sub(q.verdict.at) >= verdictLife {
		m.withdraw(s)
	}
	m.judgeSuspicion(s)
	if q.round != nil || q.verdict != nil || m.now.Before(q.next) {
		return
	}
	if m.judged(s) && (m.doubted(s) || s.mark != nil) {
		m.openRound(s)
		return
	}
	m.endIncident(s)
}

// others counts who could be asked about s: see verdict.Case.
func (m *Machine) others(s *server) int {
	n := m.ring.Len() - 1
	if n < 3 {
		return n
	}
	for id := range m.marked {
		if o := m.servers[id]; o != s && o.inquiry.proof() != verdict.ProofAlive && (o.inquiry.round == nil || len(o.inquiry.round.Up()) == 0) {
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

// doubted reports whether a watcher that is there misses the server.
func (m *Machine) doubted(s *server) bool {
	return slices.ContainsFunc(m.watchers(s), func(w watcher) bool { return m.misses(w.id, s) })
}

func (m *Machine) misses(observer member.ID, s *server) bool {
	return s.sights[observer].Sight == verdict.SightDown && m.live(observer) != nil
}

// negatives lists the observers that miss the server, as far as is known now.
func (m *Machine) negatives(s *server) []member.ID {
	var ids []member.ID
	for _, w := range m.watchers(s) {
		if m.misses(w.id, s) && m.sessions[m.servers[w.id].session].selfScore == 0 {
			ids = append(ids, w.id)
		}
	}
	switch r := s.inquiry.round; {
	case r != nil:
		ids = append(ids, r.Down()...)
	case m.now.Before(s.inquiry.lastUntil):
		ids = append(ids, s.inquiry.last...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// judgeSuspicion sets or clears the suspect mark from present evidence: soft
// state, before any commit.
func (m *Machine) judgeSuspicion(s *server) {
	suspect := m.suspicious(s)
	switch {
	case suspect && s.mark == nil:
		s.inquiry.suspectSince = m.now
		if m.now.Sub(s.inquiry.firstLost) > oldDoubt {
			// An older doubt was contradicted; this is another matter.
			s.inquiry.firstLost = m.now
		}
		m.tell(s, member.Moment{Kind: "suspect", Who: "coordinator", Text: "routers are told to prefer others; missed by " + join(m.negatives(s))})
		m.marked[s.row.ID] = true
		m.publishMark(s, true)
	case !suspect && s.mark != nil:
		m.unmark(s)
	}
	if m.ring.Len() == 1 {
		if suspect {
			m.raise(alarmLastServerSilent, s.row.ID, fmt.Sprintf("%s is the only server of its pool and has fallen silent; it is kept", s.row.ID))
		} else {
			m.clearAlarm(alarmLastServerSilent, s.row.ID)
		}
	}
}

func join(ids []member.ID) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = string(id)
	}
	return strings.Join(parts, ", ")
}

func (m *Machine) suspicious(s *server) bool {
	if !m.judged(s) {
		return false
	}
	switch m.ring.Len() {
	case 1:
		return m.fellSilent(s)
	case 2:
		return len(m.negatives(s)) >= 1 && s.inquiry.proof() != verdict.ProofAlive &&
			(m.nonceUnanswered(s) || s.inquiry.lastProof == verdict.ProofSilent || m.dialUnanswered(s))
	}
	return len(m.negatives(s)) >= 2
}

// fellSilent reports whether the stream of the only member is silent: it is
// open and says nothing, or it has timed out. A FIN or RST is no silence.
func (m *Machine) fellSilent(s *server) bool {
	return m.live(s.row.ID) == nil && s.seen && (s.session != 0 || !s.lostByPeer && m.now.Sub(s.lostAt) >= silence)
}

func (m *Machine) nonceUnanswered(s *server) bool {
	sess := m.sessions[s.session]
	return sess != nil && sess.nonce != 0 && m.now.Sub(sess.nonceAt) >= pairSilence
}

func (m *Machine) dialUnanswered(s *server) bool {
	return s.inquiry.round != nil && s.inquiry.round.Dial == verdict.DialUnanswered
}

func (m *Machine) publishMark(s *server, suspect bool) {
	m.softSeq++
	mark := member.Mark{
		ID: s.row.ID, Incarnation: s.row.Incarnation, Suspect: suspect,
		Epoch: m.position.Epoch, Seq: m.softSeq, Since: s.inquiry.suspectSince,
	}
	s.mark = nil
	if suspect {
		mark.TTL = markTTL
		s.mark, s.markAt = &mark, m.now
		m.wake(m.now.Add(markTTL/3), wakeMark, string(s.row.ID), 0)
	}
	m.emit(PublishMark{mark})
}

// renewMark renews a mark while the evidence lasts.
func (m *Machine) renewMark(s *server) {
	if s.mark == nil || m.now.Sub(s.markAt) < markTTL/3 {
		return
	}
	m.judgeSuspicion(s)
	if s.mark != nil {
		m.publishMark(s, true)
	}
}

func (m *Machine) unmark(s *server) {
	m.tell(s, member.Moment{Kind: "cleared", Who: "coordinator", Text: "no longer suspect"})
	delete(m.marked, s.row.ID)
	m.publishMark(s, false)
	s.inquiry.suspectSince = time.Time{}
}
