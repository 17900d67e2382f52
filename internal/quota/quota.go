// Package quota bounds what clients may hold of a process at a time, in total and
// from one source: connections, streams, names.
//
// A source is an IPv4 address or an IPv6 /64, which is what one host may have. It
// bounds no rates, and does not know who a client is.
package quota

import (
	"cmp"
	"net"
	"net/netip"
	"sync"

	"github.com/buddyring/buddyring/internal/member"
)

// Limits are how much there may be at a time.
type Limits struct {
	// Total is of all sources together, PerSource of one.
	Total, PerSource int
}

// Halves are limits of which one source may have half, so that it alone cannot
// shut out all others.
func Halves(total int) Limits { return Limits{total, (total + 1) / 2} }

// Or returns the limits with those of others where they are 0.
func (l Limits) Or(others Limits) Limits {
	return Limits{cmp.Or(l.Total, others.Total), cmp.Or(l.PerSource, others.PerSource)}
}

// Check refuses limits below 0; its errors name the flags of connections.
func (l Limits) Check() error {
	if l.Total < 0 {
		return member.Invalid("max-connections", "%d is less than nothing", l.Total)
	}
	if l.PerSource < 0 {
		return member.Invalid("max-connections-per-source", "%d is less than nothing", l.PerSource)
	}
	return nil
}

// Limit is one of the limits.
type Limit string

// None is reached by who gets what he asks for.
const (
	None      Limit = ""
	Total     Limit = "total"
	PerSource Limit = "source"
)

// Counter counts what sources hold. It is safe for concurrent use.
type Counter struct {
	limits Limits

	mu    sync.Mutex
	total int
	// by are the sources that hold something.
	by map[netip.Prefix]int
}

// NewCounter returns a counter of nothing yet.
func NewCounter(l Limits) *Counter { return &Counter{limits: l, by: map[netip.Prefix]int{}} }

// Take gives a source n more, which it holds until Return, or nothing where a limit
// does not allow that; it returns this limit. Less than nothing is given back.
func (c *Counter) Take(from netip.Prefix, n int) Limit {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case n <= 0:
	case c.total+n > c.limits.Total:
		return Total
	case c.by[from]+n > c.limits.PerSource:
		return PerSource
	}
	c.add(from, n)
	return None
}

// Return takes back n of what a source holds.
func (c *Counter) Return(from netip.Prefix, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(from, -n)
}

func (c *Counter) add(from netip.Prefix, n int) {
	c.total += n
	if c.by[from] += n; c.by[from] == 0 {
		delete(c.by, from)
	}
}

// Held is how much all sources hold together.
func (c *Counter) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// SourceOf is the source that a peer belongs to. Peers without an IP address, such
// as those of a test's own network, are one source.
func SourceOf(peer net.Addr) netip.Prefix {
	switch a := peer.(type) {
	case *net.TCPAddr:
		return Source(a.AddrPort().Addr())
	case *net.UDPAddr:
		return Source(a.AddrPort().Addr())
	}
	return netip.Prefix{}
}

// Source is the source that an address belongs to.
func Source(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := address.BitLen()
	if address.Is6() {
		bits = 64
	}
	source, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // there is no address
	}
	return source
}
