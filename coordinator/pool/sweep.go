package pool

import (
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

const (
	// sweepTime is how long a nonce may take in a sweep; sweepPause the shortest
	// time between two sweeps of the same members.
	sweepTime  = 150 * time.Millisecond
	sweepPause = 500 * time.Millisecond
	// sweepLimit is how long at the most, when more than half are silent.
	sweepLimit = time.Second
	// sweepWhole is the largest pool that is swept whole. In a larger one the sweep
	// begins sweepArc members to each side of a suspect and doubles while it finds
	// silent ones in the outer half.
	sweepWhole, sweepArc = 2000, 64
	// sweepLeast is the smallest pool that is swept: in smaller ones everybody is
	// asked anyway.
	sweepLeast = 4
)

// sweep asks the members around a suspect for an echo. Servers often die together,
// and of neighbours on the ring that do, those in the middle have no watcher left.
func (m *Machine) sweep(s *server) {
	if m.ring.Len() < sweepLeast {
		return
	}
	if m.ring.Len() <= sweepWhole {
		m.sweepAll(s)
		return
	}
	if m.now.Sub(s.sweptAt) >= sweepPause {
		m.sweepAround(s, sweepArc)
	}
}

func (m *Machine) sweepAll(s *server) {
	if m.now.Sub(m.sweptAt) < sweepPause {
		return
	}
	m.sweptAt = m.now
	m.sweepOver(m.ring.Order())
	m.wake(m.now.Add(sweepTime), wakeSweep, string(s.row.ID), 0)
}

// sweepAround asks the reach members on each side of a suspect.
func (m *Machine) sweepAround(s *server, reach int) {
	if 2*reach >= sweepWhole {
		m.sweepAll(s)
		return
	}
	s.sweptAt = m.now
	m.sweepOver(m.around(s, reach))
	m.wake(m.now.Add(sweepTime), wakeSweep, string(s.row.ID), uint64(reach))
}

// around lists the reach members to each side, nearest first.
func (m *Machine) around(s *server, reach int) []member.ID {
	ids := make([]member.ID, 0, 2*reach)
	next, previous := s, s
	for range min(reach, (m.ring.Len()-1)/2) {
		next, previous = m.servers[next.row.First], m.servers[previous.row.Second]
		ids = append(ids, next.row.ID, previous.row.ID)
	}
	return ids
}

func (m *Machine) sweepOver(ids []member.ID) {
	for _, id := range ids {
		s := m.servers[id]
		sess := m.sessions[s.session]
		if sess == nil || m.now.Sub(s.sweptAt) < sweepPause {
			continue
		}
		s.sweptAt = m.now
		m.challenge(sess)
	}
}

// lookSweep opens rounds about those who have not echoed. Their silence alone says
// little: their agents may be gone.
func (m *Machine) lookSweep(center *server, reach int) {
	ids, began := m.ring.Order(), m.sweptAt
	if reach > 0 {
		ids, began = m.around(center, reach), center.sweptAt
	}
	if due := began.Add(sweepTime); m.now.Before(due) {
		// The coordinator has stood still meanwhile.
		m.wake(due, wakeSweep, string(center.row.ID), uint64(reach))
		return
	}
	if m.slowSweep(ids) {
		m.wake(m.now.Add(sweepTime), wakeSweep, string(center.row.ID), uint64(reach))
		return
	}
	far := false
	for i, id := range ids {
		s := m.servers[id]
		if !m.silentInSweep(s) {
			continue
		}
		far = far || reach > 0 && i >= reach
		if s.inquiry.round != nil || s.inquiry.verdict != nil || !m.judged(s) || s == center || m.now.Before(s.inquiry.next) {
			continue
		}
		// A late echo is no lost probe: the round reaches over all of the stall tolerance.
		m.beginIncident(s, m.now)
		m.tell(s, member.Moment{Kind: "sweep", Who: "coordinator", Role: "coordinator", Text: "its stream did not echo within " + sweepTime.String() + " of " + string(center.row.ID) + " becoming suspect"})
		m.openRound(s)
	}
	if far && len(ids) < m.ring.Len()-1 {
		m.sweepAround(center, 2*reach)
	}
}

// slowSweep reports whether more than half of those who were asked are silent and
// there is time left to wait for them: then it is the coordinator, or the way to
// it, that is slow, and rounds about all of them would make it worse.
func (m *Machine) slowSweep(ids []member.ID) bool {
	silent := 0
	for _, id := range ids {
		s := m.servers[id]
		if !m.silentInSweep(s) {
			continue
		}
		if m.now.Sub(s.sweptAt) >= sweepLimit {
			return false
		}
		silent++
	}
	return 2*silent > len(ids)
}

// silentInSweep reports whether a member was asked in the present sweep and has
// not echoed.
func (m *Machine) silentInSweep(s *server) bool {
	sess := m.sessions[s.session]
	asked := m.now.Sub(s.sweptAt)
	return sess != nil && asked >= sweepTime && asked < 2*sweepLimit && sess.provenAt.Before(s.sweptAt)
}

// unheard reports whether a member has not answered what a sweep has asked it
// lately: it is a poor witness then.
func (m *Machine) unheard(s *server) bool {
	sess := m.sessions[s.session]
	return sess != nil && m.now.Sub(s.sweptAt) < time.Second && sess.provenAt.Before(s.sweptAt)
}

// sweepFor sweeps when a member has become suspect and its stream has not proved
// it alive.
func (m *Machine) sweepFor(s *server) {
	if m.unproven(s) {
		m.sweep(s)
	}
}
