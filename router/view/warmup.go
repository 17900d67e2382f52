package view

import (
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// fullShare is the share of a server that has warmed up. Shares are tenths, so
// that weights, and with them the places of Maglev and what clients are told,
// change ten times and not all the time.
const fullShare = 10

// Warmup starts the servers of a pool slowly that are new to work: who joined,
// came back, or was well again within the window gets
//
//	weight * max(10 %, time since then / window)
//
// in steps of a tenth, which is Envoy's slow start with an aggression of 1, and
// never less than 1: weights are whole numbers, and one of 1 is there at once.
// Coming back from SUSPECT is not new, and nobody is who was there in the first
// table. While all ACTIVE servers are new, all have their whole weight: there is
// nobody who could spare them.
//
// It is immutable and safe for concurrent use.
type Warmup struct {
	window time.Duration
	// base is the table as it is without weights of ours; nil at first.
	base  *Table
	table *Table
	// fresh are who is new, by id.
	fresh []newcomer
}

// newcomer is a server that has not got its whole weight yet.
type newcomer struct {
	id          member.ID
	incarnation member.Incarnation
	since       time.Time
	// share is in tenths, at least 1.
	share uint32
}

// NewWarmup returns the warm-up of a pool that has no table yet. Without a window
// there is no slow start.
func NewWarmup(window time.Duration) *Warmup { return &Warmup{window: window} }

// Table is the last table that was followed, with the weights of the last time
// given. It has the same servers in the same order, and so the same indexes.
func (w *Warmup) Table() *Table { return w.table }

// Follow returns the warm-up after the pool's table has become t at now.
func (w *Warmup) Follow(t *Table, now time.Time) *Warmup {
	next := &Warmup{window: w.window, base: t}
	if w.base != nil && w.window > 0 {
		for _, i := range t.byID {
			if c, ok := w.arrive(&t.entries[i], now); ok {
				next.fresh = append(next.fresh, c)
			}
		}
	}
	return next.weigh()
}

// Advance returns the warm-up at now; w itself where no weight changes by that.
func (w *Warmup) Advance(now time.Time) *Warmup {
	fresh := slices.Clone(w.fresh)
	for i := range fresh {
		fresh[i].share = w.shareAt(fresh[i], now)
	}
	fresh = slices.DeleteFunc(fresh, func(c newcomer) bool { return c.share == fullShare })
	if slices.Equal(fresh, w.fresh) {
		return w
	}
	return (&Warmup{window: w.window, base: w.base, fresh: fresh}).weigh()
}

// arrive returns a server of the next table as newcomer, if it is one.
func (w *Warmup) arrive(e *Entry, now time.Time) (newcomer, bool) {
	c := newcomer{e.Server.ID, e.Server.Incarnation, now, 1}
	i, was := w.base.Find(c.id)
	was = was && w.base.entries[i].Server.Incarnation == c.incarnation
	switch {
	case e.State > StateSuspect || was && w.base.entries[i].State <= StateSuspect:
		known, found := slices.BinarySearchFunc(w.fresh, c.id, func(c newcomer, id member.ID) int { return compareIDs(c.id, id) })
		if !found || e.State > StateSuspect {
			return c, false
		}
		c.since = w.fresh[known].since
	case e.State != StateActive:
		return c, false
	}
	c.share = w.shareAt(c, now)
	return c, c.share < fullShare
}

func (w *Warmup) shareAt(c newcomer, now time.Time) uint32 {
	return uint32(min(fullShare, max(1, fullShare*now.Sub(c.since)/w.window)))
}

// weigh gives w its table.
func (w *Warmup) weigh() *Warmup {
	w.table = w.base
	if w.base == nil || len(w.fresh) == 0 {
		return w
	}
	entries, active := slices.Clone(w.base.entries), 0
	for _, c := range w.fresh {
		i, ok := w.base.Find(c.id)
		if !ok {
			continue
		}
		entries[i].Server = entries[i].Server.weighing(c.share)
		if entries[i].State == StateActive {
			active++
		}
	}
	if active < w.base.Count(StateActive) {
		w.table = newTable(entries)
	}
	return w
}

// weighing returns the server with a share of its weight. One without weight has
// none.
func (s *Server) weighing(share uint32) *Server {
	light := *s
	light.Weight = max(min(1, s.Weight), s.Weight*share/fullShare)
	return &light
}
