package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// observersWanted is how many a round asks: the watchers and two witnesses;
	// observersSuspect how many once the server is suspect and its stream does not
	// prove it alive; observersMost how many at most with those in the place of
	// others. Load is shared: observerLoad is how many rounds one is asked in at a
	// time, if there are others.
	observersWanted, observersSuspect, observersMost, observerLoad = 4, 8, 12, 4
	// probeSpacing is the time between two probes of a round. An observer is done
	// with the first reply, so that a live server sees one; of a burst of loss, so
	// many are bound to see a gap.
	probeSpacing           = 10 * time.Millisecond
	leastProbes, maxProbes = 3, 50
	// ageCredit is how much of the stall tolerance the first doubt of an incident
	// may have behind it; more could be a liar's invention.
	ageCredit = 100 * time.Millisecond
	// shortestRound is the shortest time over which confirming probes go out.
	shortestRound = 150 * time.Millisecond
	// straggle is how long after its time-out a final answer may arrive; shortStraggle
	// how long the last few are waited for.
	straggle, shortStraggle = 150 * time.Millisecond, 50 * time.Millisecond
	// echoTime is how long the echo of a nonce may take before its absence speaks
	// against a server that has echoed in the round before.
	echoTime = 50 * time.Millisecond
	// pairSilence is how long a nonce may go unanswered in a pool of two before
	// the one observer's doubt makes a suspect.
	pairSilence = 150 * time.Millisecond
	// memoryOfAnswers is how long a finished round's negatives support a mark;
	// answerTime how long the next round may take to renew them.
	memoryOfAnswers = 2 * time.Second
	answerTime      = 500 * time.Millisecond
	// roundPause is the shortest time between the openings of two rounds about one
	// server, however often a watcher changes its mind.
	roundPause = 100 * time.Millisecond
	// oldDoubt is the age from which a doubt does not count as the beginning of a
	// suspicion.
	oldDoubt = 2 * time.Second
	// Bounds of the time-out for links that the observer has not measured.
	minTimeout, maxTimeout = 50 * time.Millisecond, 200 * time.Millisecond
)

// openRound asks observers, the subject itself and, in pools too small for
// witnesses, where only one observer is left, or about a claim, the coordinator's own
// network.
func (m *Machine) openRound(s *server) {
	q := &s.inquiry
	if q.tale == nil {
		m.beginIncident(s, m.now)
	}
	over := m.settings.StallTolerance
	switch {
	case s.claim != nil:
	case q.goesOn && m.now.Sub(q.next) <= roundPause:
		over /= 2
	case q.credited:
		over -= min(m.now.Sub(q.firstLost), ageCredit)
	}
	m.beginRound(s, max(over, shortestRound))
	r := q.round
	m.askObservers(s, r, observersWanted)
	if m.ring.Len() <= 3 || s.claim != nil || m.oneLeft(s) {
		m.dial(s, r)
	}
}

// beginRound opens a round in which probes go out for so long, and asks the
// subject itself.
func (m *Machine) beginRound(s *server, over time.Duration) {
	q := &s.inquiry
	m.roundSeq++
	last := m.now.Add(over)
	timeout := m.timeout(s)
	r := &verdict.Round{
		ID: m.roundSeq, Subject: s.row.ID, Incarnation: s.row.Incarnation,
		Opened: m.now, LastProbe: last, Enough: last.Add(timeout + shortStraggle), Deadline: last.Add(timeout + straggle),
	}
	q.round, q.opened, q.credited = r, m.now, false
	m.rounds[r.ID] = s
	m.count(CountRound)
	m.tell(s, member.Moment{Kind: "round", Round: r.ID, Who: "coordinator", Text: fmt.Sprintf("up to %d probes each over %v", m.probes(s, over), over.Round(time.Millisecond))})
	if sess := m.sessions[s.session]; sess != nil {
		m.challenge(sess)
	} else if m.fellSilent(s) {
		r.StreamSilent()
	}
	for _, at := range []time.Time{m.now.Add(echoTime), m.now.Add(pairSilence), m.now.Add(verdict.ReplaceAfter), r.Enough, r.Deadline} {
		m.wake(at, wakeRound, "", r.ID)
	}
}

