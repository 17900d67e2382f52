package pool

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// filteredFor is how long servers that answer TCP but no probe are gathered
// before the alarm, so that one alarm tells of all.
const filteredFor = time.Second

// acquit notes whether a round has found the server well though observers miss
// it: it is then not suspect until another round says otherwise.
func (m *Machine) acquit(s *server, r *verdict.Round, ruling verdict.Ruling) {
	filtered := ruling.Verdict == verdict.Filtered
	s.inquiry.acquitted = filtered || ruling.Verdict == verdict.Alive && len(r.Reaching()) >= 2
	id := s.row.ID
	if filtered == m.filtered[id] {
		return
	}
	if !filtered {
		m.unfilter(id)
		return
	}
	m.filtered[id] = true
	m.wake(m.now.Add(filteredFor), wakeFiltered, "", 0)
}

// lookFiltered raises the alarm about what eats the probes.
func (m *Machine) lookFiltered() {
	if len(m.filtered) == 0 {
		return
	}
	ids := sortedKeys(m.filtered)
	text := fmt.Sprintf("%d of %d servers answer TCP but no probe, %s among them: something eats ICMP; let echo requests and replies through between the members, or probe them with --probe tcp://:PORT",
		len(ids), m.ring.Len(), join(ids[:min(len(ids), 3)]))
	m.raise(alarmICMPFiltered, "", text)
}

// unfilter hears that a server answers probes again, or is gone.
func (m *Machine) unfilter(id member.ID) {
	if !m.filtered[id] {
		return
	}
	delete(m.filtered, id)
	if len(m.filtered) == 0 {
		m.clearAlarm(alarmICMPFiltered, "")
	}
}
