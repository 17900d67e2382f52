package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkPatience is how long a link may take to come up.
const linkPatience = 10 * time.Second

// device is the name of every host's one network interface.
const device = "eth0"

// Host is a network namespace with a cable to the switch.
type Host struct {
	name string
	port string
	lab  *Lab
	ns   *namespace
	// inner configures the host's end of the cable.
	inner *netlink.Handle
	addr  netip.Addr
	addr6 netip.Addr
}

// attach makes the namespace and its cable, and brings both ends up.
func (h *Host) attach(cfg Config) (err error) {
	if h.ns, err = newNamespace(); err != nil {
		return err
	}
	if !h.addr6.IsValid() {
		h.ns.withoutIPv6()
	}
	cable := &netlink.Veth{
		LinkAttrs:     netlink.NewLinkAttrs(),
		PeerName:      device,
		PeerNamespace: netlink.NsFd(h.ns.file.Fd()),
	}
	cable.Name, cable.MasterIndex = h.port, h.lab.bridge.Index
	if err := h.lab.ports.LinkAdd(cable); err != nil {
		return fmt.Errorf("add cable: %w", err)
	}
	if err := h.plug(); err != nil {
		return err
	}
	if h.inner, err = h.ns.netlink(); err != nil {
		return err
	}
	for _, name := range []string{"lo", device} {
		if err := setLink(h.inner, name, h.inner.LinkSetUp); err != nil {
			return err
		}
	}
	if err := h.address(bits(h.addr, cfg.Subnet), 0); err != nil {
		return err
	}
	if h.addr6.IsValid() {
		if err := h.address(bits(h.addr6, cfg.Subnet6), unix.IFA_F_NODAD); err != nil {
			return err
		}
	}
	h.allowPing()
	return nil
}

func (h *Host) address(network *net.IPNet, flags int) error {
	link, err := h.inner.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	if err := h.inner.AddrAdd(link, &netlink.Addr{IPNet: network, Flags: flags}); err != nil {
		return fmt.Errorf("add address %s: %w", network, err)
	}
	return nil
}

// allowPing opens unprivileged ping sockets to every group that the user
// namespace knows: all of them, or just its only one. Where /proc/sys is
// read-only, raw sockets remain.
func (h *Host) allowPing() {
	const key = "net.ipv4.ping_group_range"
	if h.SetSysctl(key, "0 2147483647") != nil {
		_ = h.SetSysctl(key, "0 0")
	}
}

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// Addr returns the host's IPv4 address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Addr6 returns the host's IPv6 address; it is invalid in a lab without IPv6.
func (h *Host) Addr6() netip.Addr { return h.addr6 }

// LinkDown pulls the host's cable out of the switch: at once nothing passes
// either way, and the host sees its carrier go.
func (h *Host) LinkDown() error {
	return setLink(h.lab.ports, h.port, h.lab.ports.LinkSetDown)
}

// LinkUp puts the cable back and returns when the host can send again.
func (h *Host) LinkUp() error {
	if err := h.plug(); err != nil {
		return err
	}
	return h.awaitLink()
}

func (h *Host) plug() error {
	return setLink(h.lab.ports, h.port, h.lab.ports.LinkSetUp)
}

// awaitLink waits until both ends of the cable have noticed their carrier, for
// which the kernel may take a second each. Until then they drop what they send.
func (h *Host) awaitLink() error {
	end := time.Now().Add(linkPatience)
	return errors.Join(awaitUp(h.inner, device, end), awaitUp(h.lab.ports, h.port, end))
}

func awaitUp(handle *netlink.Handle, name string, end time.Time) error {
	for ; ; time.Sleep(time.Millisecond) {
		link, err := handle.LinkByName(name)
		switch {
		case err != nil:
			return fmt.Errorf("find %s: %w", name, err)
		case link.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("%s is %v after %v", name, link.Attrs().OperState, linkPatience)
		}
	}
}

// Isolate takes the host's cable out of the switch behind its back: at once
// nothing passes either way, and the host sees nothing of it.
func (h *Host) Isolate() error {
	return setLink(h.lab.ports, h.port, h.lab.ports.LinkSetNoMaster)
}

// Reconnect undoes Isolate, at once.
func (h *Host) Reconnect() error {
	return setLink(h.lab.ports, h.port, func(port netlink.Link) error {
		return h.lab.ports.LinkSetMaster(port, h.lab.bridge)
	})
}

// HidePing lets the host's answers to IPv4 pings vanish, as a firewall does
// that drops ICMP: those to other hosts, not those to itself.
func (h *Host) HidePing() error {
	// An answer in ten minutes to each host, with nothing saved up.
	return errors.Join(h.SetSysctl("net.ipv4.icmp_ratelimit", "600000"), h.SetSysctl("net.ipv4.icmp_ratemask", "1"))
}

// ShowPing undoes HidePing: it sets what the kernel begins with.
func (h *Host) ShowPing() error {
	return errors.Join(h.SetSysctl("net.ipv4.icmp_ratemask", "6168"), h.SetSysctl("net.ipv4.icmp_ratelimit", "1000"))
}

// Cut makes all that the host sends to that address vanish, without an error to
// the sender; the other direction stays as it is.
func (h *Host) Cut(to netip.Addr) error {
	nowhere := net.HardwareAddr{2, 0, 0, 0, 0, 0xff}
	return h.send(to, nowhere)
}

// send has all that the host sends to an address go to whoever has hw.
func (h *Host) send(to netip.Addr, hw net.HardwareAddr) error {
	return h.neighbour(to, hw, (*netlink.Handle).NeighSet)
}

// Mend undoes Cut.
func (h *Host) Mend(to netip.Addr) error {
	return h.neighbour(to, nil, (*netlink.Handle).NeighDel)
}

func (h *Host) neighbour(to netip.Addr, hw net.HardwareAddr, change func(*netlink.Handle, *netlink.Neigh) error) error {
	link, err := h.inner.LinkByName(device)
	if err != nil {
		return fmt.Errorf("find %s: %w", device, err)
	}
	entry := &netlink.Neigh{
		LinkIndex:    link.Attrs().Index,
		State:        netlink.NUD_PERMANENT,
		IP:           to.AsSlice(),
		HardwareAddr: hw,
	}
	if err := change(h.inner, entry); err != nil {
		return fmt.Errorf("change neighbour %s: %w", to, err)
	}
	return nil
}

func setLink(handle *netlink.Handle, name string, set func(netlink.Link) error) error {
	link, err := handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// SetSysctl sets a network parameter of this host, such as
// "net.ipv4.icmp_echo_ignore_all".
func (h *Host) SetSysctl(key, value string) error {
	return h.ns.setSysctl(key, value)
}

// Do runs fn on a thread inside the host's namespace and returns its error.
// Sockets that fn opens belong to the host for good; goroutines that fn starts
// run outside.
func (h *Host) Do(fn func() error) error { return h.ns.do(fn) }

// Start starts cmd on the host, in a process group of its own so that a Ctrl-C
// at the terminal does not reach it. The process ends with the program at the
// latest. cmd must not set Pdeathsig: the thread that forks does not live on.
func (h *Host) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	if err := h.Do(cmd.Start); err != nil {
		return fmt.Errorf("start on %s: %w", h.name, err)
	}
	return nil
}

// Dial connects from the host. The address must be numeric.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = h.Do(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on the host. The address must be numeric.
func (h *Host) Listen(ctx context.Context, network, address string) (lis net.Listener, err error) {
	err = h.Do(func() error {
		lis, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return lis, err
}
