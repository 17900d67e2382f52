// Package ring keeps the circular order of a pool: who is whose first buddy
// (the next server) and second buddy (the previous one).
//
// A Ring changes only through a Draft: a Draft collects splices and unlinks on
// top of a Ring that stays as it is, so that a change can be proposed, and then
// applied or dropped as a whole. The package decides nothing about who joins or
// leaves, and knows nothing about pools, phases or time. It is pure and not
// safe for concurrent use.
package ring

import (
	"fmt"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// Row is one place on the ring, as in the server table.
type Row struct {
	ID member.ID
	member.Buddies
}

// node holds the neighbours of a member; a lone member is its own neighbour.
type node struct{ next, prev member.ID }

// Ring is one cycle through all members. The zero value is not usable; see New
// and FromRows.
type Ring struct {
	nodes map[member.ID]node
	// keys holds the members in no meaningful order, for random choice; at is
	// the index of each in it.
	keys []member.ID
	at   map[member.ID]int
}

// New returns an empty ring.
func New() *Ring {
	return &Ring{nodes: map[member.ID]node{}, at: map[member.ID]int{}}
}

// FromRows builds the ring that the rows describe. The error says what is wrong
// with them: see Check.
func FromRows(rows []Row) (*Ring, error) {
	if problems := Check(rows); len(problems) > 0 {
		return nil, fmt.Errorf("build ring: %s", problems[0])
	}
	r := New()
	for _, row := range rows {
		n := node{next: row.First, prev: row.Second}
		if len(rows) == 1 {
			n = node{next: row.ID, prev: row.ID}
		}
		r.put(row.ID, n)
	}
	return r, nil
}

// Len is the number of members.
func (r *Ring) Len() int { return len(r.nodes) }

// Has reports whether id is a member.
func (r *Ring) Has(id member.ID) bool {
	_, ok := r.nodes[id]
	return ok
}

// Buddies returns the buddies of a member, empty ones for the only member, and
// false for a stranger.
func (r *Ring) Buddies(id member.ID) (member.Buddies, bool) {
	n, ok := r.nodes[id]
	return buddies(id, n), ok
}

// Order lists the members from first to first buddy, starting at the smallest
// id.
func (r *Ring) Order() []member.ID {
	if len(r.keys) == 0 {
		return nil
	}
	start := slices.Min(r.keys)
	order := make([]member.ID, 0, len(r.nodes))
	for id := start; ; {
		order = append(order, id)
		if id = r.nodes[id].next; id == start {
			return order
		}
	}
}

// Rows returns the ring as rows, in the order of Order.
func (r *Ring) Rows() []Row {
	order := r.Order()
	rows := make([]Row, len(order))
	for i, id := range order {
		rows[i] = Row{ID: id, Buddies: buddies(id, r.nodes[id])}
	}
	return rows
}

// Choose returns a member by a random number; ok is false for an empty ring.
func (r *Ring) Choose(random uint64) (id member.ID, ok bool) {
	if len(r.keys) == 0 {
		return "", false
	}
	return r.keys[random%uint64(len(r.keys))], true
}

func (r *Ring) put(id member.ID, n node) {
	if _, ok := r.nodes[id]; !ok {
		r.at[id] = len(r.keys)
		r.keys = append(r.keys, id)
	}
	r.nodes[id] = n
}

func (r *Ring) drop(id member.ID) {
	i, last := r.at[id], len(r.keys)-1
	r.keys[i] = r.keys[last]
	r.at[r.keys[i]] = i
	r.keys = r.keys[:last]
	delete(r.at, id)
	delete(r.nodes, id)
}

// buddies turns neighbours into buddies: nobody is its own buddy.
func buddies(id member.ID, n node) member.Buddies {
	if n.next == id {
		return member.Buddies{}
	}
	return member.Buddies{First: n.next, Second: n.prev}
}
