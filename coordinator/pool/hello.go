package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// hello decides who is who: resume, adopt, join, or refuse a twin.
func (m *Machine) hello(h Hello) {
	sess := &session{id: h.Session, hello: h, since: m.now, lastHeard: m.now}
	m.sessions[h.Session] = sess
	if i, ok := m.intents[h.ID]; ok && i.Wish == member.WishBanned {
		m.refuse(sess, &member.RefusedError{Rule: "intent", Reason: fmt.Sprintf("%s is banned by %s: %s", h.ID, i.Actor, i.Reason)})
		return
	}
	if m.joiningElsewhere(sess) {
		return
	}
	s := m.servers[h.ID]
	if s == nil {
		m.queue = append(m.queue, item{join: sess})
		return
	}
	old := m.sessions[s.session]
	if old == nil || old.hello.InstanceID == h.InstanceID {
		m.identify(s, sess)
		return
	}
	// Another agent holds the name. If it is alive it keeps it.
	m.contest(old, sess)
}

// joiningElsewhere handles a hello while another one for the same id waits: the
// same agent's newer stream takes its place, another agent is refused.
func (m *Machine) joiningElsewhere(sess *session) bool {
	waiting := func(o *session) bool {
		return o != nil && o != sess && o.hello.ID == sess.hello.ID && m.sessions[o.id] != nil
	}
	for i := range m.queue {
		other := m.queue[i].join
		if !waiting(other) {
			continue
		}
		if other.hello.InstanceID != sess.hello.InstanceID {
			m.refuseTwin(sess, other.hello.Peer)
			return true
		}
		m.queue[i].join = sess
		m.refuse(other, fmt.Errorf("session replaced by a newer one: %w", member.ErrStale))
		return true
	}
	if m.flight == nil {
		return false
	}
	for _, other := range m.flight.joins {
		if !waiting(other) {
			continue
		}
		if other.hello.InstanceID != sess.hello.InstanceID {
			m.refuseTwin(sess, other.hello.Peer)
			return true
		}
		// The outcome of the change under way decides; then it is looked at again.
		m.flight.helloAgain = append(m.flight.helloAgain, sess)
		return true
	}
	return false
}

// contest asks the holder of a name to prove itself before a stranger gets it.
func (m *Machine) contest(holder, stranger *session) {
	if holder.rival != nil {
		m.refuseTwin(stranger, holder.hello.Peer)
		return
	}
	holder.rival = stranger
	m.challenge(holder)
}

// identify accepts a hello for an existing row when nobody proves to hold the
// name.
func (m *Machine) identify(s *server, sess *session) {
	h := sess.hello
	sameRun := h.InstanceID == s.row.InstanceID || h.InstanceID == s.instance
	switch {
	case sameRun, h.Incarnation == s.row.Incarnation && h.BootID == s.row.BootID:
		m.resume(s, sess)
	case h.Identity != "" && h.Identity == s.row.Identity,
		h.Identity == "" && s.row.Identity == "" && shareAddress(h.Spec, s.row.Spec):
		m.queue = append(m.queue, item{join: sess})
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
	if s.claim != nil && m.sessions[s.claim.id] != nil && s.claim.hello.InstanceID != sess.hello.InstanceID {
		m.refuseTwin(sess, s.claim.hello.Peer)
		return
	}
	if s.claim != nil && m.sessions[s.claim.id] != nil {
		m.refuse(s.claim, fmt.Errorf("session replaced by a newer one: %w", member.ErrStale))
	}
	s.claim = sess
	if s.inquiry.round == nil {
		m.openRound(s)
	}
}

// settleClaim ends a claim with the outcome of a round about the old address.
func (m *Machine) settleClaim(s *server, reached bool) {
	sess := s.claim
	s.claim = nil
	if sess == nil || m.sessions[sess.id] == nil {
		return
	}
	if reached {
		m.refuseTwin(sess, addresses(s.row.Spec))
		return
	}
	m.queue = append(m.queue, item{join: sess})
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
	h := sess.hello
	news := h.InstanceID != s.row.InstanceID ||
		s.said != nil && !h.Spec.Equal(*s.said) ||
		!slices.Equal(h.Spec.ProbeAddresses, s.row.Spec.ProbeAddresses)
	m.attach(s, sess, true)
	if news {
		m.queue = append(m.queue, item{update: sess})
	}
}

// attach makes a session the member's stream and welcomes it.
func (m *Machine) attach(s *server, sess *session, resumed bool) {
	if old := m.sessions[s.session]; old != nil && old != sess {
		m.refuse(old, fmt.Errorf("session replaced by a newer one: %w", member.ErrStale))
	}
	id := s.row.ID
	sess.accepted = true
	s.session, s.instance, s.said = sess.id, sess.hello.InstanceID, &sess.hello.Spec
	s.lostAt = time.Time{}
	if !s.seen {
		s.seen = true
		m.back++
	}
	m.clearAlarm(alarmAgentDown, id)
	m.lookWarm()
	m.tendSubjects(id)
	sess.assigned = m.assignment(id)
	m.emit(Welcome{
		Session: sess.id, Incarnation: s.row.Incarnation, Phase: s.row.Phase, Resumed: resumed,
		Members: len(m.servers), Assignment: sess.assigned,
	})
	m.lookAgain(sess, m.now.Add(silence))
	m.judgeSuspicion(s)
}

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
	if rival := sess.rival; rival != nil && m.sessions[rival.id] != nil {
		defer m.hello(rival.hello)
	}
	s := m.servers[sess.hello.ID]
	if s == nil || s.session != sess.id {
		return
	}
	s.session, s.lostAt, s.lostByPeer = 0, m.now, byPeer
	if r := s.inquiry.round; r != nil && byPeer {
		r.KernelAlive()
		m.tell(s, member.Moment{Kind: "stream_closed", Round: r.ID, Who: string(s.row.ID), Role: "subject", Text: "the kernel closed the stream: it is alive"})
		m.progress(s)
	}
	id := string(s.row.ID)
	m.wake(m.now.Add(temporaryAfter), wakeAbsent, id, 0)
	m.wake(m.now.Add(agentDownAfter), wakeAbsent, id, 0)
	m.wake(m.now.Add(silence), wakeAbsent, id, 0)
	if s.row.Phase == member.PhaseJoining {
		m.wake(m.now.Add(joinPatience), wakeAbsent, id, 0)
	}
}

// lookWarm ends the warm-up when it has done its work.
func (m *Machine) lookWarm() {
	if !m.warming {
		return
	}
	if m.now.Sub(m.startedAt) >= warmUp || float64(m.back) >= warmUpShare*float64(len(m.servers)) {
		m.warming = false
		for _, id := range sorted(keys(m.servers)) {
			m.wake(m.now, wakeAbsent, string(id), 0)
		}
	}
}

func keys(servers map[member.ID]*server) map[member.ID]bool {
	set := make(map[member.ID]bool, len(servers))
	for id := range servers {
		set[id] = true
	}
	return set
}
