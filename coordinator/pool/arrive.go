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
		if holder := m.sessions[s.session]; holder != nil && holder.provenAt.After(sess.since) {
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
	row, kind := b.row(h.ID), member.EventAdopted
	switch {
	case row == nil:
		row, kind = b.splice(h), member.EventJoined
	case !shareAddress(h.Spec, row.Spec) && row.Phase == member.PhaseActive && b.draft.Len() > 1:
		b.enter(row, member.PhaseJoining)
	}
	row.Incarnation, row.Spec = b.incarnation(), h.Spec.Clone()
	row.BootID, row.InstanceID, row.Identity = h.BootID, h.InstanceID, h.Identity
	row.JoinedAt = b.m.now
	b.event(member.Event{
		Kind: kind, ID: h.ID, Incarnation: row.Incarnation, Actor: "agent/" + string(h.ID),
		Text: b.arrival(kind, row),
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

// splice puts a new member on the ring (R9).
func (b *batch) splice(h Hello) *member.Server {
	m := b.m
	first := b.draft.Len() == 0
	at, _ := b.draft.Place(ring.Site{Zone: h.Spec.Zone, Rack: h.Spec.Rack}, m.random.Uint64, b.site)
	b.draft.Splice(h.ID, at)
	row := &member.Server{ID: h.ID, Spec: h.Spec}
	b.rows[h.ID] = row
	b.reference = max(b.reference, b.draft.Len())
	switch {
	case b.holdBack(h, row, first):
	case first:
		b.enter(row, b.welcome(h.ID))
	default:
		b.enter(row, member.PhaseJoining)
	}
	return row
}

// welcome is the phase of a member that may be routed.
func (b *batch) welcome(id member.ID) member.Phase {
	if b.intent(id).Wish == member.WishDrain {
		return member.PhaseDraining
	}
	return member.PhaseActive
}

func (b *batch) enter(row *member.Server, phase member.Phase) {
	if row.Phase != phase {
		row.Phase, row.Since = phase, b.m.now
	}
	row.HeldUntil = time.Time{}
}

// holdBack puts a server that was removed by verdict into its hold-down, unless
// the removal is contradicted by its being the same boot, or too many are held.
// The first return settles both: what is remembered has no hold-down and no boot
// afterwards.
func (b *batch) holdBack(h Hello, row *member.Server, first bool) bool {
	d, was := b.m.departed[h.ID]
	if !was || d.HoldDown == 0 && d.BootID == "" {
		return false
	}
	settled := d
	settled.HoldDown, settled.BootID = 0, ""
	b.change.Departed = append(b.change.Departed, settled)
	if d.BootID != "" && d.BootID == h.BootID {
		b.contradicted(d)
		return false
	}
	if first || d.HoldDown == 0 || b.countHeld() >= max(1, b.draft.Len()/10) {
		return false
	}
	b.held++
	b.enter(row, member.PhaseHeld)
	row.HeldUntil = b.m.now.Add(d.HoldDown)
	return true
}

// countHeld counts the HELD members, those of this change included.
func (b *batch) countHeld() int {
	if b.held < 0 {
		b.held = 0
		for _, s := range b.m.servers {
			if s.row.Phase == member.PhaseHeld {
				b.held++
			}
		}
	}
	return b.held
}

// contradicted records that a removed server proves alive with the same boot.
func (b *batch) contradicted(d member.Departed) {
	m := b.m
	text := fmt.Sprintf("%s was removed as %s at revision %d or before, and is back without having rebooted", d.ID, d.Cause, b.change.Base.Revision)
	b.event(member.Event{Kind: member.EventContradicted, ID: d.ID, Incarnation: d.Incarnation, Cause: d.Cause, Actor: actorSelf, Text: text})
	b.after(func() {
		m.count(CountContradicted)
		m.raise(alarmRemovalContradicted, d.ID, text)
		m.wake(m.now.Add(contradictedFor), wakeContradicted, string(d.ID), 0)
	}, nil)
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
	row.Spec, row.InstanceID, row.BootID = said.Spec.Clone(), said.InstanceID, said.BootID
	s.untold = false
	b.after(nil, func(error) { b.m.learn(s) })
}
