package sim

import (
	"math"
	"math/rand/v2"
	"time"
)

// network decides which packets arrive, and when. A nil host is the place of
// the coordinator and the routers.
type network struct {
	Network

	random *rand.Rand
	// chains are the Gilbert-Elliott chains of the ways between two hosts.
	chains map[way]chain
	// badEdges are pairs of hosts that do not reach one another.
	badEdges map[way]bool
	// noICMP says that a firewall drops all ICMP.
	noICMP bool
}

// way is one way from a host to another; 0 is the coordinator.
type way struct{ from, to int32 }

func wayOf(from, to *host) way {
	var w way
	if from != nil {
		w.from = from.index
	}
	if to != nil {
		w.to = to.index
	}
	return w
}

func newNetwork(o Network, seed uint64) network {
	return network{
		Network: o, random: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // a simulation has no secrets
		chains: map[way]chain{}, badEdges: map[way]bool{},
	}
}

// packet is a packet's way; icmp is what the filter looks for.
type packet struct {
	from, to *host
	icmp     bool
}

// carries reports whether a packet sent now arrives.
func (n *network) carries(p packet, now time.Duration) bool {
	if n.blocked(p) {
		return false
	}
	kept := 1.0
	if p.from != nil {
		kept *= 1 - p.from.egress
	}
	if p.to != nil {
		kept *= 1 - p.to.ingress
	}
	if n.Loss > 0 {
		kept *= 1 - n.lossBetween(p, now)
	}
	return kept >= 1 || kept > 0 && n.random.Float64() < kept
}

func (n *network) blocked(p packet) bool {
	if p.icmp && (n.noICMP || p.to != nil && p.to.noICMP || p.from != nil && p.from.noICMP) {
		return true
	}
	if p.from != nil && !p.from.linked() || p.to != nil && !p.to.linked() {
		return true
	}
	switch {
	case p.from == nil && p.to == nil:
		return false
	case p.from == nil:
		return p.to.cut > 0 || p.to.apart > 0
	case p.to == nil:
		return p.from.cut > 0 || p.from.apart > 0
	}
	return p.from.apart > 0 != (p.to.apart > 0) || len(n.badEdges) > 0 && n.badEdges[wayOf(p.from, p.to)]
}

// lossBetween is the share of packets that the network loses now between two
// places.
func (n *network) lossBetween(p packet, now time.Duration) float64 {
	switch n.Model {
	case LinkBursts:
		w := wayOf(p.from, p.to)
		c, known := n.chains[w]
		bad := n.advance(&c, known, n.Loss, now)
		n.chains[w] = c
		n.forgetChains(now)
		return n.lossIf(bad)
	case HostBursts:
		kept := 1.0
		if p.from != nil {
			kept *= 1 - n.lossIf(n.advance(&p.from.out, p.from.out.known, n.Loss/2, now))
		}
		if p.to != nil {
			kept *= 1 - n.lossIf(n.advance(&p.to.in, p.to.in.known, n.Loss/2, now))
		}
		return 1 - kept
	case Independent:
	}
	return n.Loss
}

func (n *network) lossIf(bad bool) float64 {
	if bad {
		return n.BurstLoss
	}
	return 0
}

// chain is the state of a Gilbert-Elliott chain when it was last looked at.
type chain struct {
	at         time.Duration
	known, bad bool
	biased     *biased
}

// advance brings a chain to now and reports whether it is bad. It is a Markov
// chain in continuous time with share = loss/BurstLoss of its time in the bad
// state, in stretches of Burst on average, so that with
// rate = 1/Burst + share/(1-share)/Burst
//
//	P(bad at t | state at 0) = share + (bad(0) - share)·e^(-rate·t)
func (n *network) advance(c *chain, known bool, loss float64, now time.Duration) bool {
	if c.biased != nil {
		return c.biased.advance(now)
	}
	share := loss / n.BurstLoss
	p := share
	if known {
		if c.at == now {
			return c.bad
		}
		before := 0.0
		if c.bad {
			before = 1
		}
		rate := 1 / (n.Burst.Seconds() * (1 - share))
		p += (before - share) * math.Exp(-rate*(now-c.at).Seconds())
	}
	c.bad, c.at, c.known = n.random.Float64() < p, now, true
	return c.bad
}

// chainsMost bounds the chains that are remembered; those that nobody has
// looked at for chainLife are as good as new ones.
const (
	chainsMost = 200_000
	chainLife  = 10 * time.Second
)

func (n *network) forgetChains(now time.Duration) {
	if len(n.chains) < chainsMost {
		return
	}
	for w, c := range n.chains {
		if now-c.at > chainLife {
			delete(n.chains, w)
		}
	}
}

// delay is how long a packet takes.
func (n *network) delay(from, to *host) time.Duration {
	d := n.Delay
	if from != nil && to != nil && from.zone != to.zone {
		d *= 2
	}
	d += time.Duration(n.random.ExpFloat64() * float64(n.Jitter))
	if n.random.Uint64()%lateShare == 0 {
		d += time.Duration(n.random.ExpFloat64() * float64(lateBy))
	}
	return d
}

// One packet in lateShare is late by lateBy on average.
const (
	lateShare = 10_000
	lateBy    = 10 * time.Millisecond
)
