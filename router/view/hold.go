package view

import (
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// This file keeps a pool from becoming empty by accident. A server is held back
// from the change that took it until it comes back, is removed by somebody's
// wish, or until an operator confirms the mass change.

// tooMany reports whether losing some of the servers that got work is more than
// a router follows at once: more than half. Of two servers one may go, the only
// one may not.
func tooMany(lost, of int) bool { return 2*lost > of }

// heldAfter returns who is held back after a delta.
func (v *View) heldAfter(d Delta, rows []*Server) []*Server {
	if d.MassChangeConfirmed {
		return nil
	}
	held := v.held
	if lost := v.lostByVerdict(d, rows); tooMany(len(lost), v.table.working()) {
		held = mergeHeld(held, lost)
	}
	byWish := slices.DeleteFunc(slices.Clone(d.Removed), func(r member.Removal) bool { return r.Cause.ByVerdict() })
	held = slices.DeleteFunc(slices.Clone(held), endedBy(byWish).has)
	return stillHeld(held, rows)
}

// lostByVerdict returns, by id, the servers that got work before the delta and
// do not after it because a verdict removed them.
func (v *View) lostByVerdict(d Delta, rows []*Server) []*Server {
	var lost []*Server
	for _, r := range d.Removed {
		old := findRow(v.rows, r.ID)
		if r.Cause.ByVerdict() && old != nil && v.table.works(r.ID) && old.Incarnation <= r.Incarnation && !works(rows, r.ID) {
			lost = append(lost, old)
		}
	}
	return sortRows(lost)
}

// lostBySnapshot returns, by id, the servers that got work before a snapshot and do
// not after it, if they are too many. A snapshot does not say why they are gone.
func (v *View) lostBySnapshot(rows []*Server) []*Server {
	var lost []*Server
	for _, s := range v.rows {
		if v.table.works(s.ID) && !works(rows, s.ID) {
			lost = append(lost, s)
		}
	}
	left := 0
	for _, s := range rows {
		if s.routable() {
			left++
		}
	}
	if before := v.table.working(); tooMany(before-left, before) {
		return lost
	}
	return nil
}

// works reports whether the rows give an id new work.
func works(rows []*Server, id member.ID) bool {
	s := findRow(rows, id)
	return s != nil && s.routable()
}

// mergeHeld returns both lists by id; of one id the more recent stays.
func mergeHeld(held, lost []*Server) []*Server {
	return sortRows(append(slices.Clone(held), lost...))
}

// stillHeld drops the servers that are back. A row that is JOINING or HELD does
// not replace a last resort yet; any other row is the newer word on its server.
func stillHeld(held, rows []*Server) []*Server {
	if len(held) == 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(held), func(s *Server) bool {
		row := findRow(rows, s.ID)
		return row != nil && row.Phase != member.PhaseJoining && row.Phase != member.PhaseHeld
	})
}
