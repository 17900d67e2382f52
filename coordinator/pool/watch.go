package pool

import (
	"hash/fnv"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

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
// watch it, and takes it away again.
func (m *Machine) tendWatchers(s *server) {
	delete(m.uncovered, s.row.ID)
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
		helper, ok := m.drawObserver(s, nil)
		if !ok {
			// A reply of somebody who is alive shows that one is not deaf whose own buddies
			// have all died; until then its negatives count for little.
			helper, ok = m.draw(s, nil, func(id member.ID) bool { return m.live(id).bereft && m.sincere(id) })
		}
		if ok {
			m.employ(s, buddy, helper)
		} else {
			m.uncovered[s.row.ID] = true
		}
	}
}

// available hears that somebody may help out who could not before.
func (m *Machine) available() {
	if len(m.uncovered) > 0 && !m.coverAt.After(m.now) {
		m.coverAt = m.now.Add(temporaryAfter)
		m.wake(m.coverAt, wakeUncovered, "", 0)
	}
}

// cannotWatch reports whether a buddy has had no live stream for a while, is
// suspect for as long, is not heard, misses a server that others reach, or says
// itself that it cannot judge.
func (m *Machine) cannotWatch(buddy member.ID, s *server) bool {
	b := m.servers[buddy]
	switch {
	case b == nil:
		return false
	case m.live(buddy) == nil:
		return m.now.Sub(m.absentSince(b)) >= temporaryAfter
	case b.mark != nil && m.now.Sub(b.inquiry.suspectSince) >= temporaryAfter, !b.muted.IsZero():
		return true
	}
	_, bad := s.bad[buddy]
	return bad || s.sights.of(buddy).Sight == verdict.SightCannotJudge
}

// employ makes helper watch a member in the place of absent.
func (m *Machine) employ(s *server, absent, helper member.ID) {
	if s.temporary == nil {
		s.temporary = map[member.ID]member.ID{}
	}
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
		s.sights.drop(helper)
		delete(s.bad, helper)
	}
	delete(m.helping[helper], s.row.ID)
	if len(m.helping[helper]) == 0 {
		delete(m.helping, helper)
	}
	m.stale[helper] = true
}

// drawObserver draws a member with a live stream that is not the subject, does
// not watch it, is not suspect, muted or in except, and trusts itself; one from
// another rack that is not asked too much if one of a few draws is.
func (m *Machine) drawObserver(s *server, except []member.ID) (member.ID, bool) {
	return m.draw(s, except, func(id member.ID) bool { return m.live(id).selfScore == 0 })
}

// draw draws one of those who may observe s and of whom fit is true.
func (m *Machine) draw(s *server, except []member.ID, fit func(member.ID) bool) (member.ID, bool) {
	var fallback member.ID
	for range 16 {
		id, ok := m.ring.Choose(m.random.Uint64())
		if !ok {
			break
		}
		if !m.mayObserve(id, s, except) || !fit(id) {
			continue
		}
		if m.servers[id].load >= observerLoad || m.unheard(m.servers[id]) {
			fallback = id
			continue
		}
		if o := m.servers[id].row.Spec; o.Rack == "" || o.Rack != s.row.Spec.Rack || o.Zone != s.row.Spec.Zone {
			return id, true
		}
		fallback = id
	}
	if fallback == "" && m.ring.Len() <= 64 {
		for _, id := range m.ring.Order() {
			if m.mayObserve(id, s, except) && fit(id) {
				return id, true
			}
		}
	}
	return fallback, fallback != ""
}

func (m *Machine) mayObserve(id member.ID, s *server, except []member.ID) bool {
	return m.live(id) != nil && id != s.row.ID && m.servers[id].mark == nil && m.servers[id].muted.IsZero() &&
		!m.watches(id, s) && !slices.Contains(except, id)
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
	_, _ = h.Write([]byte(s.row.ID))
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
