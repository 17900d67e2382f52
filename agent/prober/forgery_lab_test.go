//go:build lab && linux

package prober

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// The host that is probed and one that speaks for it; both are this one.
var (
	victim = netip.MustParseAddr("127.0.0.99")
	forger = netip.MustParseAddr("127.0.0.98")
)

type reply struct {
	from netip.Addr
	echo icmp.Echo
}

// TestForgedReplies lets the test answer echo requests in place of the kernel.
// It is not parallel: no host in the namespace answers meanwhile.
func TestForgedReplies(t *testing.T) {
	const ignore = "/proc/sys/net/ipv4/icmp_echo_ignore_all"
	if err := os.WriteFile(ignore, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(ignore, []byte("0"), 0o600)
	for name, c := range map[string]struct {
		answer func(icmp.Echo) []reply
		want   Outcome
	}{
		"the right reply": {func(e icmp.Echo) []reply { return []reply{{victim, e}} }, Replied},
		"no reply":        {func(icmp.Echo) []reply { return nil }, Lost},
		"another address": {func(e icmp.Echo) []reply { return []reply{{forger, e}} }, Lost},
		"another address, then the right one": {
			func(e icmp.Echo) []reply { return []reply{{forger, e}, {victim, e}} }, Replied,
		},
		"another sequence number": {
			func(e icmp.Echo) []reply { e.Seq++; return []reply{{victim, e}} }, Lost,
		},
		"another payload": {
			func(e icmp.Echo) []reply { e.Data[len(e.Data)-1] ^= 1; return []reply{{victim, e}} }, Lost,
		},
		"half a payload": {
			func(e icmp.Echo) []reply { e.Data = e.Data[:12]; return []reply{{victim, e}} }, Lost,
		},
	} {
		t.Run(name, func(t *testing.T) {
			stop := answer(t, c.answer)
			defer stop()
			for _, mode := range []Mode{ModeRaw, ModeDatagram} {
				r := testProber(t, mode).Probe(t.Context(), Target{Addresses: []netip.Addr{victim}}, enough(c.want))
				if r.Outcome != c.want {
					t.Errorf("%v: %+v", mode, r)
				}
				for i, r := range shoot(t, testProber(t, mode), 2, c.want, victim) {
					if r.Outcome != c.want {
						t.Errorf("%v, probe %d of several: %+v", mode, i, r)
					}
				}
			}
		})
	}
}

// answer replies to the echo requests for the victim as the function says.
func answer(t *testing.T, replies func(icmp.Echo) []reply) (stop func()) {
	t.Helper()
	conns := map[netip.Addr]*net.IPConn{}
	for _, a := range []netip.Addr{victim, forger} {
		c, err := net.ListenIP("ip4:icmp", &net.IPAddr{IP: a.AsSlice()})
		if err != nil {
			t.Fatal(err)
		}
		conns[a] = c
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conns[victim].ReadFrom(buf)
			if err != nil {
				return
			}
			m, err := icmp.ParseMessage(1, buf[:n])
			if err != nil || m.Type != ipv4.ICMPTypeEcho {
				continue
			}
			for _, r := range replies(*m.Body.(*icmp.Echo)) {
				raw, err := (&icmp.Message{Type: ipv4.ICMPTypeEchoReply, Body: &r.echo}).Marshal(nil)
				if err == nil {
					_, err = conns[r.from].WriteTo(raw, from)
				}
				if err != nil {
					t.Error(err)
				}
			}
		}
	}()
	return func() {
		for _, c := range conns {
			c.Close()
		}
		<-done
	}
}
