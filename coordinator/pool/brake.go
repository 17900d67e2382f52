package pool

import (
	"fmt"
	"strings"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// calmFor is how long the evidence must be gone before held removals go on.
	calmFor = 5 * time.Second
	// guardPace is how often the machine looks at a brake that is on, and renews
	// what its alarm says; guardGrain how often at least while anybody is suspect
	// and something happens.
	guardPace, guardGrain = time.Second, 100 * time.Millisecond
	// quietFor is how long nobody must have spoken for a removal by verdict before
	// the reference size is the size that the pool has.
	quietFor = 30 * time.Minute
	// namedMost bounds the servers that a text names.
	namedMost = 5
)

// guard stands between the verdicts and the table: the brake, the floor, and
// what an operator has let pass.
type guard struct {
	brake, floor stop
	// losses are the removals by verdict, oldest first.
	losses []loss
	// released are the servers whose removal an operator has confirmed, until
	// when.
	released map[member.ID]time.Time
	// standing is nil when the rows have changed since it was taken.
	standing *standing
	census   verdict.Census
	// weighedAt is when the census was taken, of so many marks; tendedAt when the
	// machine looked at brake and floor last, with so many; lookAt when it looks
	// next by itself.
	weighedAt time.Time
	weighed   int
	tendedAt  time.Time
	tended    int
	lookAt    time.Time
	// unquietAt is when there was a verdict, a stop or a suspect that counts, last;
	// or when the machine started, before which it knows of none. referenceAt is
	// when it looks at the reference size next.
	unquietAt, referenceAt time.Time
}

// stop is a rule that holds all removals by verdict while it is on.
type stop struct {
	alarm string
	on    bool
	since time.Time
	// ruling is the newest that applied.
	ruling verdict.Ruling
	// calmSince is since when the rule applies no more, zero while it does.
	calmSince time.Time
	told      string
	toldAt    time.Time
}

// rule is by which rule it is on, empty if it is off.
func (st *stop) rule() string {
	if !st.on {
		return ""
	}
	return st.ruling.Rule
}

func newGuard(now time.Time) guard {
	return guard{
		unquietAt: now,
		brake:     stop{alarm: alarmBrake}, floor: stop{alarm: alarmFloor},
		released: map[member.ID]time.Time{},
	}
}

// gate says which rule, if any, forbids to act on a verdict that supports a
// removal. The verdict itself counts for the brake from now on, whatever comes of
// it: so a set of verdicts is held as a whole, in whatever order they come.
func (m *Machine) gate(s *server, cause member.Cause) (member.RefusedError, bool) {
	m.condemn(s)
	if m.warming {
		return member.RefusedError{Rule: "warm_up", Reason: "the coordinator has just started and waits for the agents' streams"}, true
	}
	stopped, held := m.stops(s)
	if m.settings.Mode == member.ModeShadow {
		reason := "the pool is in shadow mode"
		if held {
			reason += ", and its removal would be held: " + stopped.Reason
		}
		return member.RefusedError{Rule: "shadow_mode", Reason: reason}, true
	}
	if s.row.Phase == member.PhaseHeld && !m.lostForGood(s) {
		return m.gateHeld(s, cause)
	}
	if held {
		m.count(CountBraked)
		return stopped, true
	}
	if left := m.graceLeft(s); left > 0 {
		since := m.settings.RemovalGrace - left
		return member.RefusedError{Rule: "removal_grace", Reason: fmt.Sprintf("it has been suspect for %v, and removal waits for %v", since.Round(time.Millisecond), m.settings.RemovalGrace)}, true
	}
	return member.RefusedError{}, false
}

// condemn makes a server count for the brake.
func (m *Machine) condemn(s *server) {
	_, marked := m.marked[s.row.ID]
	counted := marked && m.weighs(s)
	s.condemned = m.now.Add(condemnedFor)
	switch {
	case marked && !counted:
		m.guard.weighedAt = time.Time{}
		m.watchSafety(nil)
	case marked || m.isReleased(s.row.ID):
		m.watchSafety(nil)
	default:
		m.watchSafety(s)
	}
}

