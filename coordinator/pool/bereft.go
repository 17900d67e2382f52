package pool

import (
	"slices"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// isBereft reports whether an agent's only trouble is that all whom it watches are
// silent: it may be deaf, or they may have died together.
func (in *Digest) isBereft() bool {
	return in.SelfScore == 1 && len(in.Subjects) > 1 &&
		!slices.ContainsFunc(in.Subjects, func(d SubjectDigest) bool { return d.Evidence.Sight != verdict.SightDown })
}

// sincere reports whether a watcher with a live stream may trust what it misses, as far
// as is known: it does so itself, or all whom it watches are silent and nobody who is
// able to reaches any of them.
func (m *Machine) sincere(watcher member.ID) bool {
	sess := m.sessions[m.servers[watcher].session]
	if sess.selfScore == 0 || !sess.bereft {
		return sess.selfScore == 0
	}
	for _, subject := range sess.assigned.Subjects {
		s := m.servers[subject.ID]
		if s != nil && s.sights.of(watcher).Sight == verdict.SightDown && m.reachedByAnother(s, watcher) {
			return false
		}
	}
	return true
}

func (m *Machine) reachedByAnother(s *server, watcher member.ID) bool {
	for _, w := range m.watchers(s) {
		if w.id != watcher && s.sights.of(w.id).Sight == verdict.SightUp && m.able(w.id) {
			return true
		}
	}
	return false
}

// able reports whether a member could observe others now, as far as is known: its
// stream is there and leaves no challenge unanswered, and it is believed.
func (m *Machine) able(id member.ID) bool {
	return m.live(id) != nil && m.trusts(id) && !m.nonceUnanswered(m.servers[id])
}

// oneLeft reports whether fewer than two members are left who could observe s. A mark
// cannot wait for two who miss it then.
func (m *Machine) oneLeft(s *server) bool {
	left := 0
	for id := range m.servers {
		if id != s.row.ID && m.able(id) {
			if left++; left == 2 {
				return false
			}
		}
	}
	return true
}
