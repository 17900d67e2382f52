package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

const (
	// routeTime is how long names are looked up for the route to a coordinator. What is
	// known of them then has to do.
	routeTime = 2 * time.Second
	// maxNames is how many names are remembered, for one family each.
	maxNames = 64
)

// routes finds this host's addresses on the way to coordinators. It is not safe for
// concurrent use.
type routes struct {
	// allowLocal takes addresses that other hosts cannot reach.
	allowLocal bool
	lookup     func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// known are the addresses that a name had when it was last resolved.
	known map[query][]netip.Addr
}

// query is what is looked up: "ip4" or "ip6", and a name.
type query struct{ network, host string }

func newRoutes(allowLocal bool) *routes {
	return &routes{allowLocal: allowLocal, lookup: net.DefaultResolver.LookupNetIP, known: map[query][]netip.Addr{}}
}

// find is a Deps.Route: the source addresses that this host's kernel chooses for a
// coordinator, one for each family that its name has. Nothing is sent. Those that do
// not last are left out where there is another. A name that cannot be resolved has the
// addresses that it had.
func (r *routes) find(ctx context.Context, address string) []netip.Addr {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	looking, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	var found []netip.Addr
	for _, network := range []string{"ip4", "ip6"} {
		for _, to := range r.resolve(looking, query{network, host}) {
			local, err := sourceTo(ctx, to)
			if err != nil {
				continue // that address leads nowhere
			}
			if a, err := member.ParseProbeAddress("route", local.String(), r.allowLocal); err == nil {
				found = append(found, a)
			}
			break
		}
	}
	return found
}

// resolve returns the addresses of one family.
func (r *routes) resolve(ctx context.Context, q query) []netip.Addr {
	if a, err := netip.ParseAddr(q.host); err == nil {
		if a.Unmap().Is4() != (q.network == "ip4") {
			return nil
		}
		return []netip.Addr{a}
	}
	addrs, err := r.lookup(ctx, q.network, q.host)
	if failed, ok := errors.AsType[*net.DNSError](err); ok && !failed.IsNotFound {
		return r.known[q]
	}
	if _, again := r.known[q]; !again && len(r.known) >= maxNames {
		clear(r.known)
	}
	r.known[q] = addrs
	return addrs
}

// sourceTo is the address from which this host would send.
func sourceTo(ctx context.Context, to netip.Addr) (netip.Addr, error) {
	d := net.Dialer{Control: preferPublic}
	conn, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(to, 9).String())
	if err != nil {
		return netip.Addr{}, err
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	_ = conn.Close() // nothing was sent
	return local.Addr(), err
}
