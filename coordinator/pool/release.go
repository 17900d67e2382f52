package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// releasedFor is how long the removal of a released server passes brake and
// floor.
const releasedFor = time.Minute

// prepareRelease checks that there is something to confirm. The change itself
// tells the routers to let go of what they keep, and so do the removals that
// follow.
func (b *batch) prepareRelease(call Call, c ReleaseBrake) (func(), error) {
	m := b.m
	held := m.heldBack()
	if !m.guard.brake.on && !m.guard.floor.on {
		held = nil
	}
	for _, id := range c.IDs {
		if !slices.Contains(held, id) {
			return nil, &member.RefusedError{Rule: "not_held", Reason: fmt.Sprintf("neither brake nor floor hold the removal of %s", id)}
		}
	}
	ids := held
	if len(c.IDs) > 0 {
		ids = slices.Compact(slices.Sorted(slices.Values(c.IDs)))
	}
	if len(ids)+len(c.Kept) == 0 {
		return nil, &member.RefusedError{Rule: "not_held", Reason: "neither brake nor floor hold a removal, and no router keeps a server that was removed"}
	}
	text := "confirmed that these servers are gone: " + join(ids)
	switch {
	case len(ids) == 0:
		text = "confirmed that these servers, which routers keep, are gone: " + join(c.Kept)
	case len(c.Kept) > 0:
		text += "; and these, which routers keep: " + join(c.Kept)
	}
	return func() {
		b.change.MassChangeConfirmed = true
		b.event(member.Event{Kind: member.EventUnbraked, Actor: call.Actor, Text: because(text, call.Reason)})
		b.after(func() { m.release(ids) }, nil)
	}, nil
}

// release lets the removal of servers pass brake and floor for a while, and looks
// at their cases anew. Without them the evidence may be gone.
func (m *Machine) release(ids []member.ID) {
	until := m.now.Add(releasedFor)
	for _, id := range ids {
		if m.servers[id] == nil {
			continue
		}
		m.guard.released[id] = until
		m.wake(until, wakeGuard, "", 0)
		m.wake(m.now, wakeAgain, string(id), 0)
	}
	m.guard.weighedAt = time.Time{}
	m.watchSafety(nil)
	for _, st := range []*stop{&m.guard.brake, &m.guard.floor} {
		if st.on && !st.calmSince.IsZero() {
			m.letGo(st, "removals by verdict go on: an operator has confirmed those that were held")
		}
	}
}

func (m *Machine) isReleased(id member.ID) bool { return m.now.Before(m.guard.released[id]) }

// lookGuard looks at brake and floor, and ends what an operator has let pass.
func (m *Machine) lookGuard() {
	for id, until := range m.guard.released {
		if !m.now.Before(until) {
			delete(m.guard.released, id)
		}
	}
	m.watchSafety(nil)
}

// BrakeStatus is where a pool stands between its brake and its floor.
type BrakeStatus struct {
	Safety member.Safety
	// Zones are those with servers that count.
	Zones []ZoneStatus
	// Stops are the rules that hold removals, none while none does.
	Stops []Stop
	// Held are the members whose removal is held, by id.
	Held []HeldRemoval
	// Released are those whose removal an operator has confirmed and that are
	// members still, by id.
	Released []ReleasedRemoval
}

// ZoneStatus is a zone in the brake's eyes.
type ZoneStatus struct {
	Zone                  string
	Size, Suspects, Limit int
}

// Stop is a rule that holds removals: brake, zone_brake or floor.
type Stop struct {
	Rule, Reason string
	Since        time.Time
}

// HeldRemoval is a member whose removal is held.
type HeldRemoval struct {
	ID         member.ID
	Zone, Rack string
	// Since is since when it is suspect.
	Since time.Time
}

// ReleasedRemoval is a member whose removal passes brake and floor until then.
type ReleasedRemoval struct {
	ID    member.ID
	Until time.Time
}