// probes is how many an observer sends over that time; few to a server of which is
// known that something eats them.
func (m *Machine) probes(s *server, over time.Duration) int {
	if m.filtered[s.row.ID] {
		return leastProbes
	}
	return min(max(int(over/probeSpacing), leastProbes), maxProbes)
}

// askObservers asks the watchers, those who have reached the server in the present
// incident, and as many witnesses as make up wanted. Of those who were overruled
// about the server nobody is asked.
func (m *Machine) askObservers(s *server, r *verdict.Round, wanted int) {
	q := &s.inquiry
	for _, w := range m.watchers(s) {
		if !r.Second && m.live(w.id) != nil && !q.overruled[w.id] && !slices.Contains(r.Observers(), w.id) {
			m.ask(s, r, w)
		}
	}
	for _, id := range sortedKeys(q.reachers) {
		// A muted one, too: its positives count.
		if !r.Second && len(r.Observers()) < observersMost && m.live(id) != nil && !q.overruled[id] && !slices.Contains(r.Observers(), id) {
			m.ask(s, r, watcher{id, RoleWitness})
		}
	}
	for m.trusted(r.Observers()) < wanted && len(r.Observers()) < observersMost && m.askWitness(s, r) {
	}
}

// trusted counts those whose negatives count.
func (m *Machine) trusted(observers []member.ID) int {
	n := 0
	for _, id := range observers {
		if m.trusts(id) {
			n++
		}
	}
	return n
}

// askWitness asks one more and reports whether there is one.
func (m *Machine) askWitness(s *server, r *verdict.Round) bool {
	q := &s.inquiry
	except := append(r.Observers(), sortedKeys(q.overruled)...)
	if r.Second {
		except = append(except, q.asked...)
	}
	id, ok := m.drawObserver(s, except)
	if ok {
		m.ask(s, r, watcher{id, RoleWitness})
	}
	return ok
}

// mostObservers is how many may be asked in a round: the first leaves some for a
// second one where there are enough.
func (m *Machine) mostObservers(r *verdict.Round) int {
	if others := m.ring.Len() - 1; !r.Second && others >= observersWanted+verdict.FreshNeeded {
		return min(observersMost, others-verdict.FreshNeeded)
	}
	return observersMost
}

// reinforce asks more observers about a server that has become suspect, but
// leaves some for a second round. They probe to the end of the round only: those
// before them must have begun when it did.
func (m *Machine) reinforce(s *server) {
	r := s.inquiry.round
	if r == nil || len(r.Observers()) == 0 || r.Proof() == verdict.ProofAlive || r.LastProbe.Sub(m.now) < shortestRound {
		return
	}
	m.askObservers(s, r, min(observersSuspect, m.ring.Len()-1-verdict.FreshNeeded))
}

func (m *Machine) ask(s *server, r *verdict.Round, w watcher) {
	sess := m.live(w.id)
	if sess == nil {
		return
	}
	m.servers[w.id].load++
	r.Ask(w.id, m.now)
	over := max(r.LastProbe.Sub(m.now), shortestRound)
	m.emit(Ask{
		Session: sess.id, Round: r.ID, Subject: m.subject(s, w.role), Probes: m.probes(s, over),
		Over: over, Timeout: m.timeout(s), Connect: m.connects(s),
	})
	m.tell(s, member.Moment{Kind: "asked", Round: r.ID, Who: string(w.id), Role: roleName(w.role)})
}

func roleName(r Role) string {
	if r == RoleFirst || r == RoleSecond {
		return "buddy"
	}
	return r.String()
}

// timeout is for observers that have not measured the link: from what the
// subject's buddies see.
func (m *Machine) timeout(s *server) time.Duration {
	if s.rtt == 0 {
		return maxTimeout
	}
	return min(max(4*s.rtt, minTimeout), maxTimeout)
}

// dial asks for TCP connects from the coordinator itself.
func (m *Machine) dial(s *server, r *verdict.Round) {
	s.inquiry.dialing = true
	m.emit(Dial{Round: r.ID, Addresses: m.connects(s), Timeout: r.LastProbe.Sub(m.now)})
}

