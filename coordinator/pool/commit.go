package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// committed makes the change under way true: rows, then publications, then
// replies and assignments.
func (m *Machine) committed(in Committed) {
	b := m.flight
	if b == nil || b.change.ID != in.ChangeID {
		return
	}
	m.flight = nil
	c := b.change
	m.position.Revision = c.Revision()
	m.applyPool(b)
	b.draft.Apply()
	left := m.applyRemovals(b)
	m.applyRows(c.Put)
	m.emit(Publish{c})
	for _, o := range b.then {
		o.committed()
	}
	for _, sess := range left {
		if m.sessions[sess.id] != nil {
			m.refuse(sess, fmt.Errorf("%s was removed at revision %d; say hello again: %w", sess.hello.ID, c.Revision(), member.ErrStale))
		}
	}
	m.afterRing(c)
	for _, sess := range b.helloAgain {
		if m.sessions[sess.id] != nil {
			m.hello(sess.hello)
		}
	}
	m.wake(m.now, wakePropose, "", 0)
}

// applyPool takes over what is not a row.
func (m *Machine) applyPool(b *batch) {
	c := b.change
	m.reference = b.reference
	if c.Settings != nil {
		m.settings = *c.Settings
		for id := range m.servers {
			m.stale[id] = true
			m.wake(m.now, wakeAgain, string(id), 0)
		}
	}
	for _, i := range c.Intents {
		m.intents[i.ID] = i
		m.wake(m.now, wakeAgain, string(i.ID), 0)
		m.wake(i.ExpiresAt, wakeIntent, string(i.ID), 0)
	}
	for _, id := range c.Forget {
		delete(m.intents, id)
		m.wake(m.now, wakeAgain, string(id), 0)
	}
	for _, d := range c.Departed {
		m.departed[d.ID] = d
	}
	for _, q := range c.Requests {
		m.requests[q.ID] = q
		m.wake(q.At.Add(requestLife), wakeRequest, q.ID, 0)
	}
}

// applyRemovals forgets the members that are gone and returns the streams of
// those that did not leave by themselves.
func (m *Machine) applyRemovals(b *batch) []*session {
	var left []*session
	for _, r := range b.change.Remove {
		s := m.servers[r.ID]
		if s == nil {
			continue
		}
		m.tell(s, member.Moment{Kind: "committed", Who: actorSelf, Text: fmt.Sprintf("revision %d", b.change.Revision())})
		if e := b.why[r.ID]; e != nil {
			done := *e
			done.Timeline = s.inquiry.tale.moments
			m.log(done, b.change.Revision())
		}
		if sess := m.sessions[s.session]; sess != nil && r.Cause != member.CauseShutdown {
			left = append(left, sess)
		}
		m.forget(s)
	}
	return left
}

func (m *Machine) forget(s *server) {
	id := s.row.ID
	if s.inquiry.round != nil {
		m.endRound(s)
	}
	for absent := range s.temporary {
		m.dismiss(s, absent)
	}
	for subject := range m.helping[id] {
		m.stale[subject] = true
	}
	if s.seen {
		m.back--
	}
	delete(m.marked, id)
	delete(m.confirmed, id)
	delete(m.due, id)
	delete(m.stale, id)
	delete(m.noted, id)
	delete(m.servers, id)
	for _, name := range []string{alarmAgentDown, alarmLastServerSilent, alarmUnreached, alarmNotJoining} {
		m.clearAlarm(name, id)
	}
	if claim := s.claim; claim != nil && m.sessions[claim.id] != nil {
		m.queue = append(m.queue, item{join: claim})
	}
}

func (m *Machine) applyRows(rows []member.Server) {
	for _, row := range rows {
		s := m.servers[row.ID]
		if s == nil {
			s = newServer(row, m.now)
			m.servers[row.ID] = s
			m.adopted(s)
			continue
		}
		before := s.row
		s.row = row
		if before.Incarnation != row.Incarnation {
			m.renew(s)
		}
		if row.HeldUntil != before.HeldUntil {
			m.wake(row.HeldUntil, wakeHeld, string(row.ID), 0)
		}
	}
}

