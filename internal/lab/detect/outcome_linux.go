package detect

import (
	"context"
	"os"
	"strings"
	"time"
)

// report sums up, and finds the removals that had no crash.
func (e *experiment) report(ctx context.Context) (Report, error) {
	r := summary(e.samples)
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return Report{}, err
	}
	r.Date, r.Machine = time.Now().Format(time.DateOnly), machine(strings.TrimSpace(string(kernel)))
	r.Servers, r.Routers = e.cfg.Servers, e.cfg.Routers
	removals, err := e.site.Removals(ctx)
	if err != nil {
		return Report{}, err
	}
	crashed := map[string]int{}
	for _, s := range e.samples {
		crashed[s.Server]++
	}
	for _, removal := range removals {
		if crashed[removal.GetServerId()]--; crashed[removal.GetServerId()] < 0 {
			r.WrongRemovals = append(r.WrongRemovals, removal.GetServerId())
		}
	}
	return r, nil
}
