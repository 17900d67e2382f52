package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// mutedFor is how long an observer is not heard at the least.
	mutedFor = 20 * time.Second
	// badAfter is how long a watcher must have had no reply from a server that
	// others reach before their edge counts as bad.
	badAfter = time.Second
)

// trusts reports whether an observer's negatives count: not if it is muted, and
// not if it is suspect itself. Blame is the smallest set of servers that explains
// all misses; a server that its own watchers miss, and whose stream does not prove
// it alive, explains its own.
func (m *Machine) trusts(observer member.ID) bool {
	o := m.servers[observer]
	return o != nil && o.muted.IsZero() && (o.mark == nil || !m.unproven(o))
}

// unproven reports whether nothing from the server itself speaks for it in the
// present incident. What the round before has proved holds until there was time for
// an echo in the present one.
func (m *Machine) unproven(s *server) bool {
	q := &s.inquiry
	if q.lastProof == verdict.ProofAlive && m.now.Sub(q.opened) < echoTime {
		return false
	}
	return q.proof() != verdict.ProofAlive
}

// blameEdges notes which watchers are contradicted by the end of a round: they
// miss the server while others reach it. Such an edge is bad, not the server; it
// gets another watcher beside it, and an observer all of whose edges are bad is
// muted.
func (m *Machine) blameEdges(s *server, r *verdict.Round, ruling verdict.Ruling) {
	reached := ruling.Verdict == verdict.Alive && len(r.Reaching()) > 0
	for _, w := range m.watchers(s) {
		_, was := s.bad[w.id]
		seen := s.sights.of(w.id)
		switch is := reached && seen.Sight == verdict.SightDown && m.now.Sub(seen.firstLost) >= badAfter && m.live(w.id) != nil; {
		case is && !was:
			if s.bad == nil {
				s.bad = map[member.ID]time.Time{}
			}
			s.bad[w.id] = m.now
			m.wake(m.now.Add(moveAfter), wakeMove, string(s.row.ID), 0)
			m.lookDeaf(w.id)
		case is:
			m.lookDeaf(w.id)
		case !reached && was && slices.ContainsFunc(r.Missing(), func(id member.ID) bool { return id != w.id }):
			// Others miss it, too, by now.
			delete(s.bad, w.id)
		}
	}
	m.tendWatchers(s)
}

// mendEdge hears that a watcher reaches the server again, or watches it no more.
func (m *Machine) mendEdge(s *server, observer member.ID) {
	if _, was := s.bad[observer]; !was {
		return
	}
	delete(s.bad, observer)
	m.tendWatchers(s)
}

// lookDeaf mutes an observer that misses everybody it watches while others reach
// them all and its own watchers reach it.
func (m *Machine) lookDeaf(observer member.ID) {
	o := m.servers[observer]
	if o == nil || m.ring.Len() < 3 || m.doubted(o) || o.mark != nil {
		return
	}
	subjects := m.subjectsOf(o)
	for _, id := range subjects {
		if s := m.servers[id]; s == nil || s.bad[observer].IsZero() {
			return
		}
	}
	m.mute(o, fmt.Sprintf("%s misses %s, which others reach: its prober or its firewall is broken", observer, join(subjects)))
}

// subjectsOf lists whom a member watches.
func (m *Machine) subjectsOf(o *server) []member.ID {
	ids := []member.ID{o.row.First, o.row.Second}
	ids = append(ids, sortedKeys(m.helping[o.row.ID])...)
	slices.Sort(ids)
	return slices.Compact(ids)
}

// mute stops hearing an observer: its negatives count for nothing, it is no
// witness, and its subjects get temporary watchers.
func (m *Machine) mute(o *server, why string) {
	first := o.muted.IsZero()
	o.muted = m.now
	m.wake(m.now.Add(mutedFor), wakeMuted, string(o.row.ID), 0)
	if !first {
		return
	}
	m.raise(alarmObserverMuted, o.row.ID, why)
	m.tendSubjects(o.row.ID)
	for _, id := range m.subjectsOf(o) {
		if s := m.servers[id]; s != nil {
			m.judgeSuspicion(s)
		}
	}
}

// lookMuted hears an observer again once it has been muted long enough and others
// contradict it no more.
func (m *Machine) lookMuted(o *server) {
	if o.muted.IsZero() || m.now.Sub(o.muted) < mutedFor {
		return
	}
	for _, id := range m.subjectsOf(o) {
		if s := m.servers[id]; s != nil && !s.bad[o.row.ID].IsZero() {
			m.wake(m.now.Add(mutedFor), wakeMuted, string(o.row.ID), 0)
			return
		}
	}
	m.unmute(o)
}

func (m *Machine) unmute(o *server) {
	if o.muted.IsZero() {
		return
	}
	o.muted = time.Time{}
	m.clearAlarm(alarmObserverMuted, o.row.ID)
	m.tendSubjects(o.row.ID)
	m.available()
}
