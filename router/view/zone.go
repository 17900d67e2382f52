package view

import "sync"

// This file prefers the servers of the client's zone as long as they can bear
// it. A router does not know how many clients each zone has, so it takes it that
// every zone with servers asks for equally much. Clients stay in their zone
// while its servers then bear at most slackPart/slackOf times the average of
// the pool; what is beyond that goes to the other zones by weight. The idea is
// that of Envoy's zone aware routing, the factor its overprovisioning factor.
const slackPart, slackOf = 7, 5

// everything is a share of all; see share.
const everything = 1 << 32

// zones are the slots of one tier by zone. What is needed of them is built when
// it is first asked for. They are safe for concurrent use.
type zones struct {
	once   sync.Once
	byName map[string]*zone
}

// zone divides a tier into one zone's slots and the others; there are both.
type zone struct {
	once sync.Once
	// weight is the zone's, keep the share of 2^32 of its clients' work that it
	// bears.
	weight, keep uint64
	near, far    tier
}

// zone returns how a zone divides the tier; nil where there is nothing to
// prefer.
func (t *tier) zone(name string) *zone {
	t.zones.once.Do(func() { t.zones.byName = newZones(t) })
	z := t.zones.byName[name]
	if z == nil {
		return nil
	}
	z.once.Do(func() { z.divide(t, name) })
	return z
}

// newZones returns the zones of a tier, or nil if there is only one.
func newZones(t *tier) map[string]*zone {
	byName := map[string]*zone{}
	for i := range t.slots {
		s := &t.slots[i]
		z := byName[s.server.Zone]
		if z == nil {
			z = &zone{}
			byName[s.server.Zone] = z
		}
		z.weight += uint64(s.weight)
	}
	if len(byName) == 1 {
		return nil
	}
	for _, z := range byName {
		z.keep = everything
		if bears, asked := slackPart*uint64(len(byName))*z.weight, slackOf*t.sum; bears < asked {
			z.keep = uint64(share(bears, asked))
		}
	}
	return byName
}

func (z *zone) divide(t *tier, name string) {
	var near, far []slot
	for _, s := range t.slots {
		if s.server.Zone == name {
			near = append(near, s)
		} else {
			far = append(far, s)
		}
	}
	z.near, z.far = newTier(t.state, near), newTier(t.state, far)
	// Loads are compared with the average of the pool, not of the zone.
	z.near.sum, z.far.sum = t.sum, t.sum
}

// order returns the two parts of the tier in the order of the request's
// preference, and the turn within the first.
func (z *zone) order(p *picker) (first, second *tier, turn uint64) {
	turn = p.request.Turn
	if z.keep == everything {
		return &z.near, &z.far, turn
	}
	stays := p.coin < z.keep
	if p.request.Policy == RoundRobin {
		// The whole numbers that turn·keep passes are the turns of the zone.
		before := shareOf(turn, z.keep)
		if stays = shareOf(turn+1, z.keep) > before; stays {
			turn = before
		} else {
			turn -= before
		}
	}
	if stays {
		return &z.near, &z.far, turn
	}
	return &z.far, &z.near, turn
}
