package sim

import "time"

// meter measures what the machine takes of a processor. What it says is printed
// and decides nothing.
type meter struct {
	began time.Duration
	total time.Duration
}

func (m *meter) begin() { m.began = processorTime() }

func (m *meter) end() { m.total += processorTime() - m.began }
