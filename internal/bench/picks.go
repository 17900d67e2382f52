package bench

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// Each way to choose is measured in turns with the others; of its rounds the
// fastest counts, for what slows the others down is other work on the machine.
const (
	pickRounds = 500
	pickBatch  = 5_000
)

// chooser chooses n times.
type chooser struct {
	name   string
	target float64
	// choose returns the sum of what it has chosen, so that nothing is left out.
	choose func(n int) int
}

// counts are loads of servers, each on its own.
type counts []atomic.Uint64

// Load implements view.Loads.
func (c counts) Load(i int) uint64 { return c[i].Load() }

func localPicks(context.Context) ([]Row, error) {
	var rows []Row
	sum := 0
	for _, n := range []int{10, 1000} {
		choosers := append(ours(n), theirs(n)...)
		best := make([]float64, len(choosers))
		for range pickRounds {
			for i, c := range choosers {
				began := time.Now()
				sum += c.choose(pickBatch)
				took := time.Since(began).Seconds() / pickBatch
				if best[i] == 0 || took < best[i] {
					best[i] = took
				}
			}
		}
		for i, c := range choosers {
			rows = append(rows, pickRow(c, n, best[i]))
		}
	}
	if sum == 0 {
		return nil, errors.New("the first server was chosen always")
	}
	return rows, nil
}

func pickRow(c chooser, n int, took float64) Row {
	allocs := testing.AllocsPerRun(10, func() { c.choose(1000) }) / 1000
	row := Row{
		ID: "R1", Experiment: fmt.Sprintf("local pick, %s, %d servers", c.name, n), Target: "for comparison", Met: true,
		Measured: fmt.Sprintf("%.1f ns, %.0f allocations", took*1e9, allocs),
		Figures:  map[string]float64{"seconds": took, "allocations": allocs},
	}
	if c.target > 0 {
		row.Target = fmt.Sprintf("≤ %.0f ns, 0 allocations", c.target*1e9)
		row.Met = took <= c.target && allocs < 0.5
	}
	return row
}

// ours choose from a table as the client library does: with the random number,
// the turn or the hash of the key, but without counting what is in flight.
func ours(n int) []chooser {
	entries := make([]view.Entry, n)
	for i := range entries {
		id := member.ID(fmt.Sprintf("web-%05d", i))
		entries[i] = view.Entry{Server: &view.Server{
			ID: id, Incarnation: 1, Phase: member.PhaseActive, Weight: member.DefaultWeight,
			Endpoints: []member.Endpoint{{Name: "http", Address: string(id) + ":80"}},
		}}
	}
	table, loads, keys := view.NewTable(entries), make(counts, n), someKeys()
	return []chooser{
		{"p2c", 30e-9, func(n int) (sum int) {
			r := view.Request{Policy: view.P2C, Loads: loads}
			for range n {
				r.Random = rand.Uint64() //nolint:gosec // load balancing is no secret
				sum += pick(table, &r)
			}
			return sum
		}},
		{"round_robin", 0, func(n int) (sum int) {
			r := view.Request{Policy: view.RoundRobin}
			for range n {
				r.Turn++
				sum += pick(table, &r)
			}
			return sum
		}},
		{"random", 0, func(n int) (sum int) {
			r := view.Request{Policy: view.Random}
			for range n {
				r.Random = rand.Uint64() //nolint:gosec // load balancing is no secret
				sum += pick(table, &r)
			}
			return sum
		}},
		{"maglev", 10e-9, func(n int) (sum int) {
			r := view.Request{Policy: view.Maglev}
			for i := range uint(n) {
				r.Key = keys[i%keyCount]
				sum += pick(table, &r)
			}
			return sum
		}},
		{"maglev, bounded", 0, func(n int) (sum int) {
			r := view.Request{Policy: view.Maglev, Loads: loads, TotalLoad: 1}
			for i := range uint(n) {
				r.Key = keys[i%keyCount]
				sum += pick(table, &r)
			}
			return sum
		}},
	}
}

func pick(table *view.Table, r *view.Request) int {
	chosen, _ := table.Pick(r)
	return chosen.Index()
}

// keyCount is a power of two: the bench must not divide where a pick does not.
const keyCount = 1024

func someKeys() *[keyCount]string {
	var keys [keyCount]string
	for i := range keys {
		keys[i] = fmt.Sprintf("session-%07d", i)
	}
	return &keys
}

// theirs are the least that a choice by key costs, with a hash by the processor's own
// means that is another one in each program, and choices as grpc-go's pickers make them: round_robin by an atomic counter,
// least_request by the less loaded of two random ones.
func theirs(n int) []chooser {
	loads, keys, places, seed := make(counts, n), someKeys(), make([]uint32, 65537), maphash.MakeSeed()
	for i := range places {
		places[i] = uint32(i % n)
	}
	var next atomic.Uint32
	return []chooser{
		{"a hash of the key and a look at a table, nothing else", 0, func(batch int) (sum int) {
			for i := range uint(batch) {
				place, _ := bits.Mul64(maphash.String(seed, keys[i%keyCount]), uint64(len(places)))
				sum += int(places[place])
			}
			return sum
		}},
		{"as grpc-go's round_robin", 0, func(batch int) (sum int) {
			for range batch {
				sum += int(next.Add(1)) % n
			}
			return sum
		}},
		{"as grpc-go's least_request", 0, func(batch int) (sum int) {
			for range batch {
				a, b := rand.IntN(n), rand.IntN(n) //nolint:gosec // load balancing is no secret
				if loads[b].Load() < loads[a].Load() {
					a = b
				}
				sum += a
			}
			return sum
		}},
	}
}
