package sim

import "time"

// meter measures the machine's real time. What it says is printed and decides
// nothing.
type meter struct {
	began time.Time
	total time.Duration
	calls int
}

func (m *meter) begin() { m.began = time.Now() }

func (m *meter) end() {
	m.total += time.Since(m.began)
	m.calls++
}
