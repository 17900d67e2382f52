//go:build lab && linux

package prober

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buddyring/buddyring/internal/leak"
)

// insideEnv marks the test binary that runs in a network namespace of its own,
// in which all of these tests run.
const insideEnv = "PROBER_TEST_INSIDE"

// selfTestEnv makes it print the result of a self-test instead.
const selfTestEnv = "PROBER_TEST_SELF_TEST"

const everyGroup = "0 2147483647"

func allowPing(groups string) error {
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0o600)
}

func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) == "" {
		os.Exit(inNamespace())
	}
	if os.Getenv(selfTestEnv) != "" {
		h := SelfTest(context.Background(), slog.New(slog.DiscardHandler))
		fmt.Println(h.Mode, h.Err)
		os.Exit(0)
	}
	if err := prepare(); err != nil {
		fmt.Fprintf(os.Stderr, "prepare namespace: %v\n", err)
		os.Exit(1)
	}
	leak.Main(m)
}

func inNamespace() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "make network namespace: %v\nthe lab tests need root: run them with sudo\n", err)
		return 1
	}
	return 0
}

// Addresses of the namespace: on a link whose other end nobody answers on, one
// behind a route that forbids, one that no route leads to.
var (
	silent     = netip.MustParseAddr("192.0.2.2")
	silent6    = netip.MustParseAddr("2001:db8::2")
	broadcast  = netip.MustParseAddr("192.0.2.255")
	forbidden  = netip.MustParseAddr("198.51.100.1")
	unroutable = netip.MustParseAddr("203.0.113.1")
	loopback6  = netip.IPv6Loopback()
)

func prepare() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "near"}, PeerName: "far"}
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(veth)); err != nil {
		return err
	}
	far, err := netlink.LinkByName("far")
	if err != nil {
		return err
	}
	four, _ := netlink.ParseAddr("192.0.2.1/24")
	six, _ := netlink.ParseAddr("2001:db8::1/64")
	six.Flags = unix.IFA_F_NODAD
	_, no, _ := net.ParseCIDR("198.51.100.0/24")
	return errors.Join(
		netlink.AddrAdd(veth, four), netlink.AddrAdd(veth, six),
		netlink.LinkSetUp(veth), netlink.LinkSetUp(far),
		netlink.RouteAdd(&netlink.Route{Dst: no, Type: unix.RTN_PROHIBIT}),
		allowPing(everyGroup),
	)
}

func eachMode(t *testing.T, test func(t *testing.T, p *Prober)) {
	t.Parallel()
	for _, mode := range []Mode{ModeRaw, ModeDatagram} {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			test(t, testProber(t, mode))
		})
	}
}

func TestPing(t *testing.T) {
	eachMode(t, func(t *testing.T, p *Prober) {
		for _, a := range []netip.Addr{loopback, loopback6} {
			for range 20 {
				r := p.Probe(t.Context(), Target{Addresses: []netip.Addr{a}}, patience)
				if r.Outcome != Replied || r.RTT <= 0 || r.RTT > patience {
					t.Fatalf("%v: %+v", a, r)
				}
			}
		}
	})
}

func TestSilenceIsLost(t *testing.T) {
	eachMode(t, func(t *testing.T, p *Prober) {
		timeout := enough(Lost)
		for _, target := range []Target{
			{Addresses: []netip.Addr{silent}},
			{Addresses: []netip.Addr{silent6}},
			{Addresses: []netip.Addr{silent, silent6}},
			{Addresses: []netip.Addr{silent, unroutable}},
			{Addresses: []netip.Addr{silent}, Probe: tcp(80)},
		} {
			began := time.Now()
			r := p.Probe(t.Context(), target, timeout)
			if took := time.Since(began); r.Outcome != Lost || took < timeout {
				t.Errorf("%+v: %+v after %v", target, r, took)
			}
		}
	})
}

// enough is how long to wait for an outcome: a reply that must come may come late
// on a machine with other work, and so may a request leave.
func enough(want Outcome) time.Duration {
	if want == Replied {
		return patience
	}
	return 500 * time.Millisecond
}

// shoot sends n probes of the addresses 20 ms apart.
func shoot(t *testing.T, p *Prober, n int, want Outcome, addresses ...netip.Addr) []Result {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const spacing = 20 * time.Millisecond
	fire := p.Volley(ctx, Target{Addresses: addresses}, n, spacing)
	results := make([]Result, n)
	var shots sync.WaitGroup
	for i := range n {
		shots.Go(func() { results[i] = fire(i, enough(want)) })
		time.Sleep(spacing)
	}
	shots.Wait()
	return results
}

func TestVolley(t *testing.T) {
	eachMode(t, func(t *testing.T, p *Prober) {
		for _, c := range []struct {
			addresses []netip.Addr
			want      Outcome
		}{
			{[]netip.Addr{loopback}, Replied},
			{[]netip.Addr{loopback6}, Replied},
			{[]netip.Addr{silent, loopback6}, Replied},
			{[]netip.Addr{silent}, Lost},
			{[]netip.Addr{silent, unroutable}, Lost},
			{[]netip.Addr{forbidden}, NotSent},
			{[]netip.Addr{unroutable}, NotSent},
		} {
			for i, r := range shoot(t, p, 10, c.want, c.addresses...) {
				if r.Outcome != c.want || r.RTT < 0 {
					t.Errorf("%v: probe %d: %+v", c.addresses, i, r)
				}
			}
		}
	})
}