// stops says whether the brake or the floor holds the removal of a member.
func (m *Machine) stops(s *server) (member.RefusedError, bool) {
	if m.isReleased(s.row.ID) {
		return member.RefusedError{}, false
	}
	for _, st := range []*stop{&m.guard.brake, &m.guard.floor} {
		if st.on {
			return member.RefusedError{Rule: st.ruling.Rule, Reason: st.ruling.Reason}, true
		}
	}
	return member.RefusedError{}, false
}

// guarded looks at brake and floor where something may have changed.
func (m *Machine) guarded() {
	g := &m.guard
	if len(m.marked)+g.tended+len(g.losses) == 0 && !g.brake.on && !g.floor.on {
		return
	}
	settled := len(m.marked) == g.tended && g.standing != nil || g.brake.on
	if settled && m.now.Sub(g.tendedAt) < guardGrain {
		return
	}
	m.watchSafety(nil)
}

// present returns the census of this moment.
func (m *Machine) present() verdict.Census {
	g := &m.guard
	if g.standing == nil || g.weighed != len(m.marked) || !g.weighedAt.Equal(m.now) {
		g.census, g.weighedAt, g.weighed = m.weigh(nil), m.now, len(m.marked)
	}
	return g.census
}

// watchSafety puts brake and floor on or off by present evidence, in which also
// counts; it may be nil.
func (m *Machine) watchSafety(also *server) {
	g, census := &m.guard, m.present()
	if also != nil {
		census = m.weigh(also)
	}
	g.tendedAt, g.tended = m.now, len(m.marked)
	m.tendStop(&g.brake, census, verdict.Brake)
	m.tendStop(&g.floor, census, verdict.Floor)
	if g.brake.on || g.floor.on || census.Going > 0 {
		g.unquietAt = m.now
	}
	if (g.brake.on || g.floor.on) && !g.lookAt.After(m.now) {
		g.lookAt = m.now.Add(guardPace)
		m.wake(g.lookAt, wakeGuard, "", 0)
	}
}

func (m *Machine) tendStop(st *stop, c verdict.Census, rule func(verdict.Census, member.Settings) (verdict.Ruling, bool)) {
	ruling, applies := rule(c, m.settings)
	switch {
	case applies:
		st.ruling, st.calmSince = ruling, time.Time{}
		if !st.on {
			st.on, st.since = true, m.now
			m.note(member.Event{Kind: member.EventBraked, Actor: actorSelf, Text: "removals by verdict are held: " + ruling.Reason})
		}
		m.retell(st)
	case !st.on:
	case st.calmSince.IsZero():
		st.calmSince = m.now
	case m.now.Sub(st.calmSince) >= calmFor:
		m.letGo(st, fmt.Sprintf("removals by verdict go on: nothing has spoken against them for %v", calmFor))
	}
}

// letGo ends what a stop holds.
func (m *Machine) letGo(st *stop, text string) {
	*st = stop{alarm: st.alarm}
	m.note(member.Event{Kind: member.EventUnbraked, Actor: actorSelf, Text: text})
	m.clearAlarm(st.alarm, "")
}

// retell raises the alarm of a stop, and again when what it says has changed,
// but not too often.
func (m *Machine) retell(st *stop) {
	if st.told != "" && m.now.Sub(st.toldAt) < guardPace {
		return
	}
	text := fmt.Sprintf("removals by verdict are held: %s; held: %s", st.ruling.Reason, named(m.heldBack()))
	switch {
	case st.told == "":
		m.raise(st.alarm, "", text)
	case st.told != text:
		m.renewAlarm(st.alarm, text)
	}
	st.told, st.toldAt = text, m.now
}

