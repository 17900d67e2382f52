package connect

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// next is how long one address of a name may take before the next is tried beside it
// (RFC 8305, section 8): a host that is gone must not use up the time of the others.
const next = 250 * time.Millisecond

// First connects to HOST:PORT by TCP. Where HOST is a name, it is resolved anew, and
// its addresses are tried in the resolver's order until one answers; the next begins
// when one has failed, or is silent for 250 ms. It is safe for concurrent use.
func First(ctx context.Context, address string) (net.Conn, error) {
	return dialer{lookup: net.DefaultResolver.LookupNetIP, connect: new(net.Dialer).DialContext}.dial(ctx, address)
}

// dialer opens connections to names.
type dialer struct {
	lookup  func(ctx context.Context, network, host string) ([]netip.Addr, error)
	connect func(ctx context.Context, network, address string) (net.Conn, error)
}

// attempted is how a connect has ended.
type attempted struct {
	conn net.Conn
	err  error
}

func (d dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return d.connect(ctx, "tcp", address)
	}
	addrs, err := d.lookup(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("lookup %s: no address", host)
	}
	return d.race(ctx, addrs, port)
}

// race returns the first connection to any of the addresses, or why the first that
// failed did.
func (d dialer) race(ctx context.Context, addrs []netip.Addr, port string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempted)
	begin := func(a netip.Addr) {
		go d.attempt(ctx, net.JoinHostPort(a.Unmap().String(), port), results)
	}
	turn := time.NewTimer(0)
	defer turn.Stop()
	var failure error
	for begun, failed := 0, 0; failed < len(addrs); {
		select {
		case <-turn.C:
			if begun < len(addrs) {
				begin(addrs[begun])
				begun++
				turn.Reset(next)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			failure = cmp.Or(failure, r.err)
			failed++
			turn.Reset(0)
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to %v, port %s: %w", addrs, port, ctx.Err())
		}
	}
	return nil, failure
}

// attempt hands over a connection, or closes it when another was faster.
func (d dialer) attempt(ctx context.Context, address string, results chan<- attempted) {
	conn, err := d.connect(ctx, "tcp", address)
	select {
	case results <- attempted{conn, err}:
	case <-ctx.Done():
		if err == nil {
			_ = conn.Close() // nobody has used it
		}
	}
}
