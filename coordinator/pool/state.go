package pool

import "fmt"

// lookState hears whether an agent's newest state is on its disk. When its stream
// is lost, the alarm stays as it was: the next stream tells.
func (m *Machine) lookState(s *server, trouble string) {
	id := s.row.ID
	if trouble == "" {
		m.clearAlarm(alarmAgentStateUnsaved, id)
		return
	}
	m.raise(alarmAgentStateUnsaved, id, fmt.Sprintf("the agent of %s cannot write its state, and acknowledges no new buddies: %s", id, trouble))
}
