package pool

import (
	"fmt"

	"github.com/buddyring/buddyring/internal/member"
)

// command is an operator's command; id is the server it is about, or empty.
type command struct {
	Call
	id    member.ID
	input Input
}

// enqueue keeps a command for the next change.
func (m *Machine) enqueue(call Call, id member.ID, in Input) {
	m.queue = append(m.queue, item{call: &command{call, id, in}})
}

// call puts a command into the change. It returns false if the command must
// wait for the next one.
func (b *batch) call(c command) bool {
	m := b.m
	reply := func(r member.Revision, err error) {
		m.emit(Reply{Token: c.Token, Revision: r, Err: err, Repairs: b.repairs[c.Token]})
	}
	if done := m.answered(c.Call); done != nil {
		if done.Hash != c.Hash {
			reply(0, member.Invalid("request_id", "%q was used for another request", c.RequestID))
		} else {
			reply(done.Revision, nil)
		}
		return true
	}
	replaces, _ := c.input.(ReplaceServer)
	if _, deletes := c.input.(DeletePool); deletes && b.touched() {
		return false // it is the last change, and the only thing in it
	}
	if b.requests[c.RequestID] || c.ExpectedRevision != nil && b.touched() || b.comesOrGoes(replaces.By) {
		// The change answers the same request, would come before the revision that is
		// expected, or is about to change who takes a place.
		return false
	}
	if c.ExpectedRevision != nil && *c.ExpectedRevision != m.position.Revision {
		reply(0, fmt.Errorf("expected_revision is %d, but the pool is at %d: %w", *c.ExpectedRevision, m.position.Revision, member.ErrStale))
		return true
	}
	apply, err := b.prepare(c.Call, c.input)
	if err != nil || c.ValidateOnly || apply == nil && c.RequestID == "" && !b.touched() {
		reply(m.position.Revision, err)
		return true
	}
	if apply != nil {
		apply()
	}
	// Where nothing is to be done, that may be so by what is in the change already.
	revision := b.change.Revision()
	if c.RequestID != "" {
		b.requests[c.RequestID] = true
		b.change.Requests = append(b.change.Requests, member.Request{ID: c.RequestID, Hash: c.Hash, Revision: revision, At: m.now})
	}
	b.after(func() { reply(revision, nil) }, func(err error) { reply(0, err) })
	return true
}

// answered returns the request that a call repeats, or nil. What the table says of
// this machine's own changes is not heard: it may show one that is not durable yet,
// and never will be.
func (m *Machine) answered(c Call) *member.Request {
	if done, known := m.requests[c.RequestID]; known {
		return &done
	}
	if c.RequestID != "" && c.Earlier != nil && c.Earlier.Revision <= m.loaded {
		return c.Earlier
	}
	return nil
}

// prepare checks a command and returns what it does, nil for nothing.
func (b *batch) prepare(call Call, in Input) (apply func(), err error) {
	switch c := in.(type) {
	case UpdateServer:
		return b.prepareUpdate(call, c)
	case RemoveServer:
		return b.prepareRemove(call, c)
	case SetIntent:
		return b.prepareIntent(call, c)
	case DrainServer:
		return b.prepareDrain(call, c)
	case ResumeServer:
		return b.prepareResume(call, c)
	case UpdateSettings:
		return b.prepareSettings(call, c)
	case ReleaseBrake:
		return b.prepareRelease(call, c)
	case ReplaceServer:
		return b.prepareReplace(call, c)
	case DeletePool:
		return b.prepareDelete(call, c)
	case RepairRing:
		return b.prepareRepair(call, c)
	default:
		return nil, fmt.Errorf("command %T: %w", in, member.ErrInvalid)
	}
}

// peek returns the row of a member as the change will leave it, not for
// editing.
func (b *batch) peek(id member.ID) (member.Server, error) {
	if r, ok := b.rows[id]; ok {
		return *r, nil
	}
	if s := b.m.servers[id]; s != nil && b.has(id) {
		return s.row, nil
	}
	return member.Server{}, fmt.Errorf("server %s in pool %s: %w", id, b.m.name, member.ErrNotFound)
}

func because(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + reason
}

