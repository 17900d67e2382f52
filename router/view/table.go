package view

import (
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// State is how a server is preferred. Lower ones are preferred.
type State uint8

// The states. SUSPECT ones get work when no ACTIVE one is left, SERVICE_DOWN
// ones, if they get any, after those, and HELD_BACK ones, which the coordinator
// has removed, when no other is left at all.
const (
	StateActive State = iota
	StateSuspect
	StateServiceDown
	StateHeldBack
	stateCount
)

// String returns the name, such as "held_back".
func (s State) String() string {
	switch s {
	case StateActive:
		return "active"
	case StateSuspect:
		return "suspect"
	case StateServiceDown:
		return "service_down"
	case StateHeldBack:
		return "held_back"
	case stateCount:
	}
	return "unknown"
}

// Entry is a server that may get work.
type Entry struct {
	Server *Server
	State  State
}

// Table holds the servers of a pool that may get work. It is immutable and safe
// for concurrent use.
type Table struct {
	// entries are in order of preference, by id within one state.
	entries []Entry
	// byID are indexes into entries.
	byID []uint32
	// counts are the entries of each state.
	counts [stateCount]int
	// any offers the first endpoint of each server, named those of one name.
	any   *offer
	named map[string]*offer
}

// NewTable returns a table of the entries, each id once, in any order.
func NewTable(entries []Entry) *Table {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b Entry) int {
		if a.State != b.State {
			return int(a.State) - int(b.State)
		}
		return compareIDs(a.Server.ID, b.Server.ID)
	})
	return newTable(sorted)
}

// newTable takes entries in order.
func newTable(entries []Entry) *Table {
	t := &Table{entries: entries, byID: make([]uint32, len(entries))}
	for i, e := range entries {
		t.byID[i] = uint32(i)
		t.counts[e.State]++
	}
	slices.SortFunc(t.byID, func(a, b uint32) int {
		return compareIDs(entries[a].Server.ID, entries[b].Server.ID)
	})
	t.any, t.named = newOffers(entries)
	return t
}

// Entries are the servers in order of preference: ACTIVE, SUSPECT, SERVICE_DOWN,
// HELD_BACK; by id within each. The caller must not change them.
func (t *Table) Entries() []Entry { return t.entries }

// Count is the number of servers in a state.
func (t *Table) Count(s State) int { return t.counts[s] }

// working is the number of servers that get work with the coordinator's consent.
func (t *Table) working() int { return len(t.entries) - t.counts[StateHeldBack] }

// works reports whether id is one of them.
func (t *Table) works(id member.ID) bool {
	i, ok := t.Find(id)
	return ok && t.entries[i].State != StateHeldBack
}

// Find returns the index of an id in Entries.
func (t *Table) Find(id member.ID) (int, bool) {
	i, ok := slices.BinarySearchFunc(t.byID, id, func(i uint32, id member.ID) int {
		return compareIDs(t.entries[i].Server.ID, id)
	})
	if !ok {
		return 0, false
	}
	return int(t.byID[i]), true
}

// EndpointNames are the names that servers have given their endpoints, sorted,
// without the empty one.
func (t *Table) EndpointNames() []string {
	names := make([]string, 0, len(t.named))
	for name := range t.named {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Changed returns, by id, the servers that are in one of two tables only, or
// not the same in both.
func Changed(from, to *Table) []member.ID {
	if from == to {
		return nil
	}
	var ids []member.ID
	a, b := from.byID, to.byID
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && from.id(a[0]) < to.id(b[0]):
			ids, a = append(ids, from.id(a[0])), a[1:]
		case len(a) == 0 || to.id(b[0]) < from.id(a[0]):
			ids, b = append(ids, to.id(b[0])), b[1:]
		default:
			x, y := from.entries[a[0]], to.entries[b[0]]
			if x != y && (x.State != y.State || !x.Server.Equal(y.Server)) {
				ids = append(ids, x.Server.ID)
			}
			a, b = a[1:], b[1:]
		}
	}
	return ids
}

func (t *Table) id(i uint32) member.ID { return t.entries[i].Server.ID }
