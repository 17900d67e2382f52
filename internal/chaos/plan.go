package chaos

import "math/rand/v2"

// fault is a kind of fault.
type fault string

// The kinds of faults; see Config.
const (
	faultKill     fault = "kill"
	faultHandover fault = "handover"
	faultStop     fault = "stop"
	faultCrash    fault = "crash"
	faultCut      fault = "cut"
	faultOutage   fault = "outage"
	faultClock    fault = "clock"
	faultOther    fault = "other"
	faultNode     fault = "node"
	faultHost     fault = "host"
	faultSlow     fault = "slow"
)

// plan is all faults in an order that is drawn.
func plan(cfg Config, rng *rand.Rand) []fault {
	var all []fault
	for _, part := range []struct {
		what  fault
		times int
	}{
		{faultKill, cfg.Kills},
		{faultHandover, cfg.Handovers},
		{faultStop, cfg.Stops},
		{faultCrash, cfg.Crashes},
		{faultCut, cfg.Cuts},
		{faultOutage, cfg.Outages},
		{faultClock, cfg.Clocks},
		{faultOther, cfg.Others},
		{faultNode, cfg.Nodes},
		{faultHost, cfg.Hosts},
		{faultSlow, cfg.Slows},
	} {
		for range part.times {
			all = append(all, part.what)
		}
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}
