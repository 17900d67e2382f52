package sim

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// Result is what a run has shown. Times are in milliseconds and count from the
// fault, unless they are named AtMS, which count from the end of settling.
type Result struct {
	Seed     uint64      `json:"seed"`
	Servers  int         `json:"servers"`
	Seconds  float64     `json:"simulated_seconds"`
	Hash     string      `json:"trace_hash"`
	Crashes  []Detection `json:"crashes"`
	Stricken []Hit       `json:"stricken"`

	WrongRemovals []Wrong `json:"wrong_removals"`
	// WrongSuspects counts marks about healthy servers: Chen's mistakes. Their
	// duration is in WrongSuspectSeconds.
	WrongSuspects       int     `json:"wrong_suspects"`
	WrongSuspectSeconds float64 `json:"wrong_suspect_seconds"`
	// Revisions counts those with removals by verdict, Sizes the sizes that a
	// subscriber has seen, in order.
	Revisions int   `json:"revisions_with_removals"`
	Sizes     []int `json:"sizes"`
	// Members and Active are the table and what a router gives out at the end,
	// FewestActive the least that it ever gave out.
	Members      int     `json:"members"`
	Active       int     `json:"active"`
	FewestActive int     `json:"fewest_active"`
	AllActiveMS  float64 `json:"all_active_at_ms"`
	// Connected counts the agents with a session at the end; the last one was accepted
	// at LastWelcomeMS.
	Connected     int            `json:"connected"`
	LastWelcomeMS float64        `json:"last_welcome_at_ms"`
	Alarms        map[string]int `json:"alarms_raised"`
	AlarmsLeft    []string       `json:"alarms_left"`
	BrokenRing    []string       `json:"broken_ring"`
	Rounds        int            `json:"rounds"`
	Contradicted  int            `json:"removals_contradicted"`

	// Probes counts echo requests that were sent, Replies those that were answered.
	Probes   int `json:"probes"`
	Replies  int `json:"replies"`
	Messages int `json:"coordinator_messages"`
	// StepSeconds is what the machine took of a processor.
	StepSeconds float64 `json:"machine_seconds"`
}

// Detection is how the crash of a host was noticed. A time of -1 has not come.
type Detection struct {
	Server    string  `json:"server"`
	AtMS      float64 `json:"at_ms"`
	AvoidedMS float64 `json:"avoided_ms"`
	RemovedMS float64 `json:"removed_ms"`
	Revision  uint64  `json:"revision"`
}

// Hit is a server that a fault has struck other than by a crash for good.
type Hit struct {
	Server   string `json:"server"`
	Removals int    `json:"removals"`
	// RemovedMS is when it was removed first, -1 for never; Member says that it was
	// a member at the end.
	RemovedMS float64 `json:"removed_ms"`
	Member    bool    `json:"member"`
	// Condemned says that it was right to remove it.
	Condemned bool `json:"condemned"`
	// Cause is that of the first removal. Likelihood is how much rarer what led to it is without the fault
	// than with it: 0 if it was not removed, 1 unless the fault is LengthenBursts.
	Cause      string  `json:"cause"`
	Likelihood float64 `json:"likelihood"`
}

