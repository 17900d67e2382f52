package bench

import (
	"context"
	"fmt"
	"slices"
)

// Row is one figure beside its target.
type Row struct {
	ID         string `json:"id"`
	Experiment string `json:"experiment"`
	Target     string `json:"target"`
	Measured   string `json:"measured"`
	Met        bool   `json:"met"`
	// Figures are what Measured says, in SI units, bytes and ratios.
	Figures map[string]float64 `json:"figures"`
}

// Experiment is one kind of measurement.
type Experiment struct {
	ID string
	// Run measures. Rows are in the order to print them.
	Run func(ctx context.Context) ([]Row, error)
}

// All returns the experiments in the order of their targets.
func All() []Experiment {
	return []Experiment{
		{"R1", localPicks},
		{"R2", unaryPicks},
		{"R3", fanOut},
		{"R3-slow", slowWatchers},
		{"R3-idle", idleWatchers},
		{"R4", xdsClients},
		{"R5", rollingRestart},
	}
}

// quantile returns the q-quantile of samples, which it sorts; 0 of none.
func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	slices.Sort(samples)
	return samples[min(len(samples)-1, int(q*float64(len(samples))))]
}

func median(samples []float64) float64 { return quantile(samples, 0.5) }

// milliseconds prints a time given in seconds.
func milliseconds(s float64) string { return fmt.Sprintf("%.1f ms", s*1e3) }

const mib = 1 << 20

func mebibytes(bytes float64) string { return fmt.Sprintf("%.0f MiB", bytes/mib) }
