//go:build lab && linux

package prober

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestRefusalByAnother: a router or a firewall on the way refuses a connection to a
// host that is dead, with an ICMP error. That is no evidence.
func TestRefusalByAnother(t *testing.T) {
	t.Parallel()
	dead := netip.MustParseAddr("192.0.2.3")
	refuseFor(t, dead)
	p := testProber(t, ModeNone)
	r := p.Probe(t.Context(), Target{Addresses: []netip.Addr{dead}, Probe: tcp(80)}, enough(Lost))
	if r.Outcome != Lost {
		t.Errorf("%+v", r)
	}
}

// refuseFor answers SYNs to an address, which nobody has, with "port unreachable"
// until the test ends.
func refuseFor(t *testing.T, a netip.Addr) {
	t.Helper()
	near, err := netlink.LinkByName("near")
	if err != nil {
		t.Fatal(err)
	}
	far, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: near.Attrs().Index, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: far.Attrs().HardwareAddr,
	}); err != nil {
		t.Fatal(err)
	}
	frames := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(frames))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: frames, Ifindex: far.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
		t.Fatal(err)
	}
	out, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		refuseEach(ctx, t, fd, a, out)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		out.Close()
		unix.Close(fd)
	})
}

func refuseEach(ctx context.Context, t *testing.T, fd int, a netip.Addr, out *net.IPConn) {
	packet := make([]byte, 1500)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(fd, packet, 0)
		if err != nil {
			continue // nothing came in time
		}
		h, err := ipv4.ParseHeader(packet[:n])
		if err != nil || h.Protocol != unix.IPPROTO_TCP || !h.Dst.Equal(a.AsSlice()) {
			continue
		}
		raw, err := (&icmp.Message{
			Type: ipv4.ICMPTypeDestinationUnreachable, Code: 3, Body: &icmp.DstUnreach{Data: packet[:h.Len+8]},
		}).Marshal(nil)
		if err == nil {
			_, err = out.WriteTo(raw, &net.IPAddr{IP: h.Src})
		}
		if err != nil {
			t.Error(err)
		}
	}
}
