package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// health is what an agent's checks say of its own server's service. It is soft
// state: the row follows. A lost stream or another run of the agent leaves it as
// it was.
type health struct {
	down bool
	// text says which check fails and how; since is zero while the service is up.
	text  string
	since time.Time
}

// takeHealth hears what an agent's checks find about its own server's service.
func (m *Machine) takeHealth(in ServiceHealth) {
	sess, s := m.from(in.Session)
	if sess == nil {
		return
	}
	m.heard(sess)
	if in.Incarnation != s.row.Incarnation {
		m.count(CountDropped)
		return
	}
	m.hearHealth(s, &in)
}

// digestHealth hears the same from a digest; nil is from an agent without checks,
// which finds nothing wrong. One with checks that have no result yet is undecided.
func (m *Machine) digestHealth(s *server, in *ServiceHealth) {
	switch {
	case in == nil:
		m.hearHealth(s, &ServiceHealth{})
	case in.Incarnation == s.row.Incarnation:
		m.hearHealth(s, in)
	}
}

// hearHealth tells the routers at once and lets the row follow.
func (m *Machine) hearHealth(s *server, in *ServiceHealth) {
	h := &s.health
	switch {
	case in.Undecided:
		return
	case in.Down == h.down:
		if in.Down && in.Text != "" {
			h.text = in.Text
		}
		return
	case in.Down:
		*h = health{down: true, text: in.Text, since: m.now}
	default:
		*h = health{}
	}
	m.publishMark(s, s.mark != nil)
	m.due[s.row.ID] = true
	m.lookHealth(s)
}

// assumeHealth takes the row's word for a service of which its agent has said
// nothing yet.
func (m *Machine) assumeHealth(s *server) {
	s.health = health{}
	if s.row.Phase == member.PhaseServiceDown {
		s.health = health{down: true, since: s.row.Since}
	}
	m.wake(m.now, wakeHealth, string(s.row.ID), 0)
}

// lookHealth raises or ends the alarm about a member's service.
func (m *Machine) lookHealth(s *server) {
	id := s.row.ID
	if !s.health.down {
		delete(m.ailing, id)
		m.clearAlarm(alarmServiceDown, id)
		return
	}
	m.ailing[id] = true
	m.raise(alarmServiceDown, id, fmt.Sprintf("the service of %s is down, its host is not: %s", id, s.health.words()))
}

// words says how the service is down.
func (h *health) words() string {
	if h.text == "" {
		return "its agent has not said how"
	}
	return h.text
}

// renewHealth renews the mark of a server whose row cannot follow yet.
func (m *Machine) renewHealth(s *server) {
	if s.health.down && s.mark == nil && s.row.Phase == member.PhaseActive && m.now.Sub(s.markAt) >= markTTL/3 {
		m.publishMark(s, false)
	}
}

// serviceEvent is the kind of event of a change of phase that its service is
// behind, or else the given one.
func serviceEvent(from, to member.Phase, otherwise member.EventKind) member.EventKind {
	switch {
	case to == member.PhaseServiceDown:
		return member.EventServiceDown
	case from == member.PhaseServiceDown:
		return member.EventServiceUp
	}
	return otherwise
}

// isCandidate reports whether a member would get work if all were well.
func isCandidate(row *member.Server) bool {
	return (row.Phase == member.PhaseActive || row.Phase == member.PhaseServiceDown) && row.Spec.Weight > 0 && len(row.Spec.Endpoints) > 0
}

// tendServices raises an alarm while so many services are down, or servers
// suspect, that routers use the former as a last resort: more than half of those
// that would get work if all were well.
func (m *Machine) tendServices() {
	key := member.AlarmKey{Name: alarmServicesDown, Pool: m.name}
	if _, active := m.alarms[key]; len(m.ailing) == 0 && !active {
		return
	}
	down, suspect := 0, 0
	for id := range m.ailing {
		if isCandidate(&m.servers[id].row) {
			down++
		}
	}
	for id := range m.marked {
		if s := m.servers[id]; isCandidate(&s.row) && !s.health.down {
			suspect++
		}
	}
	if all := m.stand().candidates; down > 0 && 2*(down+suspect) > all {
		m.raise(alarmServicesDown, "", fmt.Sprintf(
			"the service is down on %d of %d servers, and %d more are suspect: routers use the former as a last resort; was a check rolled out that is wrong?",
			down, all, suspect))
	} else {
		m.clearAlarm(alarmServicesDown, "")
	}
}
