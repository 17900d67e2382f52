package ring

import "github.com/buddyring/buddyring/internal/member"

// Site is where a server stands, for placement.
type Site struct{ Zone, Rack string }

// sameRack: an unset rack is a rack of one; racks of different zones differ.
func (s Site) sameRack(o Site) bool { return s.Rack != "" && s == o }

func (s Site) sameZone(o Site) bool { return s.Zone != "" && s.Zone == o.Zone }

// Tries is how many random places Place compares.
const Tries = 8

// Place chooses the member beside which a newcomer is spliced in: among Tries
// random places the one whose two neighbours share no rack with the newcomer,
// then no zone, then the first drawn. ok is false for an empty draft. draw
// returns random numbers, site where a member stands.
func (d *Draft) Place(newcomer Site, draw func() uint64, site func(member.ID) Site) (at member.ID, ok bool) {
	best := -1
	for range Tries {
		candidate, found := d.choose(draw)
		if !found {
			return "", false
		}
		cost := 0
		n, _ := d.node(candidate)
		for _, neighbour := range []member.ID{candidate, n.next} {
			s := site(neighbour)
			if s.sameRack(newcomer) {
				cost += 10
			}
			if s.sameZone(newcomer) {
				cost++
			}
		}
		if best < 0 || cost < best {
			at, best = candidate, cost
		}
		if best == 0 {
			break
		}
	}
	return at, true
}

// choose draws a member of the draft. Members of the ring that the draft takes
// out are drawn again; should they be nearly all, the nearest survivor in the
// key order is taken.
func (d *Draft) choose(draw func() uint64) (member.ID, bool) {
	total := len(d.ring.keys) + len(d.added)
	if d.Len() == 0 {
		return "", false
	}
	for range 16 {
		if id := d.key(int(draw() % uint64(total))); !d.gone[id] {
			return id, true
		}
	}
	start := int(draw() % uint64(total))
	for i := range total {
		if id := d.key((start + i) % total); !d.gone[id] {
			return id, true
		}
	}
	return "", false
}

func (d *Draft) key(i int) member.ID {
	if i < len(d.ring.keys) {
		return d.ring.keys[i]
	}
	return d.added[i-len(d.ring.keys)]
}
