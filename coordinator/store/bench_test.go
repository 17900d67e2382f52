package store_test

import (
	"fmt"
	"testing"
	"time"

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

// BenchmarkLoadPools reads what a new leader reads of a pool of 1,000 servers. The
// request ids that operators have left cost it nothing, and a look for one of them
// the same however many there are.
func BenchmarkLoadPools(b *testing.B) {
	for _, n := range []int{0, 20_000} {
		s, at := newPool(b)
		at = commit(b, s, joins(at, 1000))
		for done := 0; done < n; done += 1000 {
			c := change(at)
			for i := range 1000 {
				c.Requests = append(c.Requests, member.Request{ID: fmt.Sprint("r", done+i), Hash: "h", Revision: c.Revision(), At: time.Now()})
			}
			at = commit(b, s, c)
		}
		b.Run(fmt.Sprintf("load/requests=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.LoadPools(b.Context()); err != nil {
					b.Fatal(err)
				}
				if _, err := s.DeletedPools(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("look/requests=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Requests(b.Context(), "r7"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
