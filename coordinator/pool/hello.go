package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// hello opens a session.
func (m *Machine) hello(h Hello) {
	sess := &session{id: h.Session, hello: h, since: m.now, lastHeard: m.now}
	m.sessions[h.Session] = sess
	m.greet(sess)
}

// greet decides who is who: resume, adopt, join, or refuse a twin. It is asked
// again when what it has waited for has come.
func (m *Machine) greet(sess *session) {
	id := sess.hello.ID
	if removed := m.removed(sess.hello); removed != nil {
		m.refuse(sess, fmt.Errorf("resume %s: %w; say hello anew", id, removed))
		return
	}
	if i, ok := m.intents[id]; ok && i.Wish == member.WishBanned {
		m.refuse(sess, banned(i))
		return
	}
	if other := m.joining[id]; m.open(other) {
		// Another run is refused, the same run's newer stream takes its place.
		m.awaitRow(sess)
		return
	}
	if m.flight != nil && m.flight.joins[id] != nil {
		m.awaitOutcome(sess)
		return
	}
	s := m.servers[id]
	if s == nil {
		m.awaitRow(sess)
		return
	}
	if m.yields(id, sess.hello) {
		m.awaitRow(sess)
		return
	}
	if holder := m.sessions[s.session]; holder != nil && !sameRun(holder, sess) {
		m.contest(holder, sess)
		return
	}
	m.identify(s, sess)
}

// removed is how the incarnation that an agent holds was taken out, if it was
// and the agent wants to know. An incarnation without a row is over. Where there
// is a row, it may have been adopted, and only a removal that is remembered is
// one. One that is ahead of the pool is of a history that went back.
func (m *Machine) removed(h Hello) *member.RemovedError {
	if !h.TellRemoval || h.Incarnation == 0 || member.Revision(h.Incarnation) > m.position.Revision {
		return nil
	}
	if s := m.servers[h.ID]; s != nil && s.row.Incarnation == h.Incarnation {
		// It is remembered as departed when it failed while it was held, too.
		return nil
	}
	removed := &member.RemovedError{ID: h.ID, Incarnation: h.Incarnation}
	if d, ok := m.departed[h.ID]; ok && d.Incarnation == h.Incarnation {
		removed.Cause = d.Cause
	} else if m.servers[h.ID] != nil {
		return nil
	}
	return removed
}

func banned(i member.Intent) error {
	return &member.RefusedError{Rule: "intent", Reason: fmt.Sprintf("%s is banned by %s: %s", i.ID, i.Actor, i.Reason)}
}

// sameRun reports whether two sessions are of one run of one agent.
func sameRun(a, b *session) bool { return a.hello.InstanceID == b.hello.InstanceID }

// awaitRow keeps a hello for the next change, which gives it a row or a new
// incarnation of one. It takes the place of an older one of the same run; while
// another agent waits under the same name it is refused.
func (m *Machine) awaitRow(sess *session) {
	id := sess.hello.ID
	other, queued := m.joining[id]
	if m.open(other) && !sameRun(other, sess) {
		m.refuseTwin(sess, other.hello.Peer)
		return
	}
	m.joining[id] = sess
	if m.open(other) {
		m.refuse(other, errReplaced)
	}
	if !queued {
		m.queue = append(m.queue, item{join: id})
	}
}

// awaitOutcome keeps a hello until the change under way, in which its id joins,
// is through.
func (m *Machine) awaitOutcome(sess *session) {
	if other := m.flight.joins[sess.hello.ID]; m.open(other) && !sameRun(other, sess) {
		m.refuseTwin(sess, other.hello.Peer)
		return
	}
	m.greetAgain = append(m.greetAgain, sess)
}

// contest asks the holder of a name to prove itself before another agent gets
// it: if it is alive it keeps it.
func (m *Machine) contest(holder, stranger *session) {
	if rival := holder.rival; m.open(rival) {
		if !sameRun(rival, stranger) {
			m.refuseTwin(stranger, holder.hello.Peer)
			return
		}
		m.refuse(rival, errReplaced)
	}
	holder.rival = stranger
	m.challenge(holder)
}

// identify accepts a hello for an existing row when nobody proves to hold the
// name.
func (m *Machine) identify(s *server, sess *session) {
	h := sess.hello
	known := h.InstanceID == s.row.InstanceID || s.said != nil && h.InstanceID == s.said.InstanceID
	switch {
	case known, h.Incarnation == s.row.Incarnation && h.BootID == s.row.BootID:
		m.resume(s, sess)
	// A certificate proves more than the address by which the row may have come.
	case h.Identity != "" && (s.row.Identity == h.Identity || s.row.Identity == ""),
		h.Identity == "" && s.row.Identity == "" && shareAddress(h.Spec, s.row.Spec):
		m.contradict(s)
		m.awaitRow(sess)
	default:
		m.verifyClaim(s, sess)
	}
}

func shareAddress(a, b member.Spec) bool {
	return slices.ContainsFunc(a.ProbeAddresses, func(addr netip.Addr) bool { return slices.Contains(b.ProbeAddresses, addr) })
}

// verifyClaim checks that the old address is dead before a stranger without
// proof takes the name over.
func (m *Machine) verifyClaim(s *server, sess *session) {
	if claim := s.claim; m.open(claim) {
		if !sameRun(claim, sess) {
			m.refuseTwin(sess, claim.hello.Peer)
			return
		}
		m.refuse(claim, errReplaced)
	}
	s.claim = sess
	if s.inquiry.round == nil && s.inquiry.verdict == nil {
		m.openRound(s)
	}
}

