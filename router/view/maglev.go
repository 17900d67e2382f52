package view

import (
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// Maglev maps keys to servers so that a change of the pool moves few of them:
// Eisenbud et al., "Maglev: a fast and reliable software network load balancer"
// (2016). Each server takes the next free place of its own permutation of the
// table when its turn comes; heavier ones have more turns.
const (
	// placeCount is the size of a table, a prime. It is the same for all pools: a
	// table of another size has all keys elsewhere. A server whose share of the
	// weight is less than one place may get no key.
	placeCount = 65537
	// walkLength is how many places beside its own a key tries. At most two thirds
	// of the weight can be full at once, so that the chance of meeting nobody else
	// is about one in a million.
	walkLength = 32
	// A server is full at boundPart/boundOf times the load that it had if all
	// were as busy for their weight: Mirrokni, Thorup and Zadimoghaddam,
	// "Consistent hashing with bounded loads" (2016).
	boundPart, boundOf = 3, 2

	free = math.MaxUint32
)

// places are a table that is built when it is first needed, for that takes
// about a millisecond. It is safe for concurrent use.
type places struct {
	built atomic.Pointer[[placeCount]uint32]
	once  sync.Once
}

// of returns indexes of slots.
func (p *places) of(slots []slot) *[placeCount]uint32 {
	if at := p.built.Load(); at != nil {
		return at
	}
	p.once.Do(func() { p.built.Store(newPlaces(slots)) })
	return p.built.Load()
}

// permutation is the order in which a server asks for places.
type permutation struct{ next, skip uint32 }

func newPermutation(s *slot) permutation {
	seed := source(hash(string(s.server.ID)))
	next, _ := bits.Mul64(seed.next(), placeCount)
	skip, _ := bits.Mul64(seed.next(), placeCount-1)
	return permutation{uint32(next), uint32(skip) + 1}
}

// newPlaces takes at least one slot.
func newPlaces(slots []slot) *[placeCount]uint32 {
	at := new([placeCount]uint32)
	for i := range at {
		at[i] = free
	}
	permutations := make([]permutation, len(slots))
	for i := range slots {
		permutations[i] = newPermutation(&slots[i])
	}
	for _, i := range placeTurns(slots) {
		p := &permutations[i]
		for at[p.next] != free {
			p.next = (p.next + p.skip) % placeCount
		}
		at[p.next] = i
	}
	return at
}

// placeTurns returns whose turn it is to take a place, for all places. The
// heaviest have one turn in each round; a server of a third of their weight has
// one in each third round. Within a round they go by id.
func placeTurns(slots []slot) []uint32 {
	heaviest := uint64(slices.MaxFunc(slots, func(a, b slot) int { return int(a.weight) - int(b.weight) }).weight)
	rounds := roundsToFill(slots, heaviest)
	// begins are where the rounds begin among the turns.
	begins := make([]uint32, rounds+2)
	eachTurn(slots, heaviest, rounds, func(_ int, round uint64) { begins[round+1]++ })
	for r := range rounds {
		begins[r+2] += begins[r+1]
	}
	turns := make([]uint32, begins[rounds+1])
	eachTurn(slots, heaviest, rounds, func(i int, round uint64) {
		turns[begins[round]] = uint32(i)
		begins[round]++
	})
	return turns[:placeCount]
}

// roundsToFill returns the first round in which the last place is taken; rounds
// count from 1.
func roundsToFill(slots []slot, heaviest uint64) uint64 {
	low, high := uint64(0), uint64(placeCount)
	for high-low > 1 {
		mid, turns := (low+high)/2, uint64(0)
		for i := range slots {
			turns += mid * uint64(slots[i].weight) / heaviest
		}
		if turns < placeCount {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// eachTurn calls do for the turns of each slot up to a round.
func eachTurn(slots []slot, heaviest, rounds uint64, do func(i int, round uint64)) {
	for i := range slots {
		weight := uint64(slots[i].weight)
		for turn := uint64(1); ; turn++ {
			round := (turn*heaviest + weight - 1) / weight
			if round > rounds {
				break
			}
			do(i, round)
		}
	}
}

// maglev takes the first server, from the key's place on, that is neither skipped
// nor, if bounded, full. Keys go on in steps of their own, so that those of one
// server scatter over all others.
func (p *picker) maglev(t *tier, bounded bool) (int, bool) {
	at := t.places.of(t.slots)
	place, _ := bits.Mul64(p.hash, placeCount)
	if i := int(at[place]); p.takes(t, i, bounded) {
		return i, true
	}
	s := source(p.hash)
	step, _ := bits.Mul64(s.next(), placeCount-1)
	for range walkLength {
		place = (place + step + 1) % placeCount
		if i := int(at[place]); p.takes(t, i, bounded) {
			return i, true
		}
	}
	return p.drawAmongRest(t, s, bounded)
}

// drawAmongRest draws by weight from what is neither skipped nor full, looking at all.
func (p *picker) drawAmongRest(t *tier, random source, bounded bool) (int, bool) {
	var sum uint64
	for i := range t.slots {
		if p.takes(t, i, bounded) {
			sum += uint64(t.slots[i].weight)
		}
	}
	place, _ := bits.Mul64(random.next(), sum)
	for i := range t.slots {
		if !p.takes(t, i, bounded) {
			continue
		}
		weight := uint64(t.slots[i].weight)
		if place < weight {
			return i, true
		}
		place -= weight
	}
	return 0, false
}

func (p *picker) takes(t *tier, i int, bounded bool) bool {
	s := &t.slots[i]
	return (!bounded || !t.full(p.request, s)) && (!p.filtered || !p.skips(s))
}

// bounded reports whether servers can be full.
func (r *Request) bounded() bool { return r.Loads != nil && r.TotalLoad > 0 }

// full reports whether one more would bring a server above the bound, which is
// rounded up: load >= boundPart/boundOf * (total+1) * weight/sum.
func (t *tier) full(r *Request, s *slot) bool {
	hi, lo := bits.Mul64(r.Loads.Load(int(s.entry)), boundOf*t.sum)
	boundHi, bound := bits.Mul64(r.TotalLoad+1, boundPart*uint64(s.weight))
	return hi > boundHi || hi == boundHi && lo >= bound
}
