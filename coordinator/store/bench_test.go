package store_test

import (
	"fmt"
	"testing"

	"github.com/buddyring/buddyring/internal/member"
)

// BenchmarkCommit commits joins of n servers, each with its event: the durable
// part of a group commit. Every change joins the servers anew, so the table
// stays at n rows.
func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			s, at := newPool(b)
			at = commit(b, s, joins(at, n))
			for b.Loop() {
				at = commit(b, s, joins(at, n))
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkJoins commits n joins at random places of a large ring in one change:
// a new row, two changed neighbours and an event each.
func BenchmarkJoins(b *testing.B) {
	const n = 1000
	s, at := newPool(b)
	at = commit(b, s, joins(at, 2*n))
	for generation := 0; b.Loop(); generation++ {
		neighbours := joins(at, 2*n).Put
		c := joins(at, n)
		for i := range c.Put {
			c.Put[i].ID = member.ID(fmt.Sprintf("g%d-%s", generation, c.Put[i].ID))
			c.Events[i].ID = c.Put[i].ID
		}
		c.Put = append(c.Put, neighbours...)
		at = commit(b, s, c)
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "joins/s")
}
