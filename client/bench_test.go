package client

import (
	"fmt"
	"testing"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

func benchPool(n int) *Pool {
	l := &list{}
	for i := range n {
		id := member.ID(fmt.Sprintf("web-%05d", i))
		l.entries = append(l.entries, view.Entry{Server: &view.Server{
			ID: id, Weight: member.DefaultWeight, Endpoints: []member.Endpoint{{Address: string(id) + ":80"}},
		}})
	}
	p := &Pool{name: "web"}
	p.state.Store(unknown(nil).then(l))
	return p
}

func benchRequests() map[string]Request {
	return map[string]Request{
		"p2c": {Policy: P2C}, "round_robin": {Policy: RoundRobin}, "random": {Policy: Random}, "maglev": {Key: "user-7"},
	}
}

// BenchmarkPick is a pick and its Done, in one goroutine and in one per
// processor.
func BenchmarkPick(b *testing.B) {
	for name, r := range benchRequests() {
		for _, n := range []int{10, 1000} {
			p := benchPool(n)
			one := func(b *testing.B) {
				c, err := p.Pick(r)
				if err != nil {
					b.Fatal(err)
				}
				c.Done()
			}
			b.Run(fmt.Sprintf("policy=%s/servers=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					one(b)
				}
			})
			b.Run(fmt.Sprintf("policy=%s/servers=%d/parallel", name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						one(b)
					}
				})
			})
		}
	}
}

func TestPick_DoesNotAllocate(t *testing.T) {
	p := benchPool(100)
	for name, r := range benchRequests() {
		allocs := testing.AllocsPerRun(1000, func() {
			c, err := p.Pick(r)
			if err != nil {
				t.Fatal(err)
			}
			c.Done()
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}
