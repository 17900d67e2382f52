package sim

import (
	"runtime"

	"golang.org/x/sync/errgroup"
)

// RunSeeds makes the same run with seeds from o.Seed on, as many at a time as
// there are processors. tell, if not nil, hears of each result as it comes.
func RunSeeds(o Options, seeds int, tell func(*Result)) ([]*Result, error) {
	results := make([]*Result, seeds)
	done := make(chan *Result, seeds)
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	told := make(chan struct{})
	go func() {
		defer close(told)
		for r := range done {
			if tell != nil {
				tell(r)
			}
		}
	}()
	for i := range seeds {
		work.Go(func() error {
			o := o
			o.Seed += uint64(i)
			r, err := Run(o)
			if err != nil {
				return err
			}
			results[i] = r
			done <- r
			return nil
		})
	}
	err := work.Wait()
	close(done)
	<-told
	return results, err
}

// Summary is what several runs have shown together.
type Summary struct {
	Runs        int     `json:"runs"`
	Servers     int     `json:"servers"`
	ServerYears float64 `json:"server_years"`
	// Avoided and Removed are Chen's detection time T_D up to the last router, in
	// milliseconds: crash → not given out any more, crash → removal applied.
	Avoided Quantiles `json:"avoided_ms"`
	Removed Quantiles `json:"removed_ms"`
	// Remaining counts crashed servers that were not removed.
	Remaining     int `json:"crashed_and_not_removed"`
	WrongRemovals int `json:"wrong_removals"`
	WrongSuspects int `json:"wrong_suspects"`
	// WrongSuspectSeconds is how long healthy servers were suspect in all: T_M is
	// that divided by WrongSuspects.
	WrongSuspectSeconds float64 `json:"wrong_suspect_seconds"`
	// MistakesPerServerYear counts wrong marks; RecurrenceYears is Chen's T_MR, the
	// mean time between two of them for one server, 0 if there was none.
	MistakesPerServerYear float64 `json:"mistakes_per_server_year"`
	RecurrenceYears       float64 `json:"recurrence_server_years"`
	// RemovalRevisions are those with removals, of all runs.
	RemovalRevisions int `json:"revisions_with_removals"`
	// DistinctSizes is the most sizes that a subscriber saw in one run.
	DistinctSizes    int     `json:"distinct_sizes"`
	ProbesPerSecond  float64 `json:"probes_per_server_second"`
	BytesPerSecond   float64 `json:"probe_bytes_per_server_second"`
	MessagesPerSec   float64 `json:"coordinator_messages_per_second"`
	StepShare        float64 `json:"machine_cpu_share"`
	RoundsPerSecond  float64 `json:"rounds_per_second"`
	BrokenRings      int     `json:"broken_rings"`
	SimulatedSeconds float64 `json:"simulated_seconds"`
}

// Summarise puts results of one size together.
func Summarise(results []*Result) Summary {
	var s Summary
	var avoided, removed []float64
	var probes, bytes, messages, step, rounds float64
	for _, r := range results {
		s.Runs++
		s.Servers = r.Servers
		s.ServerYears += r.ServerYears()
		s.Remaining += len(r.Remaining())
		s.WrongRemovals += len(r.WrongRemovals)
		s.WrongSuspects += r.WrongSuspects
		s.WrongSuspectSeconds += r.WrongSuspectSeconds
		s.RemovalRevisions += r.Revisions
		s.BrokenRings += len(r.BrokenRing)
		s.DistinctSizes = max(s.DistinctSizes, distinct(r.Sizes))
		s.SimulatedSeconds += r.Seconds
		for _, c := range r.Crashes {
			avoided, removed = append(avoided, c.AvoidedMS), append(removed, c.RemovedMS)
		}
		probes += float64(r.Probes) / float64(r.Servers)
		bytes += r.BytesPerServer() * r.Seconds
		messages += float64(r.Messages)
		step += r.StepSeconds
		rounds += float64(r.Rounds)
	}
	s.Avoided, s.Removed = Summarize(avoided), Summarize(removed)
	s.MistakesPerServerYear = float64(s.WrongSuspects) / s.ServerYears
	if s.WrongSuspects > 0 {
		s.RecurrenceYears = s.ServerYears / float64(s.WrongSuspects)
	}
	t := s.SimulatedSeconds
	s.ProbesPerSecond, s.BytesPerSecond, s.MessagesPerSec = probes/t, bytes/t, messages/t
	s.StepShare, s.RoundsPerSecond = step/t, rounds/t
	return s
}

func distinct(sizes []int) int {
	seen := map[int]bool{}
	for _, n := range sizes {
		seen[n] = true
	}
	return len(seen)
}
