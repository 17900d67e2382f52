package view

import (
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// Policy says how to choose among servers of the same state. All policies
// honour weights.
type Policy uint8

// The policies. P2C takes the less loaded, relative to its weight, of two that
// are drawn by weight (Mitzenmacher, "The power of two choices", 1996). Maglev
// takes the server of a key, which stays the same as long as the server is well
// and not too busy.
const (
	P2C Policy = iota
	RoundRobin
	Random
	Maglev
)

// String returns the name, such as "round_robin".
func (p Policy) String() string {
	switch p {
	case P2C:
		return "p2c"
	case RoundRobin:
		return "round_robin"
	case Random:
		return "random"
	case Maglev:
		return "maglev"
	default:
		return "unknown"
	}
}

// Loads tells how busy servers are, in a unit of the caller's choice. A caller
// that sees completions gives requests in flight; one that does not gives an
// estimate.
type Loads interface {
	// Load is the load of the server at an index of Table.Entries.
	Load(i int) uint64
}

// Request says what to choose. Everything that varies is in it: the same
// request to the same table has the same answer.
type Request struct {
	Policy Policy
	// Endpoint is the name that the chosen endpoint must have; "" is the first
	// endpoint whatever its name.
	Endpoint string
	// Exclude are servers not to choose. Meant to be few, as in a retry.
	Exclude []member.ID
	// Zone is where the client is, "" where that does not matter. ACTIVE servers
	// of the zone are preferred while they can bear it; see the file zone.go for
	// how much that is.
	Zone string
	// Key is for Maglev: the same key gets the same server.
	Key string
	// Random is a uniform random number, for P2C and Random.
	Random uint64
	// Turn is the number of picks before this one, for RoundRobin.
	Turn uint64
	// Loads is for P2C and Maglev. Without it all servers are equally loaded.
	Loads Loads
	// TotalLoad is the sum of the loads of all entries, for Maglev: no server gets
	// more than 1.5 times what it had if all were as busy for their weight, or one
	// more, as long as another may be chosen. 0 sets no bound.
	TotalLoad uint64
}

// Choice is a chosen server. It is one word, for a struct of five costs a pick as
// much as all the rest.
type Choice struct{ slot *slot }

// Index is the server's place in Table.Entries.
func (c Choice) Index() int { return int(c.slot.entry) }

// Server is the server itself.
func (c Choice) Server() *Server { return c.slot.server }

// State is the state in which the server was chosen.
func (c Choice) State() State { return c.slot.state }

// Address is HOST:PORT of the endpoint asked for.
func (c Choice) Address() string { return c.slot.address }

// Pick chooses one server; false if there is none. It does not allocate, but for
// what it builds once in the life of a table: Maglev a table of places, and the
// first request from a zone the division of the table by zones.
func (t *Table) Pick(r *Request) (Choice, bool) {
	o := t.offerOf(r.Endpoint)
	if o == nil {
		return Choice{}, false
	}
	if len(r.Exclude) == 0 && r.Zone == "" {
		if i, ok := o.best.pick(r); ok {
			return Choice{&o.best.slots[i]}, true
		}
	}
	return o.pick(r)
}

// pick is the general way; it chooses the same as the plain one where that
// chooses at all.
func (o *offer) pick(r *Request) (Choice, bool) {
	p := picker{request: r, random: source(r.Random), filtered: len(r.Exclude) > 0}
	p.prepare()
	for i := range o.tiers {
		if tier := &o.tiers[i]; len(tier.slots) > 0 {
			if from, place := p.choose(tier); from != nil {
				return Choice{&from.slots[place]}, true
			}
		}
	}
	return Choice{}, false
}

// PickN chooses up to n different servers in order of preference and appends
// them to dst. By Maglev they are the servers that a key gets if those before
// are not there.
func (t *Table) PickN(dst []Choice, r *Request, n int) []Choice {
	o := t.offerOf(r.Endpoint)
	if o == nil {
		return dst
	}
	p := picker{request: r, random: source(r.Random), filtered: true, taken: newSet(len(t.entries))}
	p.prepare()
	for _, id := range r.Exclude {
		if i, ok := t.Find(id); ok {
			p.taken.add(i)
		}
	}
	for i := range o.tiers {
		tier := &o.tiers[i]
		for len(tier.slots) > 0 && n > 0 {
			from, place := p.choose(tier)
			if from == nil {
				break
			}
			c := Choice{&from.slots[place]}
			p.taken.add(c.Index())
			dst = append(dst, c)
			n--
		}
	}
	return dst
}

func (t *Table) offerOf(endpoint string) *offer {
	if endpoint == "" {
		return t.any
	}
	return t.named[endpoint]
}

// attempts is how often a draw that hits an excluded server is repeated before
// all servers are looked at.
const attempts = 8

// picker is one request being answered.
type picker struct {
	request *Request
	random  source
	// hash is that of the key, for Maglev.
	hash uint64
	// coin is a random number of 32 bits that says whether a client stays in its
	// zone.
	coin uint64
	// bounded is set if servers can be full.
	bounded bool
	// filtered is set if there may be servers to skip.
	filtered bool
	// taken are the excluded and the chosen entries of PickN; nil in Pick.
	taken set
}

// prepare is for what not every request has.
func (p *picker) prepare() {
	if p.request.Policy == Maglev {
		p.hash = hash(p.request.Key)
		p.bounded = p.request.bounded()
	}
	if p.request.Zone != "" {
		p.flip()
	}
}

// flip draws the coin: by Maglev from the key, which then is always on the same
// side. Places are taken from the upper bits of the hash itself.
func (p *picker) flip() {
	if p.request.Policy == Maglev {
		s := source(p.hash)
		p.coin = s.next() >> 32
		return
	}
	p.coin = p.random.next() >> 32
}

// choose takes a server of a tier: the tier, or the part of it by zone, and the
// place there. It is nil if all of them are excluded.
func (p *picker) choose(t *tier) (*tier, int) {
	if p.request.Zone != "" && t.state == StateActive {
		if z := t.zone(p.request.Zone); z != nil {
			return p.chooseByZone(z)
		}
	}
	turn := p.request.Turn
	if i, ok := p.pick(t, turn, p.bounded); ok {
		return t, i
	}
	if p.bounded {
		if i, ok := p.pick(t, turn, false); ok {
			return t, i
		}
	}
	return nil, 0
}

// chooseByZone rather leaves the zone than exceed the bound.
func (p *picker) chooseByZone(z *zone) (*tier, int) {
	first, second, turn := z.order(p)
	for _, bounded := range [...]bool{p.bounded, false} {
		if i, ok := p.pick(first, turn, bounded); ok {
			return first, i
		}
		if i, ok := p.pick(second, p.request.Turn, bounded); ok {
			return second, i
		}
	}
	return nil, 0
}

func (p *picker) pick(t *tier, turn uint64, bounded bool) (int, bool) {
	switch p.request.Policy {
	case RoundRobin:
		return p.roundRobin(t, turn)
	case Random:
		return p.draw(t)
	case Maglev:
		return p.maglev(t, bounded)
	case P2C:
	}
	return p.p2c(t)
}

// p2c draws a second server up to a few times until it is not the first again.
func (p *picker) p2c(t *tier) (int, bool) {
	if t.cells == nil && !p.filtered && p.request.Loads != nil && len(t.slots) > 1 {
		first, second := t.drawPair(p.random.next())
		return t.lessLoaded(p.request.Loads, first, second), true
	}
	first, ok := p.draw(t)
	if !ok || p.request.Loads == nil || len(t.slots) == 1 {
		return first, ok
	}
	for range attempts {
		second := t.draw(p.random.next())
		if second != first && (!p.filtered || !p.skips(&t.slots[second])) {
			return t.lessLoaded(p.request.Loads, first, second), true
		}
	}
	return first, true
}

func (t *tier) lessLoaded(loads Loads, first, second int) int {
	a, b := &t.slots[first], &t.slots[second]
	loadA, loadB := loads.Load(int(a.entry)), loads.Load(int(b.entry))
	chosen := first
	if loadA*uint64(b.weight) > loadB*uint64(a.weight) {
		chosen = second
	}
	return chosen
}

// draw chooses by weight alone.
func (p *picker) draw(t *tier) (int, bool) {
	i := t.draw(p.random.next())
	if !p.filtered || !p.skips(&t.slots[i]) {
		return i, true
	}
	return p.redraw(t)
}

func (p *picker) redraw(t *tier) (int, bool) {
	for range attempts {
		if i := t.draw(p.random.next()); !p.skips(&t.slots[i]) {
			return i, true
		}
	}
	return p.drawAmongRest(t, p.random, false)
}

// roundRobin takes the first server from its turn on that is not excluded.
func (p *picker) roundRobin(t *tier, turn uint64) (int, bool) {
	start := t.at(turn)
	if !p.filtered || !p.skips(&t.slots[start]) {
		return start, true
	}
	for i := range uint64(attempts) {
		if s := t.at(turn + 1 + i); !p.skips(&t.slots[s]) {
			return s, true
		}
	}
	for i := range t.slots {
		if s := (start + i) % len(t.slots); !p.skips(&t.slots[s]) {
			return s, true
		}
	}
	return 0, false
}

func (p *picker) skips(s *slot) bool {
	if p.taken != nil {
		return p.taken.has(int(s.entry))
	}
	return slices.Contains(p.request.Exclude, s.server.ID)
}

// source derives more random numbers from one: SplitMix64 (Steele, Lea and
// Flood, "Fast splittable pseudorandom number generators", 2014).
type source uint64

func (s *source) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// set is a set of small numbers.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
