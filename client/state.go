package client

import (
	"sync/atomic"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// state is what picks are made from. It is immutable, but for the counters
// behind pointers.
type state struct {
	// list is nil while nothing is known; failure then says why, once all routers
	// have been tried.
	list    *list
	failure error
	// table and servers are those of list; servers and loads are in the order of
	// table.Entries.
	table   *view.Table
	servers []Server
	loads   *loads
	// flight is shared by all states of a pool.
	flight *flight
	// superseded is closed when there is a state with other servers, or another
	// failure.
	superseded chan struct{}
}

// unknown is the state of a pool of which nothing is known.
func unknown(failure error) *state {
	return &state{
		failure: failure, table: view.NewTable(nil), loads: &loads{}, flight: &flight{}, superseded: make(chan struct{}),
	}
}

// then returns the state with another list. Where the servers are the same to
// clients it keeps the table, and nobody is woken.
func (s *state) then(l *list) *state {
	next := &state{list: l, table: view.NewTable(l.entries), flight: s.flight, superseded: s.superseded}
	if s.list != nil && len(view.Changed(s.table, next.table)) == 0 {
		next.table, next.servers, next.loads = s.table, s.servers, s.loads
		return next
	}
	next.superseded = make(chan struct{})
	next.servers = make([]Server, len(next.table.Entries()))
	for i, e := range next.table.Entries() {
		next.servers[i] = toServer(e)
	}
	next.loads = s.loadsOf(next.table)
	return next
}

// counter is the number of pieces of work in flight on one server, as far as
// this program knows. Counters that are written by different processors are not
// in one cache line.
type counter struct {
	n atomic.Int64
	// part is the server's part of the sum over all servers.
	part *part
	_    [48]byte
}

func (c *counter) add(d int64) {
	c.n.Add(d)
	c.part.n.Add(d)
}

// load is never negative, even where somebody calls Done twice.
func (c *counter) load() uint64 { return uint64(max(0, c.n.Load())) }

// part is a part of a sum that is written by few processors at a time.
type part struct {
	n atomic.Int64
	_ [56]byte
}

// flight is all work in flight in one pool.
type flight [8]part

// total is the sum, as it was at about this moment.
func (f *flight) total() uint64 {
	sum := int64(0)
	for i := range f {
		sum += f[i].n.Load()
	}
	return uint64(max(0, sum))
}

// loads are the counters of a table's servers, in the order of Table.Entries.
// They are safe for concurrent use.
type loads []*counter

// Load is for view.Request.
func (l *loads) Load(i int) uint64 { return (*l)[i].load() }

// loadsOf returns the loads of the next table, with the counters of the servers
// that are in both.
func (s *state) loadsOf(t *view.Table) *loads {
	next := make(loads, len(t.Entries()))
	for i, e := range t.Entries() {
		if next[i] = s.counter(e.Server.ID); next[i] == nil {
			next[i] = &counter{part: &s.flight[i%len(s.flight)]}
		}
	}
	return &next
}

func (s *state) counter(id member.ID) *counter {
	if i, ok := s.table.Find(id); ok {
		return (*s.loads)[i]
	}
	return nil
}
