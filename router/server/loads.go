package server

import (
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// loadHalfLife is how fast a pick is forgotten. It is of the order of a
// request's life, but its exact value hardly matters: only the ratio between
// servers does.
const loadHalfLife = time.Second

// loads estimates how busy the servers of one table are. A router hands out
// servers but does not see when the work on them ends, so it cannot count what
// is in flight. What it knows is what it has handed out lately: each pick adds
// one, and every half-life the count is halved. By Little's law that is
// proportional to the work in flight as far as pieces of work last equally long
// on all servers. It makes up for unlucky draws, not for slow servers.
//
// A newcomer starts at zero and so gets up to twice its share until it has
// caught up, within a few half-lives.
type loads struct {
	// counts are in the order of Table.Entries. Tables of one pool share the
	// counts of the servers they share, and the total.
	counts []*atomic.Uint64
	total  *atomic.Uint64
}

// quietLoad is what each server may at least be taken to have on average: below,
// no key leaves its server. A bound on next to nothing would send every second
// request of a quiet pool elsewhere.
const quietLoad = 20

// Load returns the estimate for an entry. It is safe for concurrent use.
func (l *loads) Load(i int) uint64 { return l.counts[i].Load() }

// Total is what bounds are a share of. It is safe for concurrent use.
func (l *loads) Total() uint64 { return max(l.total.Load(), quietLoad*uint64(len(l.counts))) }

// add counts a pick.
func (l *loads) add(i int) {
	l.counts[i].Add(1)
	l.total.Add(1)
}

// pickCounts are the counts of a pool's servers. It is not safe for concurrent
// use; the counts are.
type pickCounts struct {
	byID  map[member.ID]*atomic.Uint64
	total *atomic.Uint64
}

func newPickCounts() pickCounts {
	return pickCounts{byID: map[member.ID]*atomic.Uint64{}, total: new(atomic.Uint64)}
}

// loadsOf returns the loads of a table and forgets the servers not in it.
func (p pickCounts) loadsOf(t *view.Table) *loads {
	l := &loads{counts: make([]*atomic.Uint64, len(t.Entries())), total: p.total}
	for i, e := range t.Entries() {
		count := p.byID[e.Server.ID]
		if count == nil {
			count = new(atomic.Uint64)
			p.byID[e.Server.ID] = count
		}
		l.counts[i] = count
	}
	for id := range p.byID {
		if _, ok := t.Find(id); !ok {
			delete(p.byID, id)
		}
	}
	p.sum()
	return l
}

// decay is called once per half-life. Picks made meanwhile are not lost.
func (p pickCounts) decay() {
	for _, count := range p.byID {
		n := count.Load()
		count.Add(n/2 - n)
	}
	p.sum()
}

// sum sets the total right, but for picks made meanwhile.
func (p pickCounts) sum() {
	var sum uint64
	for _, count := range p.byID {
		sum += count.Load()
	}
	p.total.Store(sum)
}