func (s *Sim) result() *Result {
	l := &s.ledger
	s.coordinator.check(s.coordinator.machine.Position().Revision)
	for id := range l.suspects {
		l.endSuspicion(s, id)
	}
	r := &Result{
		Seed: s.options.Seed, Servers: len(s.hosts), Seconds: (s.now - l.began).Seconds(), Hash: fmt.Sprintf("%016x", s.trace.hash),
		Crashes: make([]Detection, len(l.crashes)), WrongRemovals: slices.Clone(l.wrong), WrongSuspects: l.wrongMarks,
		WrongSuspectSeconds: l.wrongTime.Seconds(), Revisions: l.revisions, Sizes: l.sizes,
		Members: len(s.coordinator.rows), Active: l.active, FewestActive: l.fewestActive, AllActiveMS: -1,
		LastWelcomeMS: ms(l.welcomedAt - s.options.Settle),
		Alarms:        l.alarms, BrokenRing: l.brokenRing, Rounds: l.counts[pool.CountRound], Contradicted: l.counts[pool.CountContradicted],
		Probes: l.probes - l.probes0, Replies: l.replies - l.replies0, Messages: s.coordinator.messages - l.messages0,
		StepSeconds: (s.coordinator.meter.total - l.step0).Seconds(),
	}
	if l.allActiveAt > 0 {
		r.AllActiveMS = ms(l.allActiveAt - s.options.Settle)
	}
	for i, c := range l.crashes {
		r.Crashes[i] = Detection{
			Server: string(c.host.id), AtMS: ms(c.at - s.options.Settle), Revision: uint64(c.revision),
			AvoidedMS: since(c.at, latest(c.avoided)), RemovedMS: since(c.at, latest(c.removed)),
		}
	}
	for _, st := range s.coordinator.machine.Servers() {
		if st.Connected {
			r.Connected++
		}
	}
	for key := range l.raisedNow {
		r.AlarmsLeft = append(r.AlarmsLeft, strings.TrimSpace(key.Name+" "+key.Subject))
	}
	slices.Sort(r.AlarmsLeft)
	r.Stricken = s.stricken()
	return r
}

func (s *Sim) stricken() []Hit {
	l := &s.ledger
	var hits []Hit
	for _, id := range slices.SortedFunc(maps.Keys(l.struckAt), func(a, b member.ID) int {
		return cmp.Compare(s.byID[a].index, s.byID[b].index)
	}) {
		h := s.byID[id]
		if h.off > 0 {
			continue
		}
		_, isMember := s.coordinator.rows[id]
		hit := Hit{Server: string(id), Removals: l.removals[id], RemovedMS: -1, Member: isMember, Condemned: h.condemned > 0}
		if hit.Removals > 0 {
			hit.RemovedMS = ms(l.removedAt[id] - l.struckAt[id])
			hit.Cause, hit.Likelihood = l.cause[id].String(), l.likelihood[id]
		}
		hits = append(hits, hit)
	}
	return hits
}

func since(from, to time.Duration) float64 {
	if to == never {
		return -1
	}
	return ms(to - from)
}

// Remaining lists the crashed servers that were not removed at all routers.
func (r *Result) Remaining() []string {
	var ids []string
	for _, c := range r.Crashes {
		if c.RemovedMS < 0 {
			ids = append(ids, c.Server)
		}
	}
	return ids
}

// Good reports whether nobody healthy was removed, everybody dead was, and the
// table has always been one ring.
func (r *Result) Good() bool {
	return len(r.WrongRemovals) == 0 && len(r.Remaining()) == 0 && len(r.BrokenRing) == 0
}

// ServerYears is the time that servers lived through in the run.
func (r *Result) ServerYears() float64 {
	return float64(r.Servers) * r.Seconds / secondsPerYear
}

// echoBytes is the size of an ICMP echo request or reply on IPv4: the headers of
// IP and ICMP and pro-bing's payload.
const echoBytes = 20 + 8 + 24

// BytesPerServer is what a server sends for probing, in bytes per second, its
// own requests and its replies to others; it receives as much:
//
//	(requests + replies) · 52 bytes / servers / seconds
func (r *Result) BytesPerServer() float64 {
	return float64(r.Probes+r.Replies) * echoBytes / float64(r.Servers) / r.Seconds
}

// Quantiles are those of Chen's T_D, in milliseconds, by nearest rank; -1 where
// nothing was detected.
type Quantiles struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Summarize returns the quantiles of some times, of which -1 counts as infinite.
func Summarize(times []float64) Quantiles {
	if len(times) == 0 {
		return Quantiles{P50: -1, P99: -1, Max: -1}
	}
	sorted := slices.Clone(times)
	for i, t := range sorted {
		if t < 0 {
			sorted[i] = math.Inf(1)
		}
	}
	slices.Sort(sorted)
	rank := func(q float64) float64 {
		v := sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
		if math.IsInf(v, 1) {
			return -1
		}
		return v
	}
	return Quantiles{Count: len(sorted), P50: rank(0.50), P99: rank(0.99), Max: rank(1)}
}
