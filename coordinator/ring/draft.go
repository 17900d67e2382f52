package ring

import (
	"maps"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// Draft is a change of a ring that has not happened yet. It is void once its
// ring has changed by another draft.
type Draft struct {
	ring *Ring
	// nodes overrides the ring's; added are those the ring does not have, gone
	// those it has and the draft does not.
	nodes map[member.ID]node
	added []member.ID
	gone  map[member.ID]bool
}

// Draft begins a change.
func (r *Ring) Draft() *Draft {
	return &Draft{ring: r, nodes: map[member.ID]node{}, gone: map[member.ID]bool{}}
}

// Len is the number of members once the draft is applied.
func (d *Draft) Len() int { return d.ring.Len() + len(d.added) - len(d.gone) }

// Has reports whether id is a member once the draft is applied.
func (d *Draft) Has(id member.ID) bool {
	_, ok := d.node(id)
	return ok
}

// Buddies is as Ring.Buddies, once the draft is applied.
func (d *Draft) Buddies(id member.ID) (member.Buddies, bool) {
	n, ok := d.node(id)
	return buddies(id, n), ok
}

// Splice puts a stranger on the first-buddy side of a member (R9): the new one
// becomes the member's first buddy, takes over the former one as its own, and
// the member as its second. In an empty ring, at is ignored. It returns false
// and changes nothing if id is a member already, or at is not.
func (d *Draft) Splice(id, at member.ID) bool {
	if d.Has(id) {
		return false
	}
	if d.Len() == 0 {
		d.add(id, node{next: id, prev: id})
		return true
	}
	left, ok := d.node(at)
	if !ok {
		return false
	}
	after := left.next
	d.add(id, node{next: after, prev: at})
	d.edit(at, func(n *node) { n.next = id })
	d.edit(after, func(n *node) { n.prev = id })
	return true
}

// Unlink takes any set of members out: the survivors on both sides of each run
// become each other's buddies (R4, R12, R13). Strangers are ignored. The result
// depends on the set only, not on its order.
func (d *Draft) Unlink(ids ...member.ID) {
	for _, id := range ids {
		n, ok := d.node(id)
		if !ok {
			continue
		}
		d.remove(id)
		if n.next == id {
			continue
		}
		d.edit(n.prev, func(p *node) { p.next = n.next })
		d.edit(n.next, func(p *node) { p.prev = n.prev })
	}
}

// Replace puts a member into the place of another one, which is taken out; its
// own place closes. It returns false and changes nothing unless both are members
// and differ.
func (d *Draft) Replace(old, by member.ID) bool {
	if old == by || !d.Has(old) || !d.Has(by) {
		return false
	}
	d.Unlink(by)
	place, _ := d.node(old)
	d.Unlink(old)
	d.Splice(by, place.prev)
	return true
}

// Changed lists the members, sorted, whose buddies differ from the ring's,
// newcomers among them. Members that are gone are not listed.
func (d *Draft) Changed() []member.ID {
	var ids []member.ID
	for id, n := range d.nodes {
		before, had := d.ring.Buddies(id)
		if !had || before != buddies(id, n) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Apply makes the change happen.
func (d *Draft) Apply() {
	// In a fixed order, so that equal rings draw equal members afterwards.
	for _, id := range slices.Sorted(maps.Keys(d.gone)) {
		d.ring.drop(id)
	}
	for _, id := range d.added {
		d.ring.put(id, d.nodes[id])
	}
	maps.Copy(d.ring.nodes, d.nodes)
}

func (d *Draft) node(id member.ID) (node, bool) {
	if n, ok := d.nodes[id]; ok {
		return n, true
	}
	if d.gone[id] {
		return node{}, false
	}
	n, ok := d.ring.nodes[id]
	return n, ok
}

func (d *Draft) edit(id member.ID, change func(*node)) {
	n, _ := d.node(id)
	change(&n)
	d.nodes[id] = n
}

func (d *Draft) add(id member.ID, n node) {
	if d.gone[id] {
		delete(d.gone, id)
	} else {
		d.added = append(d.added, id)
	}
	d.nodes[id] = n
}

func (d *Draft) remove(id member.ID) {
	delete(d.nodes, id)
	if i := slices.Index(d.added, id); i >= 0 {
		d.added = slices.Delete(d.added, i, i+1)
		return
	}
	d.gone[id] = true
}
