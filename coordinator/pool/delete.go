package pool

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

func (b *batch) prepareDelete(call Call, c DeletePool) (func(), error) {
	m := b.m
	if n := b.draft.Len(); n > 0 && !c.Force {
		return nil, &member.RefusedError{Rule: "not_empty", Reason: fmt.Sprintf(
			"pool %s has %d servers; let them leave first, or delete it by force", m.name, n)}
	}
	return func() {
		b.change.Delete = &member.Deletion{At: m.now, Actor: call.Actor, Reason: call.Reason}
		for _, id := range sortedKeys(m.servers) {
			b.change.Remove = append(b.change.Remove, member.Removal{
				ID: id, Incarnation: m.servers[id].row.Incarnation, Cause: member.CauseOperator,
			})
		}
		b.event(member.Event{
			Kind: member.EventPoolDeleted, Actor: call.Actor,
			Text: because(fmt.Sprintf("pool %s was deleted with %d servers", m.name, len(m.servers)), call.Reason),
		})
	}, nil
}

// deleted ends the machine with its pool. Everybody who waits is told, and every
// server that it has left.
func (m *Machine) deleted(b *batch) {
	c := b.change
	m.position.Revision = c.Revision()
	m.emit(Publish{c})
	for _, o := range b.then {
		if o.committed != nil {
			o.committed()
		}
	}
	gone := fmt.Errorf("pool %s was deleted at revision %d: %w", m.name, c.Revision(), member.ErrNotFound)
	m.end(gone, func(sess *session) error {
		s := m.servers[sess.hello.ID]
		if s == nil || s.session != sess.id {
			return gone
		}
		removed := &member.RemovedError{ID: s.row.ID, Incarnation: s.row.Incarnation, Cause: member.CauseOperator}
		return fmt.Errorf("%w: its pool was deleted at revision %d", removed, c.Revision())
	})
	for _, a := range m.Alarms() {
		m.emit(Clear{a.Key()})
	}
}

// end ends the machine: streams get the error that is for them, and commands that
// wait the other one.
func (m *Machine) end(waiting error, stream func(*session) error) {
	m.dead = true
	for _, id := range slices.Sorted(maps.Keys(m.sessions)) {
		m.emit(Refuse{id, stream(m.sessions[id])})
	}
	for _, it := range m.queue {
		if it.call != nil {
			m.emit(Reply{Token: it.call.Token, Err: waiting})
		}
	}
	m.emit(SetTimer{time.Time{}})
}
