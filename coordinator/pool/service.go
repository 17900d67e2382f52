package pool

// takeHealth hears what an agent's checks find about its own server's service.
func (m *Machine) takeHealth(in ServiceHealth) {
	if sess, _ := m.from(in.Session); sess != nil {
		m.heard(sess)
	}
}
