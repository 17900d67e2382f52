package view

import (
	"math"
	"math/bits"
	"slices"
)

// offer is what one kind of request can choose from: the servers that have a
// certain endpoint, a tier for each state.
type offer struct {
	tiers [stateCount]tier
	// best is the first tier that has slots; an empty one where none has.
	best *tier
}

// slot is one server's endpoint on offer, with all that a pick needs to know
// side by side in memory.
type slot struct {
	server  *Server
	address string
	// entry indexes Table.entries.
	entry  uint32
	weight uint32
	state  State
}

// tier are the slots of one state, and what makes drawing one of them by weight
// cheap. Where all weights are equal there are neither cells nor ends.
type tier struct {
	state State
	slots []slot
	// sum is the weight of all slots of the state.
	sum uint64
	// cells make a weighted draw with one random number: Walker's alias method,
	// built as by Vose, "A linear algorithm for generating random numbers with a
	// given distribution" (1991).
	cells []cell
	// ends are the running sums of the weights, divided by their greatest common
	// divisor; turns is the last one, the length of a whole cycle.
	ends  []uint64
	turns uint64
	// stride visits all turns of a cycle: it has no common divisor with turns.
	stride uint64
	// places are for keys, zones for clients that say where they are; neither is
	// nil.
	places *places
	zones  *zones
}

// cell is one column of the alias table.
type cell struct {
	// keep is how many of 2^32 draws stay with the column's own slot; the others
	// go to other.
	keep  uint32
	other uint32
}

// newOffers returns the offer of first endpoints and those of each name. Servers
// without weight or endpoints are not on offer.
func newOffers(entries []Entry) (first *offer, named map[string]*offer) {
	slots := make([]slot, 0, len(entries))
	byName := map[string][]slot{}
	for i, e := range entries {
		if e.Server.Weight == 0 || len(e.Server.Endpoints) == 0 {
			continue
		}
		first := slot{e.Server, e.Server.Endpoints[0].Address, uint32(i), e.Server.Weight, e.State}
		slots = append(slots, first)
		for _, ep := range e.Server.Endpoints {
			if ep.Name != "" {
				byName[ep.Name] = append(byName[ep.Name], slot{e.Server, ep.Address, first.entry, first.weight, e.State})
			}
		}
	}
	first = newOffer(slots, entries)
	named = make(map[string]*offer, len(byName))
	for name, s := range byName {
		if slices.Equal(s, slots) {
			named[name] = first
			continue
		}
		named[name] = newOffer(s, entries)
	}
	return first, named
}

// newOffer takes the slots in order of preference.
func newOffer(slots []slot, entries []Entry) *offer {
	o := &offer{}
	if len(slots) > 0 {
		o.best = &o.tiers[entries[slots[0].entry].State]
	} else {
		o.best = &o.tiers[StateActive]
	}
	for len(slots) > 0 {
		state := entries[slots[0].entry].State
		n := slices.IndexFunc(slots, func(s slot) bool { return entries[s.entry].State != state })
		if n < 0 {
			n = len(slots)
		}
		o.tiers[state] = newTier(state, slots[:n])
		slots = slots[n:]
	}
	return o
}

func newTier(state State, slots []slot) tier {
	t := tier{state: state, slots: slots, places: new(places), zones: new(zones)}
	divisor, equal := uint64(0), true
	for _, s := range slots {
		t.sum += uint64(s.weight)
		divisor = gcd(divisor, uint64(s.weight))
		equal = equal && s.weight == slots[0].weight
	}
	if equal {
		return t
	}
	t.ends = make([]uint64, len(slots))
	for i, s := range slots {
		t.turns += uint64(s.weight) / divisor
		t.ends[i] = t.turns
	}
	t.stride = strideFor(t.turns)
	t.cells = newCells(slots, divisor, t.turns)
	return t
}

// newCells builds the alias table in whole numbers: column i is worth
// n·weight/sum, and columns worth less than one are filled up by others.
func newCells(slots []slot, divisor, sum uint64) []cell {
	n := uint64(len(slots))
	worth := make([]uint64, n)
	cells := make([]cell, n)
	var poor, rich []uint32
	for i, s := range slots {
		worth[i] = uint64(s.weight) / divisor * n
		cells[i] = cell{math.MaxUint32, uint32(i)}
		if worth[i] < sum {
			poor = append(poor, uint32(i))
		} else {
			rich = append(rich, uint32(i))
		}
	}
	for len(poor) > 0 && len(rich) > 0 {
		p, r := poor[len(poor)-1], rich[len(rich)-1]
		poor = poor[:len(poor)-1]
		cells[p] = cell{share(worth[p], sum), r}
		if worth[r] -= sum - worth[p]; worth[r] < sum {
			rich = rich[:len(rich)-1]
			poor = append(poor, r)
		}
	}
	return cells
}

// share is part/whole of 2^32, for part < whole.
func share(part, whole uint64) uint32 {
	quotient, _ := bits.Div64(part>>32, part<<32, whole)
	return uint32(quotient)
}

// shareOf is how much of a number a share of 2^32 is, rounded down.
func shareOf(n, share uint64) uint64 {
	hi, lo := bits.Mul64(n, share)
	return hi<<32 | lo>>32
}

// at returns the slot of a round-robin turn. Equal weights take turns in order.
// Otherwise a cycle gives each slot exactly its weight in turns, and the stride,
// about the golden ratio of the cycle, spreads the turns of a slot evenly over
// it.
func (t *tier) at(turn uint64) int {
	if t.ends == nil {
		return int(turn % uint64(len(t.slots)))
	}
	hi, lo := bits.Mul64(turn%t.turns, t.stride)
	_, place := bits.Div64(hi, lo, t.turns)
	i, _ := slices.BinarySearch(t.ends, place+1)
	return i
}

// draw returns a slot by weight for a uniform random number.
func (t *tier) draw(random uint64) int {
	i := uint32(random >> 32 * uint64(len(t.slots)) >> 32)
	if t.cells == nil {
		return int(i)
	}
	// A branch here could not be predicted: stays is 1 below keep and 0 above, and
	// turns i into other without one.
	c := &t.cells[i]
	_, stays := bits.Sub32(uint32(random), c.keep, 0)
	return int(i ^ (i^c.other)&(stays-1))
}

// drawPair returns two different slots of a tier where all weights are equal and
// that has at least two.
func (t *tier) drawPair(random uint64) (first, second int) {
	n := uint64(len(t.slots))
	a := random >> 32 * n >> 32
	b := a + 1 + uint64(uint32(random))*(n-1)>>32
	if b >= n {
		b -= n
	}
	return int(a), int(b)
}

// strideFor returns the number nearest to the golden ratio of n that has no
// common divisor with it.
func strideFor(n uint64) uint64 {
	stride := max(1, uint64(float64(n)/math.Phi))
	for gcd(stride, n) != 1 {
		stride++
	}
	return stride
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
