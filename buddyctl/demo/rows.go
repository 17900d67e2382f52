package demo

import (
	"fmt"
	"slices"
	"strings"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// diff are the rows that differ between two states of the ring, by server.
func diff(before, after *coordinatorv1.GetRingResponse) []Row {
	was, is := buddies(before), buddies(after)
	var rows []Row
	for id, b := range was {
		if a := is[id]; a == nil || *a != *b {
			rows = append(rows, Row{id, b, a})
		}
	}
	for id, a := range is {
		if was[id] == nil {
			rows = append(rows, Row{id, nil, a})
		}
	}
	slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(a.Server, b.Server) })
	return rows
}

func buddies(ring *coordinatorv1.GetRingResponse) map[string]*Buddies {
	all := make(map[string]*Buddies, len(ring.GetMembers()))
	for _, m := range ring.GetMembers() {
		all[m.GetServerId()] = &Buddies{m.GetFirstBuddy(), m.GetSecondBuddy()}
	}
	return all
}

// neighboursMet checks that the two buddies of a server that left are each
// other's buddies now, and that no other row has changed.
func neighboursMet(d *Departure) error {
	var left *Buddies
	for _, r := range d.Rows {
		if r.Server == d.Server && r.After == nil {
			left = r.Before
		}
	}
	if left == nil {
		return fmt.Errorf("the row of %s is still there", d.Server)
	}
	for _, r := range d.Rows {
		var good bool
		switch r.Server {
		case d.Server:
			good = true
		case left.First:
			good = r.After != nil && r.After.Second == left.Second
		case left.Second:
			good = r.After != nil && r.After.First == left.First
		}
		if !good {
			return fmt.Errorf("the row of %s is wrong after %s has left", r.Server, d.Server)
		}
	}
	if len(d.Rows) != len(slices.Compact([]string{left.First, left.Second}))+1 {
		return fmt.Errorf("the buddies of %s have not become each other's buddies", d.Server)
	}
	return nil
}
