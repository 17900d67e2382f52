//go:build lab && linux

package daemon

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// privacyEnv marks the process that has a network of its own.
const privacyEnv = "DAEMON_TEST_PRIVACY"

// TestProbeAddressLasts: a host with an IPv6 address that it will give up again,
// and that the kernel would choose, is pinged at the other one.
func TestProbeAddressLasts(t *testing.T) {
	if os.Getenv(privacyEnv) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestProbeAddressLasts$", "-test.v")
		cmd.Env = append(os.Environ(), privacyEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v (the lab tests need root: run them with sudo)\n%s", err, out)
		}
		return
	}
	lasting, coordinator := netip.MustParseAddr("2001:db8::1"), "[2001:db8::2]:7400"
	awaitTemporary(t, lasting)
	plain, err := net.Dial("udp", coordinator)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if chosen := plain.LocalAddr().(*net.UDPAddr).AddrPort().Addr(); chosen == lasting {
		t.Fatal("the kernel would choose the lasting address by itself")
	}
	if got := newRoutes(false).find(t.Context(), coordinator); !slices.Equal(got, []netip.Addr{lasting}) {
		t.Errorf("the address to be pinged at is %v, want %v", got, lasting)
	}
}

// awaitTemporary makes an interface with an address and waits until the kernel has
// given it a temporary one in addition.
func awaitTemporary(t *testing.T, lasting netip.Addr) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far"}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"use_tempaddr": "2", "accept_dad": "0", "dad_transmits": "0"} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/near/"+key, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	far, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range []netlink.Link{veth, far} {
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	}
	a := &netlink.Addr{
		IPNet: &net.IPNet{IP: lasting.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD | unix.IFA_F_MANAGETEMPADDR,
	}
	if err := netlink.AddrAdd(veth, a); err != nil {
		t.Fatal(err)
	}
	for range 600 {
		addrs, err := netlink.AddrList(veth, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
			return a.Flags&unix.IFA_F_TEMPORARY != 0 && a.Flags&unix.IFA_F_TENTATIVE == 0
		}) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no temporary address")
}