// renewAlarm gives an active alarm of the pool another text.
func (m *Machine) renewAlarm(name, text string) {
	key := member.AlarmKey{Name: name, Pool: m.name}
	a, active := m.alarms[key]
	if !active {
		return
	}
	a.Text = text
	m.alarms[key] = a
	m.emit(Raise{a})
}

// heldBack lists the members whose removal brake or floor hold, by id.
func (m *Machine) heldBack() []member.ID {
	var ids []member.ID
	for _, id := range sortedKeys(m.marked) {
		if m.weighs(m.servers[id]) {
			ids = append(ids, id)
		}
	}
	return ids
}

// named lists a few ids for people.
func named(ids []member.ID) string {
	if len(ids) == 0 {
		return "nobody"
	}
	parts := make([]string, 0, namedMost)
	for _, id := range ids[:min(len(ids), namedMost)] {
		parts = append(parts, string(id))
	}
	text := strings.Join(parts, ", ")
	if more := len(ids) - len(parts); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// safety is where the pool stands between brake and floor.
func (m *Machine) safety() *member.Safety {
	return m.safetyOf(m.present())
}

func (m *Machine) safetyOf(c verdict.Census) *member.Safety {
	return &member.Safety{
		Members: len(m.servers), Suspects: c.Suspects, BrakeLimit: verdict.BrakeLimit(c.Members, c.LargestRack, m.settings),
		Engaged: m.guard.brake.on || m.guard.floor.on, Lost: c.Lost,
		FloorLimit: verdict.FloorLimit(c.ReferenceSize, m.settings), ReferenceSize: c.ReferenceSize,
	}
}

// safetyAfter is where it will stand after the change.
func (b *batch) safetyAfter() *member.Safety {
	m := b.m
	c := m.present()
	c.ReferenceSize, c.Lost = b.reference, b.lostAfter()
	after := m.safetyOf(c)
	after.Members = b.draft.Len()
	return after
}

// lostAfter counts as stand does what the change will leave.
func (b *batch) lostAfter() int {
	m := b.m
	departed := map[member.ID]bool{}
	for id := range m.departed {
		departed[id] = true
	}
	for _, d := range b.change.Departed {
		departed[d.ID] = true
	}
	for id := range departed {
		if row, err := b.peek(id); err == nil && fills(&row) {
			delete(departed, id)
		}
	}
	return verdict.Lost(b.reference, b.placed(), len(departed))
}

// resettle arranges for the look at a reference size that is not the number of
// members that fill a place.
func (m *Machine) resettle() {
	g := &m.guard
	if m.reference == m.placed || g.referenceAt.After(m.now) {
		return
	}
	g.referenceAt = m.quietAt()
	m.wake(g.referenceAt, wakeReference, "", 0)
}

// quietAt is when nobody will have spoken for a removal for quietFor, as far as
// the machine knows.
func (m *Machine) quietAt() time.Time { return m.guard.unquietAt.Add(quietFor) }

// lookReference queues that the reference size becomes the number of members that
// fill a place, or arranges for another look.
func (m *Machine) lookReference() {
	m.watchSafety(nil)
	switch {
	case m.reference == m.placed:
	case m.now.Before(m.quietAt()):
		m.resettle()
	default:
		m.queue = append(m.queue, item{settle: true})
	}
}

// settle makes the number of members that fill a place the reference size.
func (b *batch) settle() {
	m := b.m
	switch {
	case b.reference == b.placed():
		return
	case m.now.Before(m.quietAt()):
		m.resettle()
		return
	}
	b.event(member.Event{Kind: member.EventPoolUpdated, Actor: actorSelf, Text: fmt.Sprintf(
		"the reference size of pool %s is %d now instead of %d: nothing spoke for a removal for %d min", m.name, b.placed(), b.reference, quietFor/time.Minute)})
	b.reference = b.placed()
	b.after(nil, func(error) { m.resettle() })
}
