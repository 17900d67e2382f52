package view

import "math/bits"

// This file is the plain way of nearly every pick: no server is excluded, no zone
// asked for. It does with a few nanoseconds what picker does for all requests.

// pick chooses from the tier; false where that takes more than one look.
func (t *tier) pick(r *Request) (int, bool) {
	if len(t.slots) == 0 {
		return 0, false
	}
	switch r.Policy {
	case RoundRobin:
		return t.at(r.Turn), true
	case Random:
		random := source(r.Random)
		return t.draw(random.next()), true
	case Maglev:
		at := t.places.built.Load()
		if at == nil {
			return 0, false
		}
		place, _ := bits.Mul64(hash(r.Key), placeCount)
		i := int(at[place])
		return i, !r.bounded() || !t.full(r, &t.slots[i])
	case P2C:
	}
	return t.p2c(r)
}

func (t *tier) p2c(r *Request) (int, bool) {
	random := source(r.Random)
	if r.Loads == nil || len(t.slots) == 1 {
		return t.draw(random.next()), true
	}
	var first, second int
	if t.cells == nil {
		first, second = t.drawPair(random.next())
	} else if first, second = t.draw(random.next()), t.draw(random.next()); first == second {
		return 0, false
	}
	return t.lessLoaded(r.Loads, first, second), true
}
