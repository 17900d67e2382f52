//go:build lab && linux

package netlab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/buddyring/buddyring/internal/netlab"
)

// patience bounds waits for what must happen, also on a machine with other work,
// silence those for what must not.
const (
	patience = 30 * time.Second
	silence  = 200 * time.Millisecond
)

func newLab(t *testing.T, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	lab, err := netlab.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

// ping sends one echo request from a host and waits for the reply. network is
// one of icmp.ListenPacket's.
func ping(from *netlab.Host, network string, to netip.Addr, patience time.Duration) error {
	var conn *icmp.PacketConn
	err := from.Do(func() (err error) {
		conn, err = icmp.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	message := icmp.Message{Type: request, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("hello")}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return err
	}
	var dst net.Addr = &net.IPAddr{IP: to.AsSlice()}
	if strings.HasPrefix(network, "udp") {
		dst = &net.UDPAddr{IP: to.AsSlice()}
	}
	if _, err := conn.WriteTo(packet, dst); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if got, err := icmp.ParseMessage(reply.Protocol(), buf[:n]); err == nil && got.Type == reply {
			return nil
		}
	}
}

func TestHostsPingEachOther(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b", "c"}, Subnet6: netip.MustParsePrefix("fd77::/64")})
	a, b := lab.Host("a"), lab.Host("b")
	if got, want := b.Addr(), netip.MustParseAddr("10.77.0.2"); got != want {
		t.Errorf("address of b = %v, want %v", got, want)
	}
	for _, c := range []struct {
		network string
		to      netip.Addr
	}{
		{"ip4:icmp", b.Addr()},
		{"udp4", b.Addr()},
		{"ip6:ipv6-icmp", b.Addr6()},
		{"udp6", b.Addr6()},
		{"udp4", a.Addr()},
		{"udp4", netip.MustParseAddr("127.0.0.1")},
	} {
		if err := ping(a, c.network, c.to, patience); err != nil {
			t.Errorf("ping %v with %s: %v", c.to, c.network, err)
		}
	}
}

func TestLinkDownCutsBothWaysAndComesBack(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b", "c"}})
	a, b, c := lab.Host("a"), lab.Host("b"), lab.Host("c")
	for range 2 {
		if err := b.LinkDown(); err != nil {
			t.Fatal(err)
		}
		if ping(a, "udp4", b.Addr(), silence) == nil || ping(b, "udp4", a.Addr(), silence) == nil {
			t.Error("a ping came through a pulled cable")
		}
		if err := ping(a, "udp4", c.Addr(), patience); err != nil {
			t.Errorf("ping between the others: %v", err)
		}
		if err := b.LinkUp(); err != nil {
			t.Fatal(err)
		}
		if err := ping(a, "udp4", b.Addr(), patience); err != nil {
			t.Fatalf("ping after the cable is back: %v", err)
		}
	}
}

func TestCutIsOneWay(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b", "c"}})
	a, b, c := lab.Host("a"), lab.Host("b"), lab.Host("c")
	if err := a.Cut(b.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := ping(a, "udp4", b.Addr(), silence); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("ping along the cut: %v, want silence", err)
	}
	if err := ping(a, "udp4", c.Addr(), patience); err != nil {
		t.Errorf("ping beside the cut: %v", err)
	}
	if err := a.Mend(b.Addr()); err != nil {
		t.Fatal(err)
	}
	if err := ping(a, "udp4", b.Addr(), patience); err != nil {
		t.Errorf("ping after mending: %v", err)
	}
}

func TestEchoCanBeIgnored(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b"}})
	if err := lab.Host("b").SetSysctl("net.ipv4.icmp_echo_ignore_all", "1"); err != nil {
		t.Fatal(err)
	}
	if ping(lab.Host("a"), "udp4", lab.Host("b").Addr(), silence) == nil {
		t.Error("b answers a ping that it was told to ignore")
	}
}

func TestPingIsHiddenFromOthersOnly(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b"}})
	a, b := lab.Host("a"), lab.Host("b")
	if err := ping(a, "udp4", b.Addr(), patience); err != nil {
		t.Fatal(err)
	}
	if err := b.HidePing(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if ping(a, "udp4", b.Addr(), silence/10) == nil {
			t.Fatal("an answer came through")
		}
	}
	for _, to := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), a.Addr()} {
		if err := ping(b, "udp4", to, patience); err != nil {
			t.Errorf("ping %v from the host that hides: %v", to, err)
		}
	}
	if err := b.ShowPing(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := ping(a, "udp4", b.Addr(), patience); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIsolatedHostSeesNothingOfIt(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b", "c"}})
	a, b := lab.Host("a"), lab.Host("b")
	// Hosts that do not know each other yet would ask for their hardware
	// addresses, and again only after a second.
	if err := errors.Join(ping(a, "udp4", b.Addr(), patience), ping(b, "udp4", a.Addr(), patience)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := b.Isolate(); err != nil {
			t.Fatal(err)
		}
		if err := ping(b, "udp4", a.Addr(), silence); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ping from the isolated host: %v, want silence", err)
		}
		if ping(a, "udp4", b.Addr(), silence) == nil {
			t.Error("a ping reached the isolated host")
		}
		if err := b.Reconnect(); err != nil {
			t.Fatal(err)
		}
		// A request that is lost is not sent again.
		if err := ping(a, "udp4", b.Addr(), patience); err != nil {
			t.Errorf("ping right after: %v", err)
		}
	}
}

