package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

// join makes a new row, or a new incarnation of one, for the hello of id that
// waits, if it still needs one.
func (b *batch) join(id member.ID) {
	m, sess := b.m, b.m.joining[id]
	delete(m.joining, id)
	if !m.open(sess) {
		return
	}
	if i := b.intent(id); i.Wish == member.WishBanned {
		m.refuse(sess, banned(i))
		return
	}
	if s := m.servers[id]; s != nil {
		if s.row.InstanceID == sess.hello.InstanceID {
			m.resume(s, sess)
			return
		}
		if holder := m.sessions[s.session]; holder != nil && holder.provenAt.After(sess.since) && !m.yields(id, sess.hello) {
			m.refuseTwin(sess, holder.hello.Peer)
			return
		}
	}
	b.admit(sess)
	b.joins[id] = sess
	b.after(func() { m.joined(sess) }, func(err error) {
		if m.open(sess) {
			m.refuse(sess, fmt.Errorf("join %s: %w", id, err))
		}
	})
}

// admit writes the row of a hello.
func (b *batch) admit(sess *session) {
	h := sess.hello
	row, kind, why := b.row(h.ID), member.EventAdopted, ""
	switch {
	case row == nil:
		kind = member.EventJoined
		row, why = b.splice(h)
	case !shareAddress(h.Spec, row.Spec) && b.draft.Len() > 1 &&
		(row.Phase == member.PhaseActive || row.Phase == member.PhaseServiceDown):
		b.enter(row, member.PhaseJoining)
	}
	row.Incarnation, row.Spec = b.incarnation(), h.Spec
	row.BootID, row.InstanceID, row.Identity = h.BootID, h.InstanceID, h.Identity
	row.JoinedAt = b.m.now
	b.event(member.Event{
		Kind: kind, ID: h.ID, Incarnation: row.Incarnation, Actor: "agent/" + string(h.ID),
		Text: because(b.arrival(kind, row), why),
	})
}

func (b *batch) incarnation() member.Incarnation { return member.Incarnation(b.change.Revision()) }

func (b *batch) arrival(kind member.EventKind, row *member.Server) string {
	if kind == member.EventAdopted {
		return fmt.Sprintf("%s is back on a new boot, address or agent and keeps its place", row.ID)
	}
	buddies, _ := b.draft.Buddies(row.ID)
	switch {
	case buddies.First == "":
		return fmt.Sprintf("%s joined as the only server", row.ID)
	case row.Phase == member.PhaseHeld:
		return fmt.Sprintf("%s is back between %s and %s and is held until %s", row.ID, buddies.Second, buddies.First, row.HeldUntil.UTC().Format("15:04:05.000"))
	}
	if buddies.First == buddies.Second {
		return fmt.Sprintf("%s joined beside %s", row.ID, buddies.First)
	}
	return fmt.Sprintf("%s joined between %s and %s", row.ID, buddies.Second, buddies.First)
}

// splice puts a new member on the ring (R9). The text says what its return is
// about, if it is one after a removal by verdict.
func (b *batch) splice(h Hello) (row *member.Server, why string) {
	m := b.m
	first := b.draft.Len() == 0
	at, _ := b.draft.Place(ring.Site{Zone: h.Spec.Zone, Rack: h.Spec.Rack}, m.random.Uint64, b.site)
	b.draft.Splice(h.ID, at)
	row = &member.Server{ID: h.ID, Spec: h.Spec}
	b.rows[h.ID] = row
	why = b.holdBack(h, row, first)
	switch {
	case row.Phase == member.PhaseHeld:
	case first:
		b.enter(row, b.welcome(h.ID))
	default:
		b.enter(row, member.PhaseJoining)
	}
	return row, why
}

// shrink lowers the reference size for a member that leaves and is not lost. One that
// is JOINING has not raised it.
func (b *batch) shrink(id member.ID) {
	if b.m.servers[id].row.Phase != member.PhaseJoining {
		b.reference = max(0, b.reference-1)
	}
}

// welcome is the phase of a member that may be routed if its service is up.
func (b *batch) welcome(id member.ID) member.Phase {
	if b.intent(id).Wish == member.WishDrain || b.m.leaves(id) {
		return member.PhaseDraining
	}
	if s := b.m.servers[id]; s != nil && s.health.down {
		return member.PhaseServiceDown
	}
	return member.PhaseActive
}

func (b *batch) enter(row *member.Server, phase member.Phase) {
	if row.Phase != phase {
		b.serving = -1
		row.Phase, row.Since = phase, b.m.now
	}
	row.HeldUntil = time.Time{}
}

// update writes what an agent newly says of its server.
func (b *batch) update(id member.ID) {
	s := b.m.servers[id]
	if s == nil || !s.untold {
		return
	}
	said := s.said
	row := b.row(id)
	if !row.Spec.Equal(said.Spec) {
		b.event(member.Event{Kind: member.EventUpdated, ID: id, Incarnation: row.Incarnation, Actor: "agent/" + string(id), Text: fmt.Sprintf("%s says something new about itself", id)})
	}
	row.Spec, row.InstanceID, row.BootID = said.Spec, said.InstanceID, said.BootID
	s.untold = false
	b.after(nil, func(error) { b.m.learn(s) })
}
