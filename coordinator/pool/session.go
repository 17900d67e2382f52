package pool

import (
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
	if !m.see(sess, SubjectDigest{in.Subject, in.Incarnation, in.Evidence, in.LostOfTen}) {
		m.count(CountDropped)
	}
}

// see takes a watcher's view of a subject and reports whether it was one of its
// subjects, in the present incarnation.
func (m *Machine) see(sess *session, d SubjectDigest) bool {
	s, e := m.servers[d.Subject], d.Evidence
	observer := sess.hello.ID
	if s == nil || s.row.Incarnation != d.Incarnation || !m.watches(observer, s) {
		return false
	}
	before := s.sights.of(observer)
	now := sight{Evidence: e, firstLost: m.now.Add(-min(max(0, e.FirstLostAge), time.Hour)), lossy: before.lossy}
	if before.Sight == e.Sight && before.firstLost.Before(now.firstLost) {
		// A run of losses does not get younger.
		now.firstLost = before.firstLost
	}
	switch {
	case d.LostOfTen <= verdict.LossyUntil:
		now.lossy = false
	case d.LostOfTen >= verdict.LossyFrom:
		now.lossy = true
	}
	s.sights.put(observer, now)
	if e.RTT > 0 {
		s.rtt = max(min(e.RTT, time.Second), s.rtt*7/8)
	}
	switch e.Sight {
	case verdict.SightUp:
		m.mendEdge(s, observer)
		m.good(s, observer, before.Sight)
	case verdict.SightDown:
		m.doubt(s, observer, before.Sight)
	case verdict.SightCannotJudge, verdict.SightUnknown:
	}
	if before.Sight != e.Sight {
		m.tendWatchers(s)
	}
	m.judgeLoss(s, nil)
	m.judgeSuspicion(s)
	return true
}

// takeDigest hears everything an agent sees.
func (m *Machine) takeDigest(in Digest) {
	sess, s := m.from(in.Session)
	if sess == nil {
		return
	}
	m.heard(sess)
	m.lookState(s, in.StateTrouble)
	m.digestHealth(s, in.Health)
	bereft := in.isBereft()
	if sess.selfScore > 0 && in.SelfScore == 0 || bereft && !sess.bereft {
		m.available()
	}
	sess.digest, sess.selfScore, sess.bereft = in.Subjects, in.SelfScore, bereft
	for _, d := range in.Subjects {
		m.see(sess, d)
	}
}

// heard notes a sign of life from an agent's stream.
func (m *Machine) heard(sess *session) {
	wasSilent := m.now.Sub(sess.lastHeard) >= silence
	sess.lastHeard = m.now
	if wasSilent {
		m.clearAlarm(alarmAgentDown, sess.hello.ID)
		m.tendSubjects(sess.hello.ID)
		m.available()
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
		if s.loss.echo == verdict.EchoMissing {
			s.loss.echo = moment.RTT
		}
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

// lookRival lets a rival have the name if the stream has left the challenge
// unanswered, or holds the name no more.
func (m *Machine) lookRival(sess *session) {
	rival := sess.rival
	if !m.open(rival) || sess.nonce != 0 && m.now.Sub(sess.nonceAt) < proofTime {
		return
	}
	sess.rival = nil
	if s := m.servers[sess.hello.ID]; s != nil && s.session == sess.id {
		m.identify(s, rival)
	} else {
		m.greet(rival)
	}
}

// lookStream looks whether a stream has left a challenge unanswered for which a
// rival waits, or has fallen silent.
func (m *Machine) lookStream(sess *session) {
	m.lookRival(sess)
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
	if joining && !s.reached && !m.warming && m.now.Sub(s.row.Since) >= joinPatience {
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
		m.raise(alarmAgentDown, id, string(id)+" has no agent stream; "+m.hostText(s))
	}
	if joining && absent >= joinPatience && !m.warming {
		m.queue = append(m.queue, item{abandon: id})
	}
	m.judgeSuspicion(s)
}

// hostText says what is known of the host of a member without a stream.
func (m *Machine) hostText(s *server) string {
	if m.filtered[s.row.ID] {
		return "its host answers TCP, but no probe"
	}
	for _, w := range m.watchers(s) {
		if m.able(w.id) && s.sights.of(w.id).Sight == verdict.SightUp {
			return "its host answers its buddies as far as they can tell"
		}
	}
	return "none of its buddies can say that its host answers"
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