func TestDialAndListenOnHosts(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b"}})
	lis, err := lab.Host("b").Listen(t.Context(), "tcp", "10.77.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "from b")
			conn.Close()
		}
	}()
	if got, err := read(t, lab.Host("a").Dial); err != nil || got != "from b" {
		t.Errorf("from host a: read %q, %v", got, err)
	}
	if got, _ := read(t, new(net.Dialer).DialContext); got == "from b" {
		t.Error("the machine itself reaches into the lab")
	}
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// read returns what 10.77.0.2:80 says to who dials it.
func read(t *testing.T, dial dialer) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, err := dial(ctx, "tcp", "10.77.0.2:80")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}

func TestStartRunsOnTheHost(t *testing.T) {
	t.Parallel()
	lab := newLab(t, netlab.Config{Hosts: []string{"a", "b"}})
	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), "cat", "/proc/net/fib_trie")
	cmd.Stdout = &out
	if err := lab.Host("b").Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "10.77.0.2") || strings.Contains(out.String(), "10.77.0.1\n") {
		t.Errorf("the process does not see the network of host b:\n%s", &out)
	}
}

func TestTheMachineSeesNothing(t *testing.T) {
	t.Parallel()
	names := func() (names []string) {
		all, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range all {
			names = append(names, i.Name)
		}
		return names
	}
	before := names()
	newLab(t, netlab.Config{Hosts: []string{"a", "b"}})
	if got := names(); !slices.Equal(got, before) {
		t.Errorf("interfaces of the machine: %q before, %q with a lab", before, got)
	}
	if entries, err := os.ReadDir("/run/netns"); err == nil && len(entries) > 0 {
		for _, e := range entries {
			if strings.Contains(e.Name(), "netlab") {
				t.Errorf("named namespace %s", e.Name())
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]netlab.Config{
		"twins":        {Hosts: []string{"a", "a"}},
		"small subnet": {Hosts: []string{"a", "b", "c", "d"}, Subnet: netip.MustParsePrefix("192.0.2.0/30")},
		"too many":     {Hosts: make([]string, 1001)},
	} {
		if lab, err := netlab.New(cfg); err == nil {
			t.Errorf("%s: New succeeded", name)
			_ = lab.Close()
		}
	}
}

// lockLimits keeps the machine's limits from being changed by two runs of these
// tests at once, until the test ends.
func lockLimits(t *testing.T, how int) {
	t.Helper()
	file, err := os.OpenFile(filepath.Join(os.TempDir(), "buddyring-netlab-test.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(file.Fd()), how)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// It does not run in parallel with other large labs, which raise them as well.
func TestLimitsOfNeighboursAreRaisedAndGivenBack(t *testing.T) {
	const path = "/proc/sys/net/ipv4/neigh/default/gc_thresh3"
	lockLimits(t, unix.LOCK_EX)
	before, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Log("this machine's limits are out of reach: nothing to raise")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, 60)
	for i := range names {
		names[i] = fmt.Sprint("host-", i)
	}
	lab, err := netlab.New(netlab.Config{Hosts: names})
	if err != nil {
		t.Fatal(err)
	}
	during, err := os.ReadFile(path)
	if err := errors.Join(err, lab.Close()); err != nil {
		t.Fatal(err)
	}
	var limit int
	if _, err := fmt.Sscan(string(during), &limit); err != nil || limit < 60*60 {
		t.Errorf("limit %q, %v: not every host can know every other", during, err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the limit was %q, is %q, %v", before, after, err)
	}
}

func TestFiftyHosts(t *testing.T) {
	t.Parallel()
	lockLimits(t, unix.LOCK_SH)
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("h%d", i))
	}
	lab := newLab(t, netlab.Config{Hosts: names})
	for i, name := range names {
		if err := ping(lab.Host(name), "udp4", lab.Host(names[(i+1)%len(names)]).Addr(), patience); err != nil {
			t.Fatalf("%s to its neighbour: %v", name, err)
		}
	}
}
