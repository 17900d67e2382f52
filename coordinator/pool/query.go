package pool

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Status is a pool at a glance.
type Status struct {
	Position      member.Position
	Settings      member.Settings
	ReferenceSize int
	// Members counts all phases, Active those that are ACTIVE and not suspect.
	Members, Active, Suspect int
	// ServiceDown counts the members whose service is down.
	ServiceDown int
	WarmingUp   bool
	// Braked says that brake or floor hold removals.
	Braked bool
}

// ServerStatus is a row with the soft state around it.
type ServerStatus struct {
	Server  member.Server
	Suspect bool
	// ServiceText says how its service is down, while it is.
	ServiceText string
	Connected   bool
	// WaitingFor says in plain words why it is not ACTIVE, or is empty.
	WaitingFor string
	Wish       member.Wish
	Temporary  []member.ID
}

// SessionStatus is a live session.
type SessionStatus struct {
	ID               member.ID
	Incarnation      member.Incarnation
	Peer             string
	Version          string
	Since, LastHeard time.Time
	Acked, Assigned  uint64
	// Unwatched are the buddies that it has not acknowledged to watch, Surplus those
	// whom it has and need not, by id.
	Unwatched, Surplus []member.ID
	Subjects           []SubjectDigest
	SelfScore          int
}

// Status returns the pool at a glance.
func (m *Machine) Status() Status {
	st := Status{
		Position: m.position, Settings: m.settings, ReferenceSize: m.reference,
		Members: len(m.servers), Suspect: len(m.marked), ServiceDown: len(m.ailing), WarmingUp: m.warming,
		Braked: m.guard.brake.on || m.guard.floor.on,
	}
	for _, s := range m.servers {
		if s.row.Phase == member.PhaseActive && s.mark == nil && !s.health.down {
			st.Active++
		}
	}
	return st
}

// Servers returns all members by id.
func (m *Machine) Servers() []ServerStatus {
	all := make([]ServerStatus, 0, len(m.servers))
	for _, id := range sortedKeys(m.servers) {
		all = append(all, m.status(m.servers[id]))
	}
	return all
}

// Server returns a member, or false for a stranger.
func (m *Machine) Server(id member.ID) (ServerStatus, bool) {
	s := m.servers[id]
	if s == nil {
		return ServerStatus{}, false
	}
	return m.status(s), true
}

func (m *Machine) status(s *server) ServerStatus {
	st := ServerStatus{
		Server: s.row.Clone(), Suspect: s.mark != nil, Connected: m.live(s.row.ID) != nil,
		WaitingFor: m.waitingFor(s), Wish: m.wish(s.row.ID),
	}
	if s.health.down {
		st.ServiceText = s.health.words()
	}
	for _, w := range m.watchers(s) {
		if w.role == RoleTemporary {
			st.Temporary = append(st.Temporary, w.id)
		}
	}
	return st
}

// waitingFor says in plain words why a member is not ACTIVE.
func (m *Machine) waitingFor(s *server) string {
	switch s.row.Phase {
	case member.PhaseHeld:
		return "the end of its hold-down after a removal"
	case member.PhaseDraining:
		if s.leave != nil {
			return "routers to confirm, and then it leaves"
		}
		return "an operator, or its own shutdown"
	case member.PhaseServiceDown:
		return "its service to pass its checks: " + s.health.words()
	case member.PhaseJoining:
		for _, w := range m.watchers(s) {
			if m.misses(w.id, s) {
				return fmt.Sprintf("no reply to %s from %s: filtered? try --probe tcp://:PORT", s.row.Spec.Probe, w.id)
			}
		}
		return "a first good probe by " + join(slices.Compact([]member.ID{s.row.First, s.row.Second}))
	case member.PhaseActive:
		if s.health.down {
			return "the table to follow: its service is down"
		}
	case member.PhaseUnspecified:
	}
	return ""
}