func (b *batch) prepareUpdate(call Call, c UpdateServer) (func(), error) {
	row, err := b.peek(c.ID)
	if err != nil {
		return nil, err
	}
	spec, err := c.Edit(row.Spec.Clone())
	if err != nil {
		return nil, err
	}
	if err := member.CheckSpec("spec", spec); err != nil {
		return nil, err
	}
	return func() {
		b.row(c.ID).Spec = spec
		b.event(member.Event{Kind: member.EventUpdated, ID: c.ID, Incarnation: row.Incarnation, Actor: call.Actor, Text: because(string(c.ID)+" was updated", call.Reason)})
	}, nil
}

func (b *batch) prepareRemove(call Call, c RemoveServer) (func(), error) {
	row, err := b.peek(c.ID)
	if err != nil {
		return nil, err
	}
	if c.Incarnation != 0 && c.Incarnation != row.Incarnation {
		return nil, fmt.Errorf("incarnation %d of %s is over; it is %d now: %w", c.Incarnation, c.ID, row.Incarnation, member.ErrStale)
	}
	return func() { b.removeByOperator(c.ID, call) }, nil
}

func (b *batch) removeByOperator(id member.ID, call Call) {
	b.remove(id, member.CauseOperator, "operator", member.Event{Actor: call.Actor, Text: because(string(id)+" was removed by an operator", call.Reason)})
	b.shrink(id)
}

func (b *batch) prepareIntent(call Call, c SetIntent) (func(), error) {
	if c.ExpiresIn < 0 {
		return nil, member.Invalid("expires_in", "must not be negative")
	}
	intent := member.Intent{ID: c.ID, Wish: c.Wish, Reason: call.Reason, Actor: call.Actor, SetAt: b.m.now}
	if c.ExpiresIn > 0 {
		intent.ExpiresAt = b.m.now.Add(c.ExpiresIn)
	}
	return func() {
		b.intents[c.ID] = &intent
		if c.Wish == member.WishActive {
			b.intents[c.ID] = nil
		}
		b.event(member.Event{Kind: member.EventIntent, ID: c.ID, Actor: call.Actor, Text: because(fmt.Sprintf("the intent for %s is %s", c.ID, c.Wish), call.Reason)})
		b.obey(c.ID, c.Wish, call)
	}, nil
}

// obey makes a member's phase follow the operator's wish.
func (b *batch) obey(id member.ID, wish member.Wish, call Call) {
	row, err := b.peek(id)
	if err != nil {
		return
	}
	switch {
	case wish == member.WishBanned:
		b.removeByOperator(id, call)
	case wish == member.WishDrain && (row.Phase == member.PhaseActive || row.Phase == member.PhaseServiceDown):
		b.enter(b.row(id), member.PhaseDraining)
	case wish != member.WishDrain && row.Phase == member.PhaseDraining && !b.m.leaves(id):
		b.enter(b.row(id), b.welcome(id))
	}
}

// intentOver ends a wish that has expired.
func (b *batch) intentOver(id member.ID) {
	m, i := b.m, b.intent(id)
	if i.ExpiresAt.IsZero() || m.now.Before(i.ExpiresAt) {
		return
	}
	b.intents[id] = nil
	b.after(nil, func(error) { m.queue = append(m.queue, item{over: id}) })
	b.event(member.Event{Kind: member.EventIntent, ID: id, Actor: actorSelf, Text: fmt.Sprintf("the intent %s for %s has expired", i.Wish, id)})
	b.obey(id, member.WishActive, Call{Actor: actorSelf})
}

// intentOver looks whether a wish has expired.
func (m *Machine) intentOver(id member.ID) {
	if i, ok := m.intents[id]; ok && !i.ExpiresAt.IsZero() && !m.now.Before(i.ExpiresAt) {
		m.queue = append(m.queue, item{over: id})
	}
}

func (b *batch) prepareSettings(call Call, c UpdateSettings) (func(), error) {
	present := b.m.settings
	if b.change.Settings != nil {
		present = *b.change.Settings
	}
	next, err := c.Edit(present)
	if err != nil {
		return nil, err
	}
	if err := member.CheckSettings("settings", next); err != nil {
		return nil, err
	}
	return func() {
		b.change.Settings = &next
		b.event(member.Event{Kind: member.EventPoolUpdated, Actor: call.Actor, Text: because("the settings of pool "+string(b.m.name)+" were updated", call.Reason)})
	}, nil
}
