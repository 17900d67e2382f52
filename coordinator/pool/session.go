package pool

import (
	"hash/fnv"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// from returns the member for which a stream speaks, with the stream; nil for
// any other stream, whose input is counted and dropped.
func (m *Machine) from(id SessionID) (*session, *server) {
	if sess := m.sessions[id]; sess != nil {
		if s := m.servers[sess.hello.ID]; s != nil && s.session == id {
			return sess, s
		}
	}
	m.count(CountDropped)
	return nil, nil
}

// report hears a change of what a watcher sees.
func (m *Machine) report(in Report) {
	sess, _ := m.from(in.Session)
	if sess == nil {
		return
	}
	if !m.see(sess, in.Subject, in.Incarnation, in.Evidence) {
		m.count(CountDropped)
	}
}

// see takes a watcher's view of a subject and reports whether it was one of its
// subjects, in the present incarnation.
func (m *Machine) see(sess *session, subject member.ID, inc member.Incarnation, e Evidence) bool {
	s := m.servers[subject]
	observer := sess.hello.ID
	if s == nil || s.row.Incarnation != inc || !m.watches(observer, s) {
		return false
	}
	before := s.sights[observer]
	now := sight{Evidence: e, at: m.now, firstLost: m.now.Add(-min(max(0, e.FirstLostAge), time.Hour))}
	s.sights[observer] = now
	if e.RTT > 0 {
		s.rtt = max(e.RTT, s.rtt*7/8)
	}
	switch e.Sight {
	case verdict.SightUp:
		m.good(s, observer, before.Sight)
	case verdict.SightDown:
		m.doubt(s, observer, before.Sight)
	default:
	}
	if before.Sight != e.Sight {
		m.tendWatchers(s)
	}
	m.judgeSuspicion(s)
	return true
}

// takeDigest hears everything an agent sees.
func (m *Machine) takeDigest(in Digest) {
	sess, _ := m.from(in.Session)
	if sess == nil {
		return
	}
	m.heard(sess)
	sess.digest, sess.selfScore = in.Subjects, in.SelfScore
	for _, d := range in.Subjects {
		m.see(sess, d.Subject, d.Incarnation, d.Evidence)
	}
}

// heard notes a sign of life from an agent's stream.
func (m *Machine) heard(sess *session) {
	wasSilent := m.now.Sub(sess.lastHeard) >= silence
	sess.lastHeard = m.now
	if wasSilent {
		m.clearAlarm(alarmAgentDown, sess.hello.ID)
		m.tendSubjects(sess.hello.ID)
	}
}

// challenge asks a stream for a round trip. Only the newest nonce counts, and
// those of the present round about its server: an echo must postdate what made
// the coordinator ask.
func (m *Machine) challenge(sess *session) {
	sess.nonce, sess.nonceAt = m.nonce(), m.now
	m.emit(Challenge{sess.id, sess.nonce})
	m.wake(m.now.Add(proofTime), wakeStream, "", uint64(sess.id))
	s := m.servers[sess.hello.ID]
	if s == nil || s.session != sess.id || s.inquiry.round == nil {
		return
	}
	s.inquiry.round.Challenge(sess.nonce)
	m.tell(s, member.Moment{Kind: "nonce", Round: s.inquiry.round.ID, Who: "coordinator", Role: "coordinator"})
}

// echo hears the answer to a challenge: the only proof of life by stream.
func (m *Machine) echo(in Echo) {
	sess, s := m.from(in.Session)
	if sess == nil {
		return
	}
	r := s.inquiry.round
	newest, ofRound := in.Nonce == sess.nonce && in.Nonce != 0, r != nil && r.Echo(in.Nonce)
	if !newest && !ofRound {
		m.count(CountDropped)
		return
	}
	m.heard(sess)
	moment := member.Moment{Kind: "nonce_echo", Who: string(s.row.ID), Role: "subject"}
	if newest {
		moment.RTT = m.now.Sub(sess.nonceAt)
		sess.nonce, sess.provenAt = 0, m.now
		m.refuseRival(sess)
	}
	m.contradict(s)
	if ofRound {
		moment.Round = r.ID
		m.tell(s, moment)
		m.progress(s)
	}
	m.judgeSuspicion(s)
}

// refuseRival refuses whoever waited for a stream to prove itself.
func (m *Machine) refuseRival(holder *session) {
	rival := holder.rival
	holder.rival = nil
	if m.open(rival) {
		m.refuseTwin(rival, holder.hello.Peer)
	}
}

// lookStream looks whether a stream has left a challenge unanswered for which a
// rival waits, or has fallen silent.
func (m *Machine) lookStream(sess *session) {
	if rival := sess.rival; rival != nil && sess.nonce != 0 && m.now.Sub(sess.nonceAt) >= proofTime {
		sess.rival = nil
		if s := m.servers[sess.hello.ID]; s != nil && m.open(rival) {
			m.identify(s, rival)
		}
	}
	s := m.servers[sess.hello.ID]
	if s == nil || s.session != sess.id || m.now.Before(sess.lookAt) {
		return
	}
	if silentAt := sess.lastHeard.Add(silence); m.now.Before(silentAt) {
		m.lookAgain(sess, silentAt)
		return
	}
	m.challenge(sess)
	m.missFrom(s, sess.lastHeard.Add(silence))
	m.lookAbsent(s)
	m.lookAgain(sess, m.now.Add(silence))
}

// lookAgain arranges for the next look for silence; there is one at a time.
func (m *Machine) lookAgain(sess *session, at time.Time) {
	sess.lookAt = at
	m.wake(at, wakeStream, "", uint64(sess.id))
}

// lookAbsent looks at a member that may have no live stream.
func (m *Machine) lookAbsent(s *server) {
	id := s.row.ID
	joining := s.row.Phase == member.PhaseJoining
	if joining && !s.reached && m.now.Sub(s.row.Since) >= joinPatience {
		m.raise(alarmNotJoining, id, m.waitingFor(s))
	}
	if m.live(id) != nil {
		return
	}
	absent := m.now.Sub(m.absentSince(s))
	if absent >= temporaryAfter {
		m.tendSubjects(id)
	}
	if absent >= agentDownAfter && !m.warming && s.mark == nil {
		m.raise(alarmAgentDown, id, string(id)+" has no agent stream; its host answers its buddies as far as they can tell")
	}
	if joining && absent >= joinPatience && !m.warming {
		m.queue = append(m.queue, item{abandon: id})
	}
	m.judgeSuspicion(s)
}

// absentSince is since when a member without a live stream has had none.
func (m *Machine) absentSince(s *server) time.Time {
	if sess := m.sessions[s.session]; sess != nil {
		return sess.lastHeard.Add(silence)
	}
	return s.lostAt
}

func (m *Machine) assignmentAck(in AssignmentAck) {
	sess, _ := m.from(in.Session)
	if sess == nil || in.Seq > sess.assigned.Seq || in.Seq < sess.acked {
		return
	}
	sess.acked = in.Seq
	if in.Seq == sess.assigned.Seq {
		sess.ackedSubjects = subjectIDs(sess.assigned.Subjects)
	}
}

func subjectIDs(subjects []Subject) []member.ID {
	ids := make([]member.ID, len(subjects))
	for i, s := range subjects {
		ids[i] = s.ID
	}
	return ids
}

// leave hears a normal shutdown (R12).
func (m *Machine) leave(in Leave) {
	sess := m.sessions[in.Session]
	if sess == nil || !sess.accepted {
		m.count(CountDropped)
		return
	}
	m.queue = append(m.queue, item{leave: &in})
}

// assignment is whom a member watches, under a new sequence number.
func (m *Machine) assignment(id member.ID) Assignment {
	m.assignSeq++
	a := Assignment{Revision: m.position.Revision, Seq: m.assignSeq, Subjects: m.subjects(id), Interval: m.settings.ProbeInterval}
	if len(m.servers) == 2 {
		a.Interval /= 2
	}
	return a
}

func (m *Machine) subjects(id member.ID) []Subject {
	s := m.servers[id]
	if s == nil || s.row.First == "" {
		return nil
	}
	subjects := []Subject{m.subject(m.servers[s.row.First], RoleFirst)}
	if s.row.Second != s.row.First {
		subjects = append(subjects, m.subject(m.servers[s.row.Second], RoleSecond))
	}
	for _, t := range sortedKeys(m.helping[id]) {
		if o := m.servers[t]; o != nil && t != s.row.First && t != s.row.Second {
			subjects = append(subjects, m.subject(o, RoleTemporary))
		}
	}
	return subjects
}

// subject tells a watcher whom to probe. Its two watchers probe half a period
// apart: the offset is a hash of the subject, and half a period more for the
// second.
func (m *Machine) subject(s *server, role Role) Subject {
	h := fnv.New64a()
	h.Write([]byte(s.row.ID))
	period := m.settings.ProbeInterval
	offset := time.Duration(h.Sum64() % uint64(period))
	if role == RoleSecond {
		offset = (offset + period/2) % period
	}
	return Subject{
		ID: s.row.ID, Incarnation: s.row.Incarnation, Addresses: s.row.Spec.ProbeAddresses,
		Probe: s.row.Spec.Probe, Role: role, PhaseOffset: offset,
	}
}

// reassign sends the assignments that have changed.
func (m *Machine) reassign() {
	for _, id := range sortedKeys(m.stale) {
		delete(m.stale, id)
		s := m.servers[id]
		if s == nil {
			continue
		}
		sess := m.sessions[s.session]
		if sess == nil {
			continue
		}
		next := m.assignment(id)
		if sess.assigned.Interval == next.Interval && slices.EqualFunc(sess.assigned.Subjects, next.Subjects, equalSubject) {
			continue
		}
		sess.assigned = next
		m.emit(Assign{sess.id, next})
	}
}

func equalSubject(a, b Subject) bool {
	return a.ID == b.ID && a.Incarnation == b.Incarnation && slices.Equal(a.Addresses, b.Addresses) &&
		a.Probe == b.Probe && a.Role == b.Role && a.PhaseOffset == b.PhaseOffset
}

// tendSubjects looks at the temporary watchers of those whom a member watches,
// after its stream has come or gone.
func (m *Machine) tendSubjects(id member.ID) {
	s := m.servers[id]
	if s == nil {
		return
	}
	for _, subject := range append([]member.ID{s.row.First, s.row.Second}, sortedKeys(m.helping[id])...) {
		if o := m.servers[subject]; o != nil {
			m.tendWatchers(o)
		}
	}
}

// tendWatchers gives a member a temporary watcher for each buddy that cannot
// watch it, and takes it away again. It looks again while it finds none.
func (m *Machine) tendWatchers(s *server) {
	buddies := slices.Compact([]member.ID{s.row.Second, s.row.First})
	for absent, helper := range s.temporary {
		needed := slices.Contains(buddies, absent) && m.cannotWatch(absent, s)
		if !needed || m.live(helper) == nil || slices.Contains(buddies, helper) {
			m.dismiss(s, absent)
		}
	}
	if m.warming || m.ring.Len() <= len(buddies)+1 {
		return
	}
	for _, buddy := range buddies {
		if _, has := s.temporary[buddy]; has || !m.cannotWatch(buddy, s) {
			continue
		}
		if helper, ok := m.drawObserver(s, nil); ok {
			m.employ(s, buddy, helper)
		} else if !s.tendAt.After(m.now) {
			s.tendAt = m.now.Add(temporaryAfter)
			m.wake(s.tendAt, wakeWatchers, string(s.row.ID), 0)
		}
	}
}

// cannotWatch reports whether a buddy has had no live stream for a while, or
// says itself that it cannot judge.
func (m *Machine) cannotWatch(buddy member.ID, s *server) bool {
	if m.live(buddy) == nil {
		b := m.servers[buddy]
		return b != nil && m.now.Sub(m.absentSince(b)) >= temporaryAfter
	}
	return s.sights[buddy].Sight == verdict.SightCannotJudge
}

// employ makes helper watch a member in the place of absent.
func (m *Machine) employ(s *server, absent, helper member.ID) {
	s.temporary[absent] = helper
	if m.helping[helper] == nil {
		m.helping[helper] = map[member.ID]bool{}
	}
	m.helping[helper][s.row.ID] = true
	m.stale[helper] = true
}

// dismiss ends what employ began.
func (m *Machine) dismiss(s *server, absent member.ID) {
	helper := s.temporary[absent]
	delete(s.temporary, absent)
	if !m.watches(helper, s) {
		delete(s.sights, helper)
	}
	delete(m.helping[helper], s.row.ID)
	if len(m.helping[helper]) == 0 {
		delete(m.helping, helper)
	}
	m.stale[helper] = true
}

// drawObserver draws a member with a live stream that is not the subject, does
// not watch it, is not suspect and not in except; from another rack if one of a
// few draws is.
func (m *Machine) drawObserver(s *server, except []member.ID) (member.ID, bool) {
	var fallback member.ID
	for range 16 {
		id, ok := m.ring.Choose(m.random.Uint64())
		if !ok {
			break
		}
		if !m.mayObserve(id, s, except) {
			continue
		}
		if o := m.servers[id].row.Spec; o.Rack == "" || o.Rack != s.row.Spec.Rack || o.Zone != s.row.Spec.Zone {
			return id, true
		}
		fallback = id
	}
	if fallback == "" && m.ring.Len() <= 64 {
		for _, id := range m.ring.Order() {
			if m.mayObserve(id, s, except) {
				return id, true
			}
		}
	}
	return fallback, fallback != ""
}

func (m *Machine) mayObserve(id member.ID, s *server, except []member.ID) bool {
	sess := m.live(id)
	return sess != nil && sess.selfScore == 0 && id != s.row.ID && m.servers[id].mark == nil &&
		!m.watches(id, s) && !slices.Contains(except, id)
}
