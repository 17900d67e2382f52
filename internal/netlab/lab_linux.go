package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxHosts is what one Linux bridge takes, with room to spare.
const maxHosts = 1000

// Config describes a lab.
type Config struct {
	// Hosts are the names of the hosts. The first gets the first address of
	// each network, and so on.
	Hosts []string
	// Subnet is the IPv4 network; 10.77.0.0/16 if zero. It exists inside the
	// lab only and may be in use elsewhere.
	Subnet netip.Prefix
	// Subnet6 is the IPv6 network; without it the lab has no IPv6.
	Subnet6 netip.Prefix
}

// Lab is a switch and the hosts at its ports. Its methods and those of its
// hosts may be called at the same time.
type Lab struct {
	sw     *namespace
	ports  *netlink.Handle
	bridge *netlink.Bridge
	hosts  map[string]*Host
	// limits are the machine's, raised for this lab.
	limits []limit
}

// New builds a lab. It must run in a program that was started by Enter. For a
// large one it raises the machine's limits of neighbours until Close; a program
// that is killed leaves them raised.
func New(cfg Config) (*Lab, error) {
	if os.Getpid() != 1 { // the first process of Enter's PID namespace
		return nil, errors.New("build lab: not inside Enter")
	}
	if !cfg.Subnet.IsValid() {
		cfg.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, 0}), 16)
	}
	if len(cfg.Hosts) > maxHosts {
		return nil, fmt.Errorf("build lab: %d hosts; at most %d fit", len(cfg.Hosts), maxHosts)
	}
	l := &Lab{hosts: make(map[string]*Host, len(cfg.Hosts))}
	if len(cfg.Hosts) > enough {
		l.limits = neighbourLimits(len(cfg.Hosts), cfg.Subnet6.IsValid())
	}
	if err := l.build(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("build lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) build(cfg Config) (err error) {
	if err := widen(l.limits); err != nil {
		return err
	}
	if l.sw, err = newNamespace(); err != nil {
		return err
	}
	if !cfg.Subnet6.IsValid() {
		l.sw.withoutIPv6()
	}
	if l.ports, err = l.sw.netlink(); err != nil {
		return err
	}
	if l.bridge, err = addBridge(l.ports); err != nil {
		return err
	}
	addr, addr6 := cfg.Subnet.Masked().Addr(), cfg.Subnet6.Masked().Addr()
	for i, name := range cfg.Hosts {
		addr, addr6 = addr.Next(), addr6.Next()
		if !cfg.Subnet.Contains(addr) || (addr6.IsValid() && !cfg.Subnet6.Contains(addr6)) {
			return fmt.Errorf("add host %s: the network has too few addresses", name)
		}
		if _, taken := l.hosts[name]; taken {
			return fmt.Errorf("add host %s: the name is there twice", name)
		}
		h := &Host{name: name, port: fmt.Sprintf("port%d", i), lab: l, addr: addr, addr6: addr6}
		l.hosts[name] = h
		if err := h.attach(cfg); err != nil {
			return fmt.Errorf("add host %s: %w", name, err)
		}
	}
	for _, h := range l.hosts {
		if err := h.awaitLink(); err != nil {
			return err
		}
	}
	return nil
}

// addBridge makes the switch. Frames pass from a port's first moment on.
func addBridge(h *netlink.Handle) (*netlink.Bridge, error) {
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	bridge.Name = "switch"
	if err := h.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("add bridge: %w", err)
	}
	if err := h.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("set bridge up: %w", err)
	}
	return bridge, nil
}

// netlink opens a netlink socket in the namespace.
func (n *namespace) netlink() (h *netlink.Handle, err error) {
	err = n.do(func() error {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

// Host returns the host of that name, or nil.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// Close gives up the namespaces. Each ends when the last process and the last
// socket in it have ended.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.hosts {
		if h.inner != nil {
			h.inner.Close()
		}
		if h.ns != nil {
			errs = append(errs, h.ns.close())
		}
	}
	if l.ports != nil {
		l.ports.Close()
	}
	if l.sw != nil {
		errs = append(errs, l.sw.close())
	}
	return errors.Join(append(errs, narrow(l.limits))...)
}

// bits returns the address with the length of its network, as netlink wants it.
func bits(a netip.Addr, network netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(network.Bits(), a.BitLen())}
}