func TestConnectInSilenceIsLost(t *testing.T) {
	t.Parallel()
	p := testProber(t, ModeNone)
	timeout := enough(Lost)
	began := time.Now()
	r := p.Connect(t.Context(), []netip.AddrPort{netip.AddrPortFrom(silent, 80), netip.AddrPortFrom(unroutable, 80)}, timeout)
	if took := time.Since(began); r.Outcome != Lost || took < timeout {
		t.Errorf("%+v after %v", r, took)
	}
	r = p.Connect(t.Context(), []netip.AddrPort{netip.AddrPortFrom(silent, 80), netip.AddrPortFrom(loopback, 9)}, patience)
	if r.Outcome != Replied {
		t.Errorf("a refusal among them: %+v", r)
	}
}

func TestOneFamilyThatAnswersIsEnough(t *testing.T) {
	eachMode(t, func(t *testing.T, p *Prober) {
		r := p.Probe(t.Context(), Target{Addresses: []netip.Addr{silent, loopback6}}, patience)
		if r.Outcome != Replied {
			t.Errorf("%+v", r)
		}
	})
}

func TestOwnTroubleIsNotLoss(t *testing.T) {
	eachMode(t, func(t *testing.T, p *Prober) {
		for name, target := range map[string]Target{
			"prohibiting route":      {Addresses: []netip.Addr{forbidden}},
			"no route":               {Addresses: []netip.Addr{unroutable}},
			"broadcast address":      {Addresses: []netip.Addr{broadcast}},
			"prohibiting route, TCP": {Addresses: []netip.Addr{forbidden}, Probe: tcp(80)},
			"no route, TCP":          {Addresses: []netip.Addr{unroutable}, Probe: tcp(80)},
		} {
			began := time.Now()
			r := p.Probe(t.Context(), target, patience)
			if r.Outcome != NotSent || r.Err == nil {
				t.Errorf("%s: %+v", name, r)
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("%s took %v", name, took)
			}
		}
	})
}

// TestForbiddenSendDoesNotSpin goes past the look for a route, to the loop of
// pro-bing that would never return.
func TestForbiddenSendDoesNotSpin(t *testing.T) {
	eachMode(t, func(t *testing.T, p *Prober) {
		r := p.ping(t.Context(), forbidden, patience)
		if r.Outcome != NotSent || !errors.Is(r.Err, fs.ErrPermission) {
			t.Errorf("%+v", r)
		}
		p.Wait()
	})
}

func TestPingEndsWithItsContext(t *testing.T) {
	eachMode(t, func(t *testing.T, p *Prober) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		r := p.Probe(ctx, Target{Addresses: []netip.Addr{silent}}, time.Hour)
		if r.Outcome != NotSent || !errors.Is(r.Err, context.Canceled) {
			t.Errorf("%+v", r)
		}
		p.Wait()
	})
}

func TestSelfTestPrefersTheRawSocket(t *testing.T) {
	t.Parallel()
	h := SelfTest(t.Context(), slog.New(slog.DiscardHandler))
	if h.Mode != ModeRaw || h.Err != nil || h.Loopback.Probe != (Target{}).Probe || len(h.Warnings) > 0 {
		t.Errorf("%+v", h)
	}
}

// TestSelfTestWithoutIPv4: a host that has only IPv6 knows itself by that. It is
// not parallel: the namespace has no IPv4 loopback address meanwhile.
func TestSelfTestWithoutIPv4(t *testing.T) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	home, _ := netlink.ParseAddr("127.0.0.1/8")
	if err := netlink.AddrDel(lo, home); err != nil {
		t.Fatal(err)
	}
	h := SelfTest(t.Context(), slog.New(slog.DiscardHandler))
	if err := netlink.AddrAdd(lo, home); err != nil {
		t.Fatal(err)
	}
	if h.Mode != ModeRaw || h.Err != nil || !slices.Equal(h.Loopback.Addresses, []netip.Addr{loopback6}) ||
		h.Loopback.Probe != (Target{}).Probe || len(h.Warnings) > 0 {
		t.Errorf("%+v", h)
	}
}

// TestSelfTestWithoutCapabilities runs the self-test as nobody. It is not
// parallel: it changes who may use ping sockets.
func TestSelfTestWithoutCapabilities(t *testing.T) {
	for groups, want := range map[string]string{everyGroup: ModeDatagram.String(), "1 0": ErrNoPermission.Error()} {
		if err := allowPing(groups); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), selfTestEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("ping_group_range %q: %v, want %q in:\n%s", groups, err, want, out)
		}
	}
	if err := allowPing(everyGroup); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkVolley is the cost of a dead server: 20 probes over 475 ms that wait
// until 525 ms, through one socket.
func BenchmarkVolley(b *testing.B) {
	p := New(Config{Mode: ModeRaw, Logger: slog.New(slog.DiscardHandler)})
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		fire := p.Volley(ctx, Target{Addresses: []netip.Addr{silent}}, 20, 25*time.Millisecond)
		var shots sync.WaitGroup
		for i := range 20 {
			shots.Go(func() { fire(i, 525*time.Millisecond-time.Duration(i)*25*time.Millisecond) })
			time.Sleep(25 * time.Millisecond)
		}
		shots.Wait()
		cancel()
	}
	p.Wait()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what this process has used, in nanoseconds.
func cpuTime() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkPing is the cost of one probe: a pinger with a socket of its own. An
// agent sends four a second.
func BenchmarkPing(b *testing.B) {
	for _, mode := range []Mode{ModeRaw, ModeDatagram} {
		b.Run(mode.String(), func(b *testing.B) {
			p := New(Config{Mode: mode, Logger: slog.New(slog.DiscardHandler)})
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				if r := p.Probe(b.Context(), Target{Addresses: []netip.Addr{loopback}}, time.Second); r.Outcome != Replied {
					b.Fatalf("%+v", r)
				}
			}
			p.Wait()
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
