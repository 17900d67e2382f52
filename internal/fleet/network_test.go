package fleet_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/buddyring/buddyring/agent/prober"
)

// roundTrip is how long a probe takes on the made-up network.
const roundTrip = 400 * time.Microsecond

// network says which hosts reach which.
type network struct {
	mu sync.Mutex
	// down are the hosts without a link, cut the directed pairs of hosts between
	// which probes are lost. The zero address stands for everybody.
	down map[netip.Addr]bool
	cut  map[[2]netip.Addr]bool
	// dialed counts the connections that hosts have opened to the coordinator.
	dialed map[netip.Addr]int
	// coordinator is where connections to the coordinator go, nil for nowhere.
	coordinator *bufconn.Listener
}

func newNetwork() *network {
	return &network{down: map[netip.Addr]bool{}, cut: map[[2]netip.Addr]bool{}, dialed: map[netip.Addr]int{}}
}

func (n *network) set(change func(*network)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *network) answers(from, to netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all netip.Addr
	return !n.down[from] && !n.down[to] && !n.cut[[2]netip.Addr{from, to}] && !n.cut[[2]netip.Addr{from, all}]
}

// probes are those that one host sends.
type probes struct {
	network *network
	from    netip.Addr
}

func (p probes) Probe(ctx context.Context, t prober.Target, timeout time.Duration) prober.Result {
	for _, to := range t.Addresses {
		if to.IsLoopback() || p.network.answers(p.from, to) {
			time.Sleep(roundTrip)
			return prober.Result{Outcome: prober.Replied, RTT: roundTrip}
		}
	}
	select {
	case <-time.After(timeout):
		return prober.Result{Outcome: prober.Lost}
	case <-ctx.Done():
		return prober.Result{Outcome: prober.NotSent, Err: ctx.Err()}
	}
}

func (p probes) Volley(ctx context.Context, t prober.Target, _ int, _ time.Duration) func(int, time.Duration) prober.Result {
	return func(_ int, timeout time.Duration) prober.Result { return p.Probe(ctx, t, timeout) }
}

// Connect has the fate of a probe of the first address.
func (p probes) Connect(ctx context.Context, to []netip.AddrPort, timeout time.Duration) prober.Result {
	return p.Probe(ctx, prober.Target{Addresses: []netip.Addr{to[0].Addr()}}, timeout)
}

// connect opens a connection from a host to the coordinator.
func (n *network) connect(ctx context.Context, from netip.Addr) (net.Conn, error) {
	n.mu.Lock()
	lis := n.coordinator
	n.dialed[from]++
	n.mu.Unlock()
	if lis == nil {
		return nil, errors.New("connection refused")
	}
	far, err := lis.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	near, end := net.Pipe()
	go n.carry(from, end, far)
	go n.carry(from, far, end)
	return near, nil
}

// dials is how many connections a host has opened.
func (n *network) dials(from netip.Addr) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dialed[from]
}

// carry copies what one side of a host's connection says to the other. While
// the host has no link nothing gets through, not even the end of a side; that
// connection is then lost for good.
func (n *network) carry(host netip.Addr, from, to net.Conn) {
	defer func() { _ = from.Close() }()
	buffer, lost := make([]byte, 1<<14), false
	for {
		read, err := from.Read(buffer)
		lost = lost || n.dead(host)
		switch {
		case lost:
			if err != nil {
				return
			}
			continue
		case err == nil:
			_, err = to.Write(buffer[:read])
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

func (n *network) dead(host netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down[host]
}
