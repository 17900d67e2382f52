package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// moveAfter is how long a watcher must have missed a server that others reach
	// before the ring moves for it; movePause the time between two moves.
	moveAfter = time.Minute
	movePause = 10 * time.Second
)

// lookMove moves a server to another place on the ring when it and one of its
// buddies have been unable to reach each other for long, though both are well.
// Until then a temporary watcher helps out.
func (m *Machine) lookMove(s *server) {
	if m.now.Before(s.moveAt) {
		return
	}
	if !m.wantsMove(s) {
		if len(s.bad) > 0 {
			s.moveAt = m.now.Add(movePause)
			m.wake(s.moveAt, wakeMove, string(s.row.ID), 0)
		}
		return
	}
	if wait := movePause - m.now.Sub(m.movedAt); wait > 0 && !m.movedAt.IsZero() {
		m.wake(m.now.Add(wait), wakeMove, string(s.row.ID), 0)
		return
	}
	m.movedAt = m.now
	m.queue = append(m.queue, item{move: s.row.ID})
}

func (m *Machine) wantsMove(s *server) bool {
	if m.ring.Len() < 5 || s.mark != nil {
		return false
	}
	for _, id := range []member.ID{s.row.First, s.row.Second} {
		o := m.servers[id]
		if at := s.bad[id]; !at.IsZero() && m.now.Sub(at) >= moveAfter && o.muted.IsZero() && o.mark == nil {
			return true
		}
	}
	return false
}

// move takes a member to another place on the ring, between others than now.
func (b *batch) move(id member.ID) {
	m, s := b.m, b.m.servers[id]
	if s == nil || !m.wantsMove(s) || !b.has(id) {
		return
	}
	before, _ := b.draft.Buddies(id)
	b.draft.Unlink(id)
	again := func(error) { m.wake(m.now.Add(movePause), wakeMove, string(id), 0) }
	spec := s.row.Spec
	for range 8 {
		at, _ := b.draft.Place(ring.Site{Zone: spec.Zone, Rack: spec.Rack}, m.random.Uint64, b.site)
		next, _ := b.draft.Buddies(at)
		if at == before.First || at == before.Second || next.First == before.First || next.First == before.Second {
			continue
		}
		b.draft.Splice(id, at)
		b.event(member.Event{
			Kind: member.EventMoved, ID: id, Incarnation: s.row.Incarnation, Actor: actorSelf,
			Text: fmt.Sprintf("%s was moved between %s and %s: it and a buddy of its have not reached each other for %v, though others reach both", id, at, next.First, moveAfter),
		})
		b.after(nil, again)
		return
	}
	b.draft.Splice(id, before.Second)
	again(nil)
}
