package ring

import (
	"maps"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// Mend returns a ring of all members that have a row, whatever the rows say. Of
// rows that Check finds right it is the ring that they describe. Otherwise two
// members stay neighbours where both rows say so, then where the first buddy of
// one says so, then where the second does, as far as that leaves one cycle; what
// is left is joined in the order of ids. It depends on the set of rows only.
func Mend(rows []Row) *Ring {
	by := make(map[member.ID]member.Buddies, len(rows))
	for _, r := range rows {
		by[r.ID] = r.Buddies
	}
	ids := slices.Sorted(maps.Keys(by))
	p := newPaths(ids)
	for _, id := range ids {
		if first := by[id].First; by[first].Second == id {
			p.link(id, first)
		}
	}
	for _, id := range ids {
		p.link(id, by[id].First)
	}
	for _, id := range ids {
		p.link(by[id].Second, id)
	}
	return p.close(ids)
}

// paths are disjoint ones through all members.
type paths struct {
	next map[member.ID]member.ID
	// last maps the first member of each path to its last one, first the other way.
	last, first map[member.ID]member.ID
}

func newPaths(ids []member.ID) *paths {
	p := &paths{next: map[member.ID]member.ID{}, last: map[member.ID]member.ID{}, first: map[member.ID]member.ID{}}
	for _, id := range ids {
		p.last[id], p.first[id] = id, id
	}
	return p
}

// link goes on from the end of one path, a, with another that begins at b. It
// does nothing where that is not so.
func (p *paths) link(a, b member.ID) {
	from, ends := p.first[a]
	to, begins := p.last[b]
	if !ends || !begins || from == b {
		return
	}
	delete(p.first, a)
	delete(p.last, b)
	p.next[a] = b
	p.last[from], p.first[to] = to, from
}

// close makes one cycle of the paths.
func (p *paths) close(ids []member.ID) *Ring {
	r := New()
	if len(ids) == 0 {
		return r
	}
	heads := slices.Sorted(maps.Keys(p.last))
	for _, head := range heads[1:] {
		p.link(p.last[heads[0]], head)
	}
	p.next[p.last[heads[0]]] = heads[0]
	for _, id := range ids {
		r.put(id, node{})
	}
	for id, next := range p.next {
		r.nodes[id] = node{next: next, prev: r.nodes[id].prev}
		r.nodes[next] = node{next: r.nodes[next].next, prev: id}
	}
	return r
}
