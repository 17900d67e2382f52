package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// yieldsFor is how long another machine may take over the name of a live one.
const yieldsFor = time.Minute

func (b *batch) prepareReplace(call Call, c ReplaceServer) (func(), error) {
	row, err := b.peek(c.ID)
	if err != nil {
		return nil, err
	}
	if c.Incarnation != 0 && c.Incarnation != row.Incarnation {
		return nil, fmt.Errorf("incarnation %d of %s is over; it is %d now: %w", c.Incarnation, c.ID, row.Incarnation, member.ErrStale)
	}
	if c.ID == c.By {
		return func() { b.yield(call, row) }, nil
	}
	if _, err := b.peek(c.By); err != nil {
		return nil, fmt.Errorf("start its agent first: %w", err)
	}
	if !c.Force {
		if refused := b.mayReplace(c); refused != nil {
			return nil, refused
		}
	}
	return func() { b.replace(call, c) }, nil
}

// mayReplace says by brake and floor, and by how the newcomer stands, whether it
// may take the place.
func (b *batch) mayReplace(c ReplaceServer) *member.RefusedError {
	m := b.m
	for _, stop := range []stop{m.guard.brake, m.guard.floor} {
		if stop.on {
			return &member.RefusedError{Rule: stop.ruling.Rule, Reason: "removals are held: " + stop.ruling.Reason}
		}
	}
	by, _ := b.peek(c.By)
	switch s := m.servers[c.By]; {
	case by.Phase != member.PhaseActive:
		return &member.RefusedError{Rule: "not_ready", Reason: fmt.Sprintf("%s is %s", c.By, by.Phase)}
	case s.mark != nil || s.health.down:
		return &member.RefusedError{Rule: "not_ready", Reason: fmt.Sprintf("%s is suspect, or its service is down", c.By)}
	}
	return b.spare(m.servers[c.ID])
}

// replace puts one member into the place of another, which is taken out and
// banned: its agent would join again at once.
func (b *batch) replace(call Call, c ReplaceServer) {
	b.draft.Replace(c.ID, c.By)
	between := "as the only server"
	if at, _ := b.draft.Buddies(c.By); at.First != "" {
		between = fmt.Sprintf("between %s and %s", at.Second, at.First)
	}
	by, _ := b.peek(c.By)
	why := because(fmt.Sprintf("%s was replaced by %s", c.ID, c.By), call.Reason)
	b.remove(c.ID, member.CauseOperator, "replaced", member.Event{Actor: call.Actor, Text: why})
	b.shrink(c.ID)
	b.event(member.Event{
		Kind: member.EventReplaced, ID: c.By, Incarnation: by.Incarnation, Actor: call.Actor,
		Text: because(fmt.Sprintf("%s has taken the place of %s, %s", c.By, c.ID, between), call.Reason),
	})
	b.intents[c.ID] = &member.Intent{
		ID: c.ID, Wish: member.WishBanned, Reason: why, Actor: call.Actor, SetAt: b.m.now,
	}
	b.event(member.Event{Kind: member.EventIntent, ID: c.ID, Actor: call.Actor, Text: fmt.Sprintf("the intent for %s is %s: %s", c.ID, member.WishBanned, why)})
}

// yield lets another machine take over the name of a member, whether it lives or
// not.
func (b *batch) yield(call Call, row member.Server) {
	m, id := b.m, row.ID
	until := m.now.Add(yieldsFor)
	b.event(member.Event{
		Kind: member.EventReplaced, ID: id, Incarnation: row.Incarnation, Actor: call.Actor,
		Text: because(fmt.Sprintf("another machine may take the name and the place of %s within a minute", id), call.Reason),
	})
	b.after(func() {
		if m.servers[id] != nil {
			m.yielding[id] = until
			m.wake(until, wakeYield, string(id), 0)
		}
	}, nil)
}

// yields reports whether a hello may take the name of a member without proof: one
// of another boot or address, while an operator wants that.
func (m *Machine) yields(id member.ID, h Hello) bool {
	s := m.servers[id]
	return s != nil && m.now.Before(m.yielding[id]) && (h.BootID != s.row.BootID || !shareAddress(h.Spec, s.row.Spec))
}

// lookYield ends what yield began.
func (m *Machine) lookYield(id member.ID) {
	if !m.now.Before(m.yielding[id]) {
		delete(m.yielding, id)
	}
}
