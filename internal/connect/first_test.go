package connect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hosts are the addresses of a name. Those in up answer at once, those in refusing
// refuse at once, the rest is silent.
type hosts struct {
	all          []string
	up, refusing []string

	mu sync.Mutex
	// open are the connections that nobody has closed.
	open int
}

type countedConn struct {
	net.Conn

	address string
	hosts   *hosts
}

func (c *countedConn) Close() error {
	c.hosts.count(-1)
	return nil
}

func (h *hosts) count(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open += n
}

func (h *hosts) connected() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

func (h *hosts) dialer() dialer {
	return dialer{
		lookup: func(context.Context, string, string) (addrs []netip.Addr, err error) {
			for _, a := range h.all {
				addrs = append(addrs, netip.MustParseAddr(a))
			}
			return addrs, nil
		},
		connect: func(ctx context.Context, _, address string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(address)
			switch {
			case slices.Contains(h.up, host):
				h.count(1)
				return &countedConn{address: address, hosts: h}, nil
			case slices.Contains(h.refusing, host):
				return nil, errors.New("connection refused")
			}
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
}

// TestDialsAllAddressesOfAName: hosts that are gone use up no time that the others
// need.
func TestDialsAllAddressesOfAName(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	for name, c := range map[string]struct {
		hosts *hosts
		want  string
		took  time.Duration
	}{
		"the first": {&hosts{all: []string{"192.0.2.1", "192.0.2.2"}, up: []string{"192.0.2.1", "192.0.2.2"}}, "192.0.2.1:7400", 0},
		"three are gone": {
			&hosts{all: []string{"192.0.2.1", "2001:db8::1", "192.0.2.3", "2001:db8::4"}, up: []string{"2001:db8::4"}},
			"[2001:db8::4]:7400", 3 * next,
		},
		"one refuses": {
			&hosts{all: []string{"192.0.2.1", "192.0.2.2"}, up: []string{"192.0.2.2"}, refusing: []string{"192.0.2.1"}},
			"192.0.2.2:7400", 0,
		},
		"all refuse": {&hosts{all: []string{"192.0.2.1", "192.0.2.2"}, refusing: []string{"192.0.2.1", "192.0.2.2"}}, "", 0},
		"all silent": {&hosts{all: []string{"192.0.2.1", "192.0.2.2"}}, "", limit},
		"no address": {&hosts{}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				began := time.Now()
				conn, err := c.hosts.dialer().dial(ctx, "coordinators:7400")
				if took := time.Since(began); (err == nil) != (c.want != "") || took != c.took {
					t.Fatalf("%v after %v, want %q after %v", err, took, c.want, c.took)
				}
				synctest.Wait()
				if err != nil {
					return
				}
				if got := conn.(*countedConn).address; got != c.want || c.hosts.connected() != 1 {
					t.Errorf("connected to %s, %d connections are open", got, c.hosts.connected())
				}
			})
		})
	}
}

func TestOnlyNamesAreResolved(t *testing.T) {
	t.Parallel()
	for address, name := range map[string]bool{
		"coordinators:7400": true, "192.0.2.1:7400": false, "[2001:db8::1]:7400": false, "[fe80::1%eth0]:7400": false,
	} {
		resolved := false
		var connected []string
		d := dialer{
			lookup: func(context.Context, string, string) ([]netip.Addr, error) {
				resolved = true
				return nil, errors.New("no such host")
			},
			connect: func(_ context.Context, _, address string) (net.Conn, error) {
				connected = append(connected, address)
				return nil, errors.New("connection refused")
			},
		}
		if _, err := d.dial(t.Context(), address); err == nil || resolved != name || slices.Contains(connected, address) == name {
			t.Errorf("%s: %v, resolved %v, tried %v", address, err, resolved, connected)
		}
	}
}

func TestFirst(t *testing.T) {
	t.Parallel()
	lis, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	for _, address := range []string{"localhost:" + port, lis.Addr().String()} {
		conn, err := First(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	for _, address := range []string{"nonsense", "no.such.host.invalid:1"} {
		if _, err := First(t.Context(), address); err == nil {
			t.Errorf("%s: connected", address)
		}
	}
}

// TestSlowConnectionIsClosed: one that comes after another was taken.
func TestSlowConnectionIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hosts{all: []string{"192.0.2.1", "192.0.2.2"}, up: []string{"192.0.2.1", "192.0.2.2"}}
		d := h.dialer()
		quick := d.connect
		d.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "192.0.2.1:7400" {
				time.Sleep(time.Second)
			}
			return quick(ctx, network, address)
		}
		if _, err := d.dial(t.Context(), "coordinators:7400"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if n := h.connected(); n != 1 {
			t.Errorf("%d connections are open", n)
		}
	})
}
