package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/buddyring/buddyring/internal/rpc"
)

// dialNext is how long one address of a name may take before the next is tried
// beside it (RFC 8305, section 8): within openTime a coordinator whose host is gone
// must not keep the agent from the others of its name.
const dialNext = 250 * time.Millisecond

func (p *program) dial(address string) (Conn, error) {
	return rpc.Dial(rpc.DialConfig{
		Addresses: []string{address}, Credentials: p.credentials, ServerRole: rpc.RoleCoordinator, Logger: p.log,
		FixedWindows: true, Dialer: dialerOf(address),
	})
}

// dialerOf returns a rpc.DialConfig.Dialer: nil for one address, which rpc.Dial can
// say more about.
func dialerOf(address string) func(ctx context.Context, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err == nil {
		return nil
	}
	return dialer{lookup: net.DefaultResolver.LookupNetIP, connect: new(net.Dialer).DialContext}.dial
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

// dial resolves the name and connects to its addresses, in the resolver's order,
// until one answers.
func (d dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := d.lookup(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempted)
	begin := func(a netip.Addr) {
		go d.attempt(ctx, net.JoinHostPort(a.Unmap().String(), port), results)
	}
	next := time.NewTimer(0)
	defer next.Stop()
	var failures []error
	for begun := 0; len(failures) < len(addrs); {
		select {
		case <-next.C:
			if begun < len(addrs) {
				begin(addrs[begun])
				begun++
				next.Reset(dialNext)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			failures = append(failures, r.err)
			next.Reset(0)
		case <-ctx.Done():
			return nil, errors.Join(append(failures, ctx.Err())...)
		}
	}
	return nil, fmt.Errorf("connect to %s: %w", address, errors.Join(failures...))
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
