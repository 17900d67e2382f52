package pool

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// doubted reports whether a watcher that is there misses the server.
func (m *Machine) doubted(s *server) bool {
	return slices.ContainsFunc(m.watchers(s), func(w watcher) bool { return m.misses(w.id, s) })
}

func (m *Machine) misses(observer member.ID, s *server) bool {
	return s.sights.of(observer).Sight == verdict.SightDown && m.live(observer) != nil && m.servers[observer].muted.IsZero()
}

// negatives lists the observers that miss the server, as far as is known now.
func (m *Machine) negatives(s *server) []member.ID {
	var ids []member.ID
	for _, w := range m.watchers(s) {
		if m.misses(w.id, s) && m.sincere(w.id) {
			ids = append(ids, w.id)
		}
	}
	q := &s.inquiry
	if q.round != nil {
		ids = append(ids, q.round.Down()...)
	}
	if m.now.Before(q.lastUntil) {
		for _, id := range q.last {
			if q.round == nil || !q.round.Heard(id) {
				ids = append(ids, id)
			}
		}
	}
	ids = slices.DeleteFunc(ids, func(id member.ID) bool { return !m.trusts(id) })
	slices.Sort(ids)
	return slices.Compact(ids)
}

// finals lists the observers that have missed the server to the end of a round,
// the present one or the one before.
func (m *Machine) finals(s *server) []member.ID {
	q := &s.inquiry
	var ids []member.ID
	if q.round != nil {
		ids = q.round.Missing()
	}
	if m.now.Before(q.lastUntil) {
		ids = append(ids, q.last...)
	}
	ids = slices.DeleteFunc(ids, func(id member.ID) bool { return !m.trusts(id) })
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
		m.tell(s, member.Moment{Kind: "suspect", Who: "coordinator", Text: "routers are told to prefer others; " + m.suspectedBy(s)})
		m.marked[s.row.ID] = true
		m.publishMark(s, true)
		m.wake(m.now.Add(temporaryAfter), wakeSuspect, string(s.row.ID), 0)
		m.reinforce(s)
		m.sweepFor(s)
	case !suspect && s.mark != nil:
		m.unmark(s)
	}
	if suspect && m.ring.Len() == 1 {
		m.raise(alarmLastServerSilent, s.row.ID, fmt.Sprintf("%s is the only server of its pool and has fallen silent; it is kept", s.row.ID))
	} else {
		m.clearAlarm(alarmLastServerSilent, s.row.ID)
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
	if v := s.inquiry.verdict; v != nil && !v.void {
		// Whatever the verdict: it counts for the brake, and routers are to know.
		return true
	}
	switch m.ring.Len() {
	case 1:
		return m.fellSilent(s)
	case 2:
		return len(m.negatives(s)) >= 1 && m.pairSilent(s)
	}
	if len(s.loss.echoes) > 1 {
		return true
	}
	switch negatives := len(m.negatives(s)); {
	case negatives == 0 || m.reachedInRound(s):
		return false
	case negatives == 1:
		return m.oneLeft(s) && m.pairSilent(s) && s.inquiry.connectFailed()
	}
	// Two probes are lost in bad weather too; a server that has just answered itself
	// is suspect only if two observers go on missing it.
	return m.unproven(s) || len(m.finals(s)) >= 2
}

// reachedInRound reports whether two observers reach a server, in the present
// round or, if that has not told yet, in the one before.
func (m *Machine) reachedInRound(s *server) bool {
	q := &s.inquiry
	if q.round == nil {
		return q.acquitted
	}
	return len(q.round.Reaching()) >= 2 || q.acquitted && m.now.Before(q.round.LastProbe)
}

func (m *Machine) suspectedBy(s *server) string {
	if ids := m.negatives(s); len(ids) > 0 {
		return "missed by " + join(ids)
	}
	return "its watchers lose many of their probes"
}

// fellSilent reports whether a member's stream is silent: it is open and says
// nothing, or it has timed out. A FIN or RST is no silence, and a stream that
// was never seen in this epoch is unknown.
func (m *Machine) fellSilent(s *server) bool {
	return m.live(s.row.ID) == nil && s.seen && (s.session != 0 || !s.lostByPeer && m.now.Sub(s.lostAt) >= silence)
}

// pairSilent reports whether the silence that a pool of two wants beside its one
// observer is there: that of the stream, or that of the connect.
func (m *Machine) pairSilent(s *server) bool {
	q := &s.inquiry
	switch {
	case q.proof() == verdict.ProofAlive:
		return false
	case m.nonceUnanswered(s), q.round != nil && q.round.Dial == verdict.DialUnanswered:
		return true
	}
	// The present round has yet to tell: as it was in the one before.
	return q.lastProof == verdict.ProofSilent || q.lastProof == verdict.ProofAbsent && q.lastDial == verdict.DialUnanswered
}

// connectFailed reports whether the coordinator's own connect was not answered, in the
// present round or, if that has not told yet, in the one before.
func (q *inquiry) connectFailed() bool {
	if q.round != nil && q.round.Dial != verdict.DialNone {
		return q.round.Dial == verdict.DialUnanswered
	}
	return q.lastDial == verdict.DialUnanswered
}

func (m *Machine) nonceUnanswered(s *server) bool {
	sess := m.sessions[s.session]
	return sess != nil && sess.nonce != 0 && m.now.Sub(sess.nonceAt) >= pairSilence
}

func (m *Machine) publishMark(s *server, suspect bool) {
	m.softSeq++
	mark := member.Mark{
		ID: s.row.ID, Incarnation: s.row.Incarnation, Suspect: suspect, ServiceDown: s.health.down,
		Epoch: m.position.Epoch, Seq: m.softSeq, Since: s.inquiry.suspectSince,
	}
	s.mark, s.markAt = nil, m.now
	if suspect || s.health.down {
		mark.TTL = markTTL
		m.wake(m.now.Add(markTTL/3), wakeMark, string(s.row.ID), 0)
	}
	if suspect {
		s.mark = &mark
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
	// While it was suspect, nothing was said about its agent.
	m.wake(m.now, wakeAbsent, string(s.row.ID), 0)
	m.available()
}
