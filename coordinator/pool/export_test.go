package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Sizes returns how much a machine keeps, by what: for tests that look for
// leaks. Logs of decisions are kept on purpose, and are not in it.
func (m *Machine) Sizes() map[string]int {
	sizes := map[string]int{
		"servers": len(m.servers), "ring": m.ring.Len(), "intents": len(m.intents), "departed": len(m.departed),
		"requests": len(m.requests), "sessions": len(m.sessions), "rounds": len(m.rounds), "alarms": len(m.alarms),
		"noted": len(m.noted), "notes": len(m.notes), "queue": len(m.queue), "joining": len(m.joining),
		"greet again": len(m.greetAgain), "due": len(m.due), "stale": len(m.stale), "confirmed": len(m.confirmed),
		"marked": len(m.marked), "ailing": len(m.ailing), "losses": len(m.guard.losses), "released": len(m.guard.released),
		"helping": len(m.helping), "uncovered": len(m.uncovered), "back": m.back, "unwritten": len(m.unwritten),
		"yielding": len(m.yielding),
	}
	for _, subjects := range m.helping {
		if len(subjects) == 0 {
			sizes["empty sets of helping"]++
		}
	}
	return sizes
}

// SweptNow reports whether a member's stream is asked for an echo by a sweep that
// begins now.
func (m *Machine) SweptNow(id member.ID) bool {
	s := m.servers[id]
	return s != nil && !s.sweptAt.IsZero() && s.sweptAt.Equal(m.now)
}

// Wakes is the number of looks that are arranged.
func (m *Machine) Wakes() int { return len(m.wakes) }

// RoomAfter is for how many wakes there is room once so many have come and a few are
// left, and whether all left in order.
func RoomAfter(many, left int) (room int, inOrder bool) {
	var w wakes
	for i := range many {
		w.push(wakeAt{num: uint64(many - i)})
	}
	inOrder = true
	for before := w.pop(); len(w) > left; {
		next := w.pop()
		inOrder = inOrder && before.before(next)
		before = next
	}
	return cap(w), inOrder
}

// Misses reports whether a watcher's sight of a member is negative.
func (m *Machine) Misses(observer, id member.ID) bool { return m.misses(observer, m.servers[id]) }

// Confirmed reports whether a verdict about a member waits for its commit.
func (m *Machine) Confirmed(id member.ID) bool { return m.confirmed[id] }

// GuardedAt is when the machine looked at brake and floor last.
func (m *Machine) GuardedAt() time.Time { return m.guard.tendedAt }

// Load is in how many rounds a member is asked as an observer.
func (m *Machine) Load(id member.ID) int { return m.servers[id].load }

// Contradiction names something in the machine's state that must not be, or is
// empty.
func (m *Machine) Contradiction() string {
	placed := 0
	for id, s := range m.servers {
		if fills(&s.row) {
			placed++
		}
		q := &s.inquiry
		switch {
		case q.round != nil && q.verdict != nil:
			return "a round while a verdict waits: " + string(id)
		case (q.verdict != nil) != m.confirmed[id]:
			return "confirmed and verdict differ: " + string(id)
		case s.health.down != m.ailing[id] && !s.health.down:
			return "a service that is up is ailing: " + string(id)
		case (s.mark != nil) != m.marked[id]:
			return "marked and mark differ: " + string(id)
		case q.round != nil && m.rounds[q.round.ID] != s:
			return "a round that is not among the rounds: " + string(id)
		case q.round != nil && q.tale == nil:
			return "a round without a tale: " + string(id)
		case s.session != 0 && m.sessions[s.session] == nil:
			return "the stream of a member is no session: " + string(id)
		case s.row.Phase == member.PhaseDraining && m.wish(id) != member.WishDrain && s.leave == nil && !m.due[id] && m.flight == nil:
			return "nobody wants that it drains: " + string(id)
		case q.verdict != nil && q.verdict.void && !m.inFlight(id):
			return "a void verdict waits: " + string(id)
		}
		for _, helper := range s.temporary {
			if !m.helping[helper][id] {
				return "a temporary watcher that does not know: " + string(id)
			}
		}
	}
	if placed != m.placed {
		return fmt.Sprintf("%d fill a place, and %d are counted", placed, m.placed)
	}
	if id := m.overloaded(); id != "" {
		return "asked in fewer rounds than it is said: " + string(id)
	}
	for helper, subjects := range m.helping {
		if m.servers[helper] == nil {
			return "a temporary watcher that is no member: " + string(helper)
		}
		for id := range subjects {
			if m.servers[id] == nil {
				return "a temporary watcher of no member: " + string(helper)
			}
		}
	}
	places := map[member.ID]int{}
	for _, it := range m.queue {
		if it.join != "" {
			places[it.join]++
		}
	}
	for id := range m.joining {
		if places[id] != 1 {
			return "a hello that waits without a place in the queue: " + string(id)
		}
	}
	return ""
}

// overloaded names a member with more load than there are rounds in which it is
// asked. It may have less: one that has left and is back begins anew.
func (m *Machine) overloaded() member.ID {
	asked := map[member.ID]int{}
	for _, s := range m.rounds {
		for _, id := range s.inquiry.round.Observers() {
			asked[id]++
		}
	}
	for id, s := range m.servers {
		if s.load < 0 || s.load > asked[id] {
			return id
		}
	}
	return ""
}
