package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// Times are how long something took, each time.
type Times []time.Duration

// Quantile returns the time that a share of them does not exceed; 0 of none.
func (t Times) Quantile(share float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// MarshalJSON gives the figures in seconds.
func (t Times) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"count": len(t), "p50_s": t.Quantile(.5).Seconds(), "p99_s": t.Quantile(.99).Seconds(), "max_s": t.Quantile(1).Seconds(),
	})
}

// Report is what came of an experiment.
type Report struct {
	Coordinators int `json:"coordinators"`
	Servers      int `json:"servers"`
	// Failover is the time from the kill of the leader to the first session that
	// another one accepts; Handover, from SIGTERM; Stopped, from SIGSTOP; Crashed,
	// from the return of a database that was killed together with the leader.
	Failover Times `json:"failover"`
	Handover Times `json:"handover"`
	Stopped  Times `json:"stopped"`
	Crashed  Times `json:"crashed"`
	// What was acknowledged, and how much the history has.
	Joins     int    `json:"joins"`
	Leaves    int    `json:"leaves"`
	Intents   int    `json:"intents"`
	Revisions uint64 `json:"revisions"`
	Epochs    uint64 `json:"epochs"`
	// What must not be.
	Lost          []string `json:"lost_acknowledged_changes"`
	StaleWrites   []string `json:"stale_writes"`
	StaleEffects  []string `json:"stale_effects"`
	WrongRemovals []string `json:"wrong_removals"`
	// Superseded are leaders that were well and lost the lead by an outage of the
	// database.
	Superseded []string `json:"superseded"`
}

func newReport(cfg Config) Report {
	return Report{
		Coordinators: cfg.Coordinators, Servers: cfg.Servers,
		Lost: []string{}, StaleWrites: []string{}, StaleEffects: []string{}, WrongRemovals: []string{}, Superseded: []string{},
	}
}

// Wrong counts what must not be.
func (r Report) Wrong() int {
	return len(r.Lost) + len(r.StaleWrites) + len(r.StaleEffects) + len(r.WrongRemovals) + len(r.Superseded)
}

// Write writes the report for people.
func (r Report) Write(w io.Writer) error {
	lines := []string{
		fmt.Sprintf("%d coordinators, %d servers; acknowledged: %d joins, %d leaves, %d intents; %d revisions in %d epochs",
			r.Coordinators, r.Servers, r.Joins, r.Leaves, r.Intents, r.Revisions, r.Epochs),
	}
	for _, t := range []struct {
		name  string
		times Times
	}{
		{"SIGKILL of the leader → first session", r.Failover},
		{"SIGTERM → first session", r.Handover},
		{"SIGSTOP → first session", r.Stopped},
		{"leader and database killed: database back → first session", r.Crashed},
	} {
		if len(t.times) > 0 {
			lines = append(lines, fmt.Sprintf("%-60s n = %-4d p50 %.2f s   p99 %.2f s   max %.2f s", t.name, len(t.times),
				t.times.Quantile(.5).Seconds(), t.times.Quantile(.99).Seconds(), t.times.Quantile(1).Seconds()))
		}
	}
	for _, c := range []struct {
		name string
		what []string
	}{
		{"lost acknowledged changes", r.Lost},
		{"stale writes", r.StaleWrites},
		{"stale effects at agents", r.StaleEffects},
		{"wrong removals", r.WrongRemovals},
		{"leaders that were well and lost the lead by an outage", r.Superseded},
	} {
		lines = append(lines, fmt.Sprintf("%-60s %d", c.name, len(c.what)))
		for _, text := range c.what[:min(10, len(c.what))] {
			lines = append(lines, "    "+text)
		}
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}
