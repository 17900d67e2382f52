package detect

import "context"

// report sums up, and finds the removals that had no crash.
func (e *experiment) report(ctx context.Context) (Report, error) {
	r := summary(e.samples)
	var err error
	if r.Setting, err = e.setting(); err != nil {
		return Report{}, err
	}
	r.Strain = e.strain.strain()
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