// settleClaim ends a claim with the outcome of a round about the old address,
// and reports whether the name goes to the claimant.
func (m *Machine) settleClaim(s *server, r *verdict.Round) bool {
	sess := s.claim
	s.claim = nil
	c := m.sum(s, r)
	switch {
	case !m.open(sess):
		return false
	case c.Up+c.Connected > 0 || c.Dial == verdict.DialAnswered || c.Proof == verdict.ProofAlive:
		m.refuseTwin(sess, addresses(s.row.Spec))
		return false
	case c.Down == 0 && (c.Dial != verdict.DialUnanswered || m.warming):
		m.refuse(sess, fmt.Errorf("accept %s at another address than %s: nobody could look yet whether the old one is alive: %w",
			s.row.ID, addresses(s.row.Spec), member.ErrUnavailable))
		return false
	}
	m.awaitRow(sess)
	return true
}

func addresses(spec member.Spec) string {
	return fmt.Sprint(spec.ProbeAddresses)
}

func (m *Machine) refuseTwin(sess *session, where string) {
	m.refuse(sess, fmt.Errorf("accept %s: a live server has that name at %s; stop it, or give this one another --id: %w",
		sess.hello.ID, where, member.ErrAlreadyExists))
}

// resume goes on with a membership as it is. What the agent says of its server
// goes into the row when a new run of the agent says it, when the same run says
// something else than before, or when the addresses differ; otherwise an
// operator's edit of the row stays.
func (m *Machine) resume(s *server, sess *session) {
	h := &sess.hello
	news := h.InstanceID != s.row.InstanceID ||
		s.said != nil && !h.Spec.Equal(s.said.Spec) ||
		!slices.Equal(h.Spec.ProbeAddresses, s.row.Spec.ProbeAddresses)
	m.attach(s, sess, true)
	if news {
		m.learn(s)
	}
}

// learn queues what an agent newly says of its server.
func (m *Machine) learn(s *server) {
	if s.untold {
		return
	}
	s.untold = true
	m.queue = append(m.queue, item{update: s.row.ID})
}

// attach makes a session the member's stream and welcomes it.
func (m *Machine) attach(s *server, sess *session, resumed bool) {
	var rival *session
	if old := m.sessions[s.session]; old != nil && old != sess {
		rival, old.rival = old.rival, nil
		m.refuse(old, errReplaced)
	}
	sess.accepted = true
	s.session, s.said = sess.id, &sess.hello
	m.stays(s, sess.hello.InstanceID)
	s.lostAt = time.Time{}
	if !s.seen {
		s.seen = true
		m.back++
	}
	m.clearAlarm(alarmAgentDown, s.row.ID)
	m.lookWarm()
	m.tendSubjects(s.row.ID)
	m.available()
	sess.assigned, sess.standing = m.assignment(s.row.ID), m.standing(s.row.ID)
	m.emit(Welcome{
		Session: sess.id, Incarnation: s.row.Incarnation, Phase: s.row.Phase, Resumed: resumed,
		Members: len(m.servers), Assignment: sess.assigned, Standing: sess.standing,
	})
	m.lookAgain(sess, m.now.Add(silence))
	m.contradict(s)
	if s.inquiry.round != nil {
		m.challenge(sess)
	}
	m.judgeSuspicion(s)
	if rival != sess && m.open(rival) {
		m.greet(rival)
	}
}

// errReplaced ends a stream in whose place the same agent has opened another.
var errReplaced = fmt.Errorf("session replaced by a newer one: %w", member.ErrStale)

// refuse ends a session from this side.
func (m *Machine) refuse(sess *session, err error) {
	m.emit(Refuse{sess.id, err})
	m.detach(sess, false)
}

// closed hears that a stream has ended.
func (m *Machine) closed(in Closed) {
	if sess := m.sessions[in.Session]; sess != nil {
		m.detach(sess, in.ByPeer)
	}
}

func (m *Machine) detach(sess *session, byPeer bool) {
	delete(m.sessions, sess.id)
	if s := m.servers[sess.hello.ID]; s != nil && s.session == sess.id {
		m.miss(s, byPeer)
	}
	if rival := sess.rival; m.open(rival) {
		sess.rival = nil
		m.greet(rival)
	}
}

// miss notes that a member has lost its stream.
func (m *Machine) miss(s *server, byPeer bool) {
	s.session, s.lostAt, s.lostByPeer = 0, m.now, byPeer
	m.missFrom(s, m.now)
	if !byPeer {
		if m.doubted(s) {
			// What was found while it had a stream is worth another look.
			s.inquiry.next = m.now
			m.wake(m.now, wakeAgain, string(s.row.ID), 0)
		}
		return
	}
	m.contradict(s)
	if r := s.inquiry.round; r != nil {
		r.KernelAlive()
		m.tell(s, member.Moment{Kind: "stream_closed", Round: r.ID, Who: string(s.row.ID), Role: "subject", Text: "the kernel closed the stream: it is alive"})
		m.progress(s)
	}
}

// lookWarm ends the warm-up when it has done its work.
func (m *Machine) lookWarm() {
	if !m.warming {
		return
	}
	if m.now.Before(m.startedAt.Add(warmUp)) && float64(m.back) < warmUpShare*float64(len(m.servers)) {
		return
	}
	m.warming = false
	for id := range m.servers {
		m.wake(m.now, wakeAbsent, string(id), 0)
	}
}
