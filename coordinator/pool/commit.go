package pool

import (
	"fmt"
	"slices"
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
	if c.Delete != nil {
		m.deleted(b)
		return
	}
	m.position.Revision = c.Revision()
	m.guard.standing = nil
	m.applyPool(b)
	b.draft.Apply()
	left := m.applyRemovals(b)
	m.applyRows(c.Put)
	m.written(c)
	m.emit(Publish{c})
	m.tellStandings(c)
	for _, o := range b.then {
		if o.committed != nil {
			o.committed()
		}
	}
	for _, r := range c.Remove {
		if sess := left[r.ID]; m.open(sess) && !sess.left {
			removed := &member.RemovedError{ID: r.ID, Incarnation: r.Incarnation, Cause: r.Cause}
			m.refuse(sess, fmt.Errorf("%w at revision %d; say hello anew", removed, c.Revision()))
		}
	}
	m.afterRing(c)
	m.resettle()
	again := m.greetAgain
	m.greetAgain = nil
	for _, sess := range again {
		if m.open(sess) {
			m.greet(sess)
		}
	}
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
		m.keepIntent(i)
		m.wake(m.now, wakeAgain, string(i.ID), 0)
	}
	for _, id := range c.Forget {
		delete(m.intents, id)
		m.wake(m.now, wakeAgain, string(id), 0)
	}
	for _, d := range c.Departed {
		m.keepDeparted(d)
	}
	for _, q := range c.Requests {
		m.keepRequest(q)
	}
}

// applyRemovals forgets the members that are gone and returns their streams.
func (m *Machine) applyRemovals(b *batch) map[member.ID]*session {
	left := map[member.ID]*session{}
	for _, r := range b.change.Remove {
		s := m.servers[r.ID]
		if s == nil {
			continue
		}
		m.tell(s, member.Moment{Kind: "committed", Who: actorSelf, Text: fmt.Sprintf("revision %d", b.change.Revision())})
		done := *b.why[r.ID]
		if s.inquiry.tale != nil {
			done.Timeline = s.inquiry.tale.moments
		}
		m.log(done, b.change.Revision())
		if sess := m.sessions[s.session]; sess != nil {
			left[r.ID] = sess
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
	m.endLoss(s)
	m.unfilter(id)
	for absent := range s.temporary {
		m.dismiss(s, absent)
	}
	for _, subject := range sortedKeys(m.helping[id]) {
		m.resign(m.servers[subject], id)
	}
	if s.seen {
		m.back--
	}
	delete(m.marked, id)
	delete(m.confirmed, id)
	delete(m.due, id)
	delete(m.uncovered, id)
	delete(m.stale, id)
	for _, stop := range []string{"", "brake", "zone_brake", "floor"} {
		delete(m.noted, noteKey{id, stop})
	}
	delete(m.ailing, id)
	m.fill(&s.row, -1)
	delete(m.servers, id)
	delete(m.guard.released, id)
	delete(m.yielding, id)
	for _, name := range []string{alarmAgentDown, alarmLastServerSilent, alarmUnreached, alarmNotJoining, alarmObserverMuted, alarmAgentStateUnsaved, alarmServiceDown} {
		m.clearAlarm(name, id)
	}
	if m.open(s.claim) {
		m.awaitRow(s.claim)
	}
}

// resign takes a helper that leaves from a member that it watched.
func (m *Machine) resign(s *server, helper member.ID) {
	for absent, h := range s.temporary {
		if h == helper {
			m.dismiss(s, absent)
			m.wake(m.now, wakeWatchers, string(s.row.ID), 0)
		}
	}
}

func (m *Machine) applyRows(rows []member.Server) {
	for _, row := range rows {
		s := m.servers[row.ID]
		if s == nil {
			m.adopt(row)
			continue
		}
		before := s.row
		m.fill(&s.row, -1)
		s.row = row
		m.fill(&s.row, 1)
		switch {
		case before.Incarnation != row.Incarnation:
			s.mark, s.untold = nil, false
			m.stays(s, row.InstanceID)
			m.renew(s)
			m.assumeHealth(s)
		case before.Spec.Probe != row.Spec.Probe || !slices.Equal(before.Spec.ProbeAddresses, row.Spec.ProbeAddresses):
			if s.mark != nil {
				m.unmark(s)
			}
			m.renew(s)
		}
		switch {
		case row.Phase == before.Phase:
		case row.Phase == member.PhaseJoining:
			m.wake(m.now.Add(joinPatience), wakeAbsent, string(row.ID), 0)
		case before.Phase == member.PhaseJoining:
			m.clearAlarm(alarmNotJoining, row.ID)
		}
	}
}

// renew forgets the evidence about an earlier incarnation, or another address.
func (m *Machine) renew(s *server) {
	if s.inquiry.round != nil {
		m.endRound(s)
	}
	m.endLoss(s)
	m.unfilter(s.row.ID)
	m.unmute(s)
	delete(m.guard.released, s.row.ID)
	s.condemned, s.sweptAt = time.Time{}, time.Time{}
	s.inquiry, s.bad = inquiry{}, nil
	s.sights, s.rtt, s.reached = nil, 0, false
	delete(m.marked, s.row.ID)
	delete(m.confirmed, s.row.ID)
	m.clearAlarm(alarmUnreached, s.row.ID)
	if s.claim != nil {
		m.greetAgain = append(m.greetAgain, s.claim)
		s.claim = nil
	}
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
		s.sights = slices.DeleteFunc(s.sights, func(seen watcherSight) bool {
			over := !m.watches(seen.by, s)
			if over {
				delete(s.bad, seen.by)
			}
			return over
		})
		m.judgeLoss(s, nil)
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

// joined welcomes the session of a new row or incarnation. If it has ended
// meanwhile, a stream of the incarnation before is over all the same.
func (m *Machine) joined(sess *session) {
	s := m.servers[sess.hello.ID]
	delete(m.yielding, sess.hello.ID)
	if m.open(sess) {
		m.attach(s, sess, false)
	} else if old := m.sessions[s.session]; old != nil {
		m.refuse(old, fmt.Errorf("another run of %s took its place at revision %d; say hello again: %w", s.row.ID, m.position.Revision, member.ErrStale))
	}
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
	m.notes = m.notes[:min(len(m.notes), notesLimit)]
	if len(m.notes) > 0 {
		// By themselves they are no reason to press a database that fails.
		m.notesAt = m.now.Add(noteDelay)
		m.wake(m.notesAt, wakePropose, "", 0)
	}
	m.fail(b, in.Err)
	again := m.greetAgain
	m.greetAgain = nil
	for _, sess := range again {
		if m.open(sess) {
			m.refuse(sess, fmt.Errorf("join %s: %w", sess.hello.ID, in.Err))
		}
	}
	for _, id := range sortedKeys(b.gone) {
		if s := m.servers[id]; s.inquiry.verdict != nil && s.inquiry.verdict.void {
			m.withdraw(s)
		}
		m.wake(m.now, wakeAgain, string(id), 0)
	}
}

func (m *Machine) fail(b *batch, err error) {
	for _, o := range b.then {
		if o.rejected != nil {
			o.rejected(err)
		}
	}
}

// fenced ends the machine: another leader exists. Everybody who waits is told.
func (m *Machine) fenced() {
	if m.flight != nil {
		m.fail(m.flight, &member.NotLeaderError{})
	}
	m.end(&member.NotLeaderError{}, func(*session) error { return &member.NotLeaderError{} })
}