// renew forgets the evidence about an earlier incarnation.
func (m *Machine) renew(s *server) {
	if s.inquiry.round != nil {
		m.endRound(s)
	}
	s.inquiry = inquiry{}
	s.sights, s.rtt, s.reached = map[member.ID]sight{}, 0, false
	s.mark = nil
	delete(m.marked, s.row.ID)
	delete(m.confirmed, s.row.ID)
	m.clearAlarm(alarmUnreached, s.row.ID)
	m.adopted(s)
}

// afterRing looks after everybody whose neighbours, or whose subjects' rows,
// have changed.
func (m *Machine) afterRing(c member.Change) {
	for _, row := range c.Put {
		s := m.servers[row.ID]
		if s == nil {
			continue
		}
		for _, id := range []member.ID{row.ID, row.First, row.Second} {
			m.stale[id] = true
		}
		for _, helper := range s.temporary {
			m.stale[helper] = true
		}
		for observer := range s.sights {
			if !m.watches(observer, s) {
				delete(s.sights, observer)
			}
		}
		m.tendWatchers(s)
		m.judgeSuspicion(s)
	}
	for _, s := range m.servers {
		// A pool that has shrunk to one or two has other rules and periods.
		if m.ring.Len() > 3 {
			break
		}
		m.stale[s.row.ID] = true
		if m.ring.Len() == 1 {
			m.due[s.row.ID] = true
		}
	}
}

// joined welcomes the session of a new row or incarnation, if it is still
// there.
func (m *Machine) joined(sess *session) {
	s := m.servers[sess.hello.ID]
	if s == nil || m.sessions[sess.id] == nil || s.row.InstanceID != sess.hello.InstanceID {
		return
	}
	m.attach(s, sess, false)
}

// rejected tells those who wait that the change has not happened. What follows
// from evidence is derived again; joins, leaves and commands fail honestly.
func (m *Machine) rejected(in Rejected) {
	b := m.flight
	if b == nil || b.change.ID != in.ChangeID {
		return
	}
	m.flight = nil
	m.retryAt = m.now.Add(retryAfter)
	m.wake(m.retryAt, wakePropose, "", 0)
	m.notes = append(b.notes, m.notes...)
	for _, o := range b.then {
		if o.rejected != nil {
			o.rejected(in.Err)
		}
	}
	for _, sess := range b.helloAgain {
		if m.sessions[sess.id] != nil {
			m.refuse(sess, fmt.Errorf("join %s: %w", sess.hello.ID, in.Err))
		}
	}
	for id := range b.gone {
		if s := m.servers[id]; s != nil && s.inquiry.verdict != nil {
			m.wake(m.now, wakeAgain, string(id), 0)
		}
	}
	m.rederive()
}

// rederive queues again what the state, not a caller, asks for.
func (m *Machine) rederive() {
	for id, i := range m.intents {
		if !i.ExpiresAt.IsZero() && !m.now.Before(i.ExpiresAt) {
			m.wake(m.retryAt, wakeIntent, string(id), 0)
		}
	}
	for _, id := range sorted(keys(m.servers)) {
		s := m.servers[id]
		if s.row.Phase == member.PhaseJoining && s.session == 0 {
			m.wake(m.retryAt, wakeAbsent, string(id), 0)
		}
		if sess := m.sessions[s.session]; sess != nil && sess.hello.InstanceID != s.row.InstanceID {
			m.queue = append(m.queue, item{update: sess})
		}
	}
}

// fenced ends the machine: another leader exists.
func (m *Machine) fenced() {
	m.dead = true
	for _, id := range sortedSessions(m.sessions) {
		m.emit(Refuse{id, &member.NotLeaderError{}})
	}
	for _, it := range m.queue {
		if it.call != nil {
			m.emit(Reply{Token: it.call.Token, Err: &member.NotLeaderError{}})
		}
	}
	if m.flight != nil {
		for _, o := range m.flight.then {
			if o.rejected != nil {
				o.rejected(&member.NotLeaderError{})
			}
		}
	}
	m.emit(SetTimer{time.Time{}})
}
