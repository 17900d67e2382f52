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
	// counts of the servers they share.
	counts []*atomic.Uint64
}

// Load returns the estimate for an entry. It is safe for concurrent use.
func (l *loads) Load(i int) uint64 { return l.counts[i].Load() }

// pickCounts are the counts of a pool's servers. It is not safe for concurrent
// use; the counts are.
type pickCounts map[member.ID]*atomic.Uint64

// loadsOf returns the loads of a table and forgets the servers not in it.
func (p pickCounts) loadsOf(t *view.Table) *loads {
	l := &loads{counts: make([]*atomic.Uint64, len(t.Entries()))}
	for i, e := range t.Entries() {
		count := p[e.Server.ID]
		if count == nil {
			count = new(atomic.Uint64)
			p[e.Server.ID] = count
		}
		l.counts[i] = count
	}
	for id := range p {
		if _, ok := t.Find(id); !ok {
			delete(p, id)
		}
	}
	return l
}

// decay is called once per half-life. Picks made meanwhile are not lost.
func (p pickCounts) decay() {
	for _, count := range p {
		n := count.Load()
		count.Add(n/2 - n)
	}
}
