package detect

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// lateEvery is how often the measuring program's own timers are looked at.
const lateEvery = 5 * time.Millisecond

// monitor watches how late the timers of the measuring program are, which is
// how long a program had to wait for a processor. The zero value is ready.
type monitor struct {
	mu sync.Mutex
	// all are all latenesses, worst is the largest since the last mark.
	all   []time.Duration
	worst time.Duration
	// before and after are the processors' times at the ends.
	before, after processors
}

// watch watches until ctx ends.
func (m *monitor) watch(ctx context.Context) (err error) {
	if m.before, err = readProcessors(); err != nil {
		return err
	}
	timer := time.NewTimer(lateEvery)
	defer timer.Stop()
	for {
		due := time.Now().Add(lateEvery)
		timer.Reset(lateEvery)
		select {
		case <-ctx.Done():
			m.after, err = readProcessors()
			return err
		case <-timer.C:
		}
		m.note(time.Since(due))
	}
}

func (m *monitor) note(late time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, late)
	m.worst = max(m.worst, late)
}

// mark returns the largest lateness since the last mark.
func (m *monitor) mark() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	worst := m.worst
	m.worst = 0
	return worst
}

// strain sums up, after watch has ended.
func (m *monitor) strain() Strain {
	return Strain{Late: quantiles(m.all), Busy: m.before.busy(m.after)}
}

// compete starts processes that do nothing but compete for the processors.
func compete(n int) (quit func(), err error) {
	var all []*exec.Cmd
	quit = func() {
		for _, cmd := range all {
			_ = cmd.Process.Kill() // it has not ended by itself
			_ = cmd.Wait()
		}
	}
	for range n {
		cmd := exec.Command("sh", "-c", "while :; do :; done") //nolint:noctx // it lives until quit
		if err := cmd.Start(); err != nil {
			quit()
			return nil, fmt.Errorf("compete for the processors: %w", err)
		}
		all = append(all, cmd)
	}
	return quit, nil
}

// processors are the times of all processors together since the machine's
// start, in ticks.
type processors struct{ idle, total uint64 }

func readProcessors() (processors, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processors{}, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	// The kernel counts, in this order.
	var user, nice, system, idle, wait, irq, softirq, steal uint64
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &softirq, &steal); err != nil {
		return processors{}, fmt.Errorf("read times of the processors: %q: %w", line, err)
	}
	return processors{idle: idle + wait, total: user + nice + system + idle + wait + irq + softirq + steal}, nil
}

// busy is the share of the time until then that was not idle, in percent.
func (p processors) busy(then processors) float64 {
	if then.total == p.total {
		return 0
	}
	return round(100*(1-float64(then.idle-p.idle)/float64(then.total-p.total)), 1)
}
