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

// A firewall on the way refuses a connection by an ICMP error, whether the host is
// dead or not: nothing can be told. The firewall of the host itself does so
// from the host's own address.
func TestRefusalByICMP(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		host, from netip.Addr
		want       Outcome
	}{
		"on the way": {netip.MustParseAddr("192.0.2.3"), netip.MustParseAddr("192.0.2.2"), NotSent},
		"the host's": {netip.MustParseAddr("192.0.2.4"), netip.MustParseAddr("192.0.2.4"), Replied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			refuseFor(t, test.host, test.from)
			p := testProber(t, ModeNone)
			r := p.Probe(t.Context(), Target{Addresses: []netip.Addr{test.host}, Probe: tcp(80)}, enough(test.want))
			if r.Outcome != test.want {
				t.Errorf("%+v", r)
			}
		})
	}
}

// refuseFor answers SYNs to an address, which nobody has, with "port unreachable"
// until the test ends.
func refuseFor(t *testing.T, a, from netip.Addr) {
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
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ipv4.NewRawConn(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		refuseEach(ctx, t, fd, a, from, out)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		out.Close()
		unix.Close(fd)
	})
}

func refuseEach(ctx context.Context, t *testing.T, fd int, a, from netip.Addr, out *ipv4.RawConn) {
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
			err = out.WriteTo(&ipv4.Header{
				Version: ipv4.Version, Len: ipv4.HeaderLen, TotalLen: ipv4.HeaderLen + len(raw), TTL: 64,
				Protocol: unix.IPPROTO_ICMP, Src: from.AsSlice(), Dst: h.Src,
			}, raw, nil)
		}
		if err != nil {
			t.Error(err)
		}
	}
}