// Ring returns the rows in ring order, starting at the smallest id.
func (m *Machine) Ring() []member.Server {
	order := m.ring.Order()
	rows := make([]member.Server, len(order))
	for i, id := range order {
		rows[i] = m.servers[id].row.Clone()
	}
	return rows
}

// Sessions returns the accepted sessions by server id.
func (m *Machine) Sessions() []SessionStatus {
	var all []SessionStatus
	for _, id := range sortedKeys(m.servers) {
		s := m.servers[id]
		sess := m.sessions[s.session]
		if sess == nil {
			continue
		}
		st := SessionStatus{
			ID: id, Incarnation: s.row.Incarnation, Peer: sess.hello.Peer, Version: sess.hello.Version,
			Since: sess.since, LastHeard: sess.lastHeard, Acked: sess.acked, Assigned: sess.assigned.Seq,
			Subjects: sess.digest, SelfScore: sess.selfScore,
		}
		st.Unwatched, st.Surplus = m.listDiffers(s, sess)
		all = append(all, st)
	}
	return all
}

// Marks returns the suspect marks that hold now, in order of their Seq.
func (m *Machine) Marks() []member.Mark {
	marks := make([]member.Mark, 0, len(m.marked))
	for id := range m.marked {
		marks = append(marks, *m.servers[id].mark)
	}
	slices.SortFunc(marks, func(a, b member.Mark) int { return cmp.Compare(a.Seq, b.Seq) })
	return marks
}

// SoftSeq is the newest Seq of a mark in this epoch, also of cleared ones.
func (m *Machine) SoftSeq() uint64 { return m.softSeq }

// Alarms returns the active alarms, newest first.
func (m *Machine) Alarms() []member.Alarm {
	all := slices.Collect(maps.Values(m.alarms))
	slices.SortFunc(all, func(a, b member.Alarm) int {
		return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Subject, b.Subject))
	})
	return all
}

// Decisions returns the newest decisions about a server, member or not, newest
// first.
func (m *Machine) Decisions(id member.ID) []Decision { return slices.Clone(m.logs[id]) }

// Intents returns the operators' wishes by id.
func (m *Machine) Intents() []member.Intent {
	return slices.SortedFunc(maps.Values(m.intents), func(a, b member.Intent) int { return cmp.Compare(a.ID, b.ID) })
}

// Departed returns what is remembered of a server's last removal by verdict.
func (m *Machine) Departed(id member.ID) (member.Departed, bool) {
	d, ok := m.departed[id]
	return d, ok
}

// Safety is the short form of Brake.
func (m *Machine) Safety() member.Safety { return *m.safety() }

// ServicesDown counts the members whose service is down.
func (m *Machine) ServicesDown() int { return len(m.ailing) }

// Brake returns where the pool stands between its brake and its floor.
func (m *Machine) Brake() BrakeStatus {
	c := m.weigh(nil)
	st := BrakeStatus{Safety: *m.safetyOf(c)}
	for _, z := range c.Zones {
		st.Zones = append(st.Zones, ZoneStatus{z.Name, z.Size, z.Suspects, verdict.ZoneLimit(z.Size, m.settings)})
	}
	for _, stop := range []stop{m.guard.brake, m.guard.floor} {
		if stop.on {
			st.Stops = append(st.Stops, Stop{stop.ruling.Rule, stop.ruling.Reason, stop.since})
		}
	}
	if len(st.Stops) > 0 {
		for _, id := range m.heldBack() {
			s := m.servers[id]
			st.Held = append(st.Held, HeldRemoval{id, s.row.Spec.Zone, s.row.Spec.Rack, s.inquiry.suspectSince})
		}
	}
	for _, id := range sortedKeys(m.guard.released) {
		if m.servers[id] != nil && m.isReleased(id) {
			st.Released = append(st.Released, ReleasedRemoval{id, m.guard.released[id]})
		}
	}
	return st
}

// Position is where the pool's history stands.
func (m *Machine) Position() member.Position { return m.position }
