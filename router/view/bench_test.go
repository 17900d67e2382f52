package view_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// counts are loads that nobody changes.
type counts []uint64

func (c *counts) Load(i int) uint64 { return (*c)[i] }

func (c *counts) total() uint64 {
	var sum uint64
	for _, n := range *c {
		sum += n
	}
	return sum
}

func benchTable(n int, weight func(i int) uint32) (*view.Table, *counts) {
	entries := make([]view.Entry, n)
	loads := make(counts, n)
	for i := range entries {
		id := member.ID(fmt.Sprintf("web-%05d", i))
		entries[i] = view.Entry{Server: &view.Server{
			ID: id, Incarnation: 1, Phase: member.PhaseActive, Weight: weight(i),
			Endpoints: []member.Endpoint{{Name: "http", Address: string(id) + ":80"}},
		}}
		loads[i] = uint64(i % 7)
	}
	return view.NewTable(entries), &loads
}

func equalWeights(int) uint32 { return member.DefaultWeight }

func mixedWeights(i int) uint32 { return uint32(50 + i%10*25) }

func BenchmarkPick(b *testing.B) {
	policies := map[string]view.Policy{"p2c": view.P2C, "round_robin": view.RoundRobin, "random": view.Random, "maglev": view.Maglev}
	for _, name := range []string{"p2c", "round_robin", "random", "maglev"} {
		for _, n := range []int{10, 1000, 100_000} {
			for weights, weight := range map[string]func(int) uint32{"equal": equalWeights, "mixed": mixedWeights} {
				b.Run(fmt.Sprintf("policy=%s/servers=%d/weights=%s", name, n, weights), func(b *testing.B) {
					table, loads := benchTable(n, weight)
					r := view.Request{Policy: policies[name], Loads: loads}
					b.ReportAllocs()
					for b.Loop() {
						r.Random = rand.Uint64()
						r.Turn++
						if _, ok := table.Pick(&r); !ok {
							b.Fatal("no choice")
						}
					}
				})
			}
		}
	}
}

// BenchmarkPick_ByKey picks by Maglev, bare and with a bound.
func BenchmarkPick_ByKey(b *testing.B) {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprintf("session-%07d", i)
	}
	for _, n := range []int{10, 1000} {
		table, loads := benchTable(n, mixedWeights)
		for name, r := range map[string]view.Request{
			"bare":    {Policy: view.Maglev},
			"bounded": {Policy: view.Maglev, Loads: loads, TotalLoad: uint64(7 * n)},
		} {
			b.Run(fmt.Sprintf("servers=%d/%s", n, name), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					r.Key = keys[i%len(keys)]
					if _, ok := table.Pick(&r); !ok {
						b.Fatal("no choice")
					}
				}
			})
		}
	}
}

// BenchmarkApplyDelta changes one row of a pool and gives it a new table.
func BenchmarkApplyDelta(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprintf("servers=%d", n), func(b *testing.B) {
			table, _ := benchTable(n, mixedWeights)
			var rows []*view.Server
			for _, e := range table.Entries() {
				rows = append(rows, e.Server)
			}
			v, err := view.New("default").ApplySnapshot(view.Snapshot{Servers: rows})
			if err != nil {
				b.Fatal(err)
			}
			changed := *rows[n/2]
			b.ReportAllocs()
			for b.Loop() {
				c := changed
				c.Weight = 1 + uint32(v.Position().Revision%1000)
				from := v.Position().Revision
				v, err = v.ApplyDelta(view.Delta{From: from, To: member.Position{Revision: from + 1}, Put: []*view.Server{&c}})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