// connects lists where to connect to a server by TCP: its endpoints over TCP, and
// its probe addresses on their ports, or on discardPort where it has none. Any answer,
// also a refusal, proves a kernel.
func (m *Machine) connects(s *server) []string {
	var targets []string
	ports := map[uint16]bool{}
	for _, e := range s.row.Spec.Endpoints {
		if !e.OverTCP() {
			continue
		}
		digits := e.Address[strings.LastIndexByte(e.Address, ':')+1:]
		if port, err := strconv.ParseUint(digits, 10, 16); err == nil {
			ports[uint16(port)] = true
		}
		if _, err := netip.ParseAddrPort(e.Address); err == nil {
			targets = append(targets, e.Address)
		}
	}
	if s.row.Spec.Probe.Method == member.ProbeTCP {
		ports[s.row.Spec.Probe.Port] = true
	}
	if len(ports) == 0 {
		ports[discardPort] = true
	}
	for _, a := range s.row.Spec.ProbeAddresses {
		for port := range ports {
			targets = append(targets, netip.AddrPortFrom(a, port).String())
		}
	}
	slices.Sort(targets)
	targets = slices.Compact(targets)
	return targets[:min(len(targets), connectsMost)]
}

// connectsMost bounds the connects of one observer.
const connectsMost = 16

// discardPort is the port to connect to where a server has none: a live host
// refuses.
const discardPort = 9

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
	if sess == nil || m.lossAnswer(sess, in) {
		return
	}
	s := m.rounds[in.Round]
	if s == nil {
		m.lateAnswer(sess, in)
		return
	}
	if in.Subject != s.row.ID || in.Incarnation != s.row.Incarnation ||
		!s.inquiry.round.Answer(sess.hello.ID, verdict.Answer{At: m.now, Evidence: in.Evidence, Final: in.Final, SelfScore: in.SelfScore}) {
		m.count(CountDropped)
		return
	}
	e := in.Evidence
	text := e.Trouble
	switch {
	case e.Connect == verdict.ConnectAnswered:
		text = "no reply to its probes, but its TCP connect was answered"
	case e.Sight == verdict.SightDown && in.SelfScore > 0:
		text = "not counted: it does not trust itself"
	case e.Sight == verdict.SightDown && in.Final && m.now.Before(s.inquiry.round.LastProbe):
		text = "not counted: it came before its last probe was due"
	case !in.Final:
		text = "first probe lost"
	}
	m.tell(s, member.Moment{
		Kind: "answer", Round: in.Round, Who: string(sess.hello.ID), Result: e.Sight.String(),
		Sent: e.Sent, Lost: e.Lost, RTT: e.RTT, Text: text,
	})
	if e.Sight == verdict.SightUp {
		m.reach(s, sess.hello.ID)
	}
	m.progress(s)
}

// lateAnswer hears an answer to a round that is over. It is dropped, but while the
// verdict of that round waits, a reply is a sign of life, unless the observer had
// answered in time.
func (m *Machine) lateAnswer(sess *session, in Answer) {
	m.count(CountDropped)
	s, observer := m.servers[in.Subject], sess.hello.ID
	alive := in.Evidence.Sight == verdict.SightUp || in.Evidence.Connect == verdict.ConnectAnswered
	if !alive || s == nil || s.row.Incarnation != in.Incarnation || s.inquiry.overruled[observer] {
		return
	}
	isLate := func(r *verdict.Round) bool {
		return r != nil && r.ID == in.Round && slices.Contains(r.Mute(), observer)
	}
	q := &s.inquiry
	switch {
	case q.verdict != nil && (isLate(q.verdict.round) || isLate(q.first)):
		if !m.outvoted(s, observer) {
			m.refute(s, member.CauseCrashed, member.CauseUnreachable)
		}
	case q.round != nil && q.round.Second && isLate(q.first):
		m.noteReach(s, observer)
	}
}

// progress looks at a round after something has happened or time has passed.
func (m *Machine) progress(s *server) {
	r := s.inquiry.round
	for _, id := range r.Failing(m.now) {
		if len(r.Observers()) < m.mostObservers(r) && m.askWitness(s, r) {
			m.tell(s, member.Moment{Kind: "no_answer", Round: r.ID, Who: string(id), Text: "another is asked"})
			r.Replace(id)
		}
	}
	m.judgeSuspicion(s)
	if r.Complete(m.now, s.inquiry.dialing) {
		m.decide(s)
	}
}
