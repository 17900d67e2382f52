package pool_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// benchPool is a machine with many members that all have streams. Unlike a
// desk, it checks nothing and carries out nothing but commits.
type benchPool struct {
	b       *testing.B
	m       *pool.Machine
	now     time.Time
	session map[member.ID]pool.SessionID
	rows    map[member.ID]member.Server
	id      map[pool.SessionID]member.ID
	asks    []pool.Ask
}

func newBenchPool(b *testing.B, n int) *benchPool {
	b.Helper()
	p := &benchPool{
		b: b, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		session: map[member.ID]pool.SessionID{}, rows: map[member.ID]member.Server{}, id: map[pool.SessionID]member.ID{},
	}
	m, err := pool.New(member.PoolState{Name: "web", Position: member.Position{Epoch: 1}, Settings: member.DefaultSettings()}, pool.Config{Now: p.now})
	if err != nil {
		b.Fatal(err)
	}
	p.m = m
	p.join(0, n)
	for _, row := range p.rows {
		if row.First != "" {
			p.step(p.report(row.First, row.ID, up))
		}
	}
	p.now = p.now.Add(time.Second)
	p.step(pool.Tick{})
	return p
}

func benchID(i int) member.ID { return member.ID(fmt.Sprintf("server-%06d", i)) }

func (p *benchPool) join(from, n int) {
	for i := from; i < from+n; i++ {
		h := agent(benchID(i))
		h.Session = pool.SessionID(i + 1)
		h.Spec.Zone, h.Spec.Rack = fmt.Sprint("z", i%3), fmt.Sprint("r", i%40)
		p.session[h.ID], p.id[h.Session] = h.Session, h.ID
		p.step(h)
	}
}

// step commits what is proposed, at once.
func (p *benchPool) step(in ...pool.Input) {
	for len(in) > 0 {
		effects := p.m.Step(p.now, in...)
		in = nil
		for _, e := range effects {
			switch e := e.(type) {
			case pool.Propose:
				for _, r := range e.Change.Remove {
					delete(p.rows, r.ID)
				}
				for _, row := range e.Change.Put {
					p.rows[row.ID] = row
				}
				in = append(in, pool.Committed{ChangeID: e.Change.ID})
			case pool.Ask:
				p.asks = append(p.asks, e)
			}
		}
	}
}

func (p *benchPool) report(observer, subject member.ID, s pool.Sight) pool.Input {
	return pool.Report{Session: p.session[observer], Subject: subject, Incarnation: p.rows[subject].Incarnation, Evidence: evidence(s)}
}

func sizes(b *testing.B, run func(b *testing.B, n int)) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { run(b, n) })
	}
}

// BenchmarkDigest is one digest of one agent, the bulk of what a coordinator
// hears.
func BenchmarkDigest(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		p := newBenchPool(b, n)
		var in []pool.Input
		for i := range n {
			row := p.rows[benchID(i)]
			in = append(in, pool.Digest{Session: p.session[row.ID], Subjects: []pool.SubjectDigest{
				{Subject: row.First, Incarnation: p.rows[row.First].Incarnation, Evidence: evidence(up)},
				{Subject: row.Second, Incarnation: p.rows[row.Second].Incarnation, Evidence: evidence(up)},
			}})
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p.m.Step(p.now, in[i%n])
		}
	})
}

// BenchmarkJoinStorm is one server of a pool that joins all at once: hello, its
// part of the changes, and the first good probe.
func BenchmarkJoinStorm(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		b.ReportAllocs()
		for b.Loop() {
			newBenchPool(b, n)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/server")
	})
}

// BenchmarkQueuedJoins is one server of as many as wait for a slow database.
func BenchmarkQueuedJoins(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		b.ReportAllocs()
		for b.Loop() {
			p := newBenchPool(b, 3)
			var propose pool.Propose
			hear := func(effects []pool.Effect) {
				for _, e := range effects {
					if e, ok := e.(pool.Propose); ok {
						propose = e
					}
				}
			}
			for i := 3; i < n; i++ {
				h := agent(benchID(i))
				h.Session = pool.SessionID(i + 1)
				hear(p.m.Step(p.now, h))
			}
			for propose.Change.ID != "" {
				id := propose.Change.ID
				propose = pool.Propose{}
				hear(p.m.Step(p.now, pool.Committed{ChangeID: id}))
			}
			if got := p.m.Status().Members; got != n {
				b.Fatalf("%d members, want %d", got, n)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/server")
	})
}

// BenchmarkCrash is one crash from the first doubt to the new ring.
func BenchmarkCrash(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		p := newBenchPool(b, n)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if i%16 == 0 {
				// Nobody may fall silent, nor the pool become another.
				b.StopTimer()
				if len(p.rows) < n/2 {
					p, i = newBenchPool(b, n), 0
				}
				for _, id := range p.session {
					p.m.Step(p.now, pool.Digest{Session: id})
				}
				b.StartTimer()
			}
			p.crash(benchID(i))
		}
	})
}

func (p *benchPool) crash(id member.ID) {
	row := p.rows[id]
	p.asks = p.asks[:0]
	p.step(p.report(row.Second, id, down), p.report(row.First, id, down))
	asks := p.asks
	p.step(pool.Closed{Session: p.session[id]})
	delete(p.session, id)
	for _, final := range []bool{false, true} {
		for _, a := range asks {
			p.step(pool.Answer{
				Session: a.Session, Round: a.Round, Subject: id, Incarnation: row.Incarnation, Evidence: evidence(down), Final: final,
			})
		}
		if !final {
			p.now = p.now.Add(500 * time.Millisecond)
		}
	}
	if _, left := p.rows[id]; left {
		p.b.Fatalf("%s is not removed", id)
	}
}
