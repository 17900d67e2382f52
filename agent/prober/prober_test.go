package prober

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func testProber(t *testing.T, mode Mode) *Prober {
	t.Helper()
	p := New(Config{Mode: mode, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(p.Wait)
	return p
}

func tcp(port uint16) member.Probe { return member.Probe{Method: member.ProbeTCP, Port: port} }

// closed is a port that nobody listens on, and that is given to nobody who asks for
// any. patience is for replies that must come, also on a machine with other work.
const (
	closed   = 1
	patience = time.Minute
)

// listen returns the port of a listener.
func listen(t *testing.T) uint16 {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lis.Close() })
	return lis.Addr().(*net.TCPAddr).AddrPort().Port()
}

func TestTCPReplyIsAnAcceptOrARefusal(t *testing.T) {
	t.Parallel()
	p := testProber(t, ModeNone)
	for name, port := range map[string]uint16{"accepted": listen(t), "refused": closed} {
		r := p.Probe(t.Context(), Target{Addresses: []netip.Addr{loopback}, Probe: tcp(port)}, patience)
		if r.Outcome != Replied || r.RTT <= 0 || r.Err != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := testProber(t, ModeNone)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := p.Probe(ctx, Target{Addresses: []netip.Addr{loopback}, Probe: tcp(9)}, time.Hour)
	if r.Outcome != NotSent || !errors.Is(r.Err, context.Canceled) {
		t.Errorf("%+v", r)
	}
}

func TestWhatCannotBeProbedIsNotLost(t *testing.T) {
	t.Parallel()
	p := testProber(t, ModeNone)
	for name, target := range map[string]Target{
		"no address":    {},
		"multicast":     {Addresses: []netip.Addr{netip.MustParseAddr("224.0.0.1")}, Probe: tcp(9)},
		"unspecified":   {Addresses: []netip.Addr{netip.IPv6Unspecified()}, Probe: tcp(9)},
		"no permission": {Addresses: []netip.Addr{loopback}},
	} {
		if r := p.Probe(t.Context(), target, time.Second); r.Outcome != NotSent || r.Err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestAnyAddressThatAnswersWillDo(t *testing.T) {
	t.Parallel()
	p := testProber(t, ModeNone)
	r := p.Probe(t.Context(), Target{
		Addresses: []netip.Addr{netip.MustParseAddr("224.0.0.1"), loopback}, Probe: tcp(closed),
	}, patience)
	if r.Outcome != Replied {
		t.Errorf("%+v", r)
	}
}

func TestConnect(t *testing.T) {
	t.Parallel()
	p := testProber(t, ModeNone)
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(loopback, port) }
	nowhere := netip.MustParseAddrPort("224.0.0.1:9")
	for name, c := range map[string]struct {
		to   []netip.AddrPort
		want Outcome
	}{
		"accepted":          {[]netip.AddrPort{nowhere, at(listen(t))}, Replied},
		"refused":           {[]netip.AddrPort{nowhere, at(closed)}, Replied},
		"cannot be sent":    {[]netip.AddrPort{nowhere}, NotSent},
		"nothing to try at": {nil, NotSent},
	} {
		if r := p.Connect(t.Context(), c.to, patience); r.Outcome != c.want || (r.Err == nil) != (c.want == Replied) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestResultOfSeveralSilentAddresses(t *testing.T) {
	t.Parallel()
	lost, late, unsent := Result{Outcome: Lost}, Result{Outcome: Lost, Late: true}, notSent(errors.New("no route"))
	for _, c := range []struct {
		a, b Result
		want Outcome
		late bool
	}{
		{lost, lost, Lost, false},
		{lost, late, Lost, true},
		{lost, unsent, Lost, false},
		{unsent, late, Lost, true},
		{unsent, unsent, NotSent, false},
	} {
		if got := worse(worse(Result{}, c.a), c.b); got.Outcome != c.want || got.Late != c.late {
			t.Errorf("%+v and %+v: %+v", c.a, c.b, got)
		}
	}
}

// TestLateObserver: a time-out that is noticed late first looks for a reply that
// has come meanwhile, and marks what it finds when it was too late.
func TestLateObserver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = 30 * time.Millisecond
		for _, c := range []struct {
			name string
			// behind is how late the observer comes to the time-out, answer when
			// after that a reply is read, or 0 for never.
			behind, answer time.Duration
			want           Result
		}{
			{"in time, silence", 0, 0, Result{Outcome: Lost}},
			{"a little late, silence", starvation / 2, 0, Result{Outcome: Lost}},
			{"a little late, a reply", starvation / 2, grace / 2, Result{Outcome: Replied, RTT: timeout + starvation/2 + grace/2}},
			{"starved, silence", 2 * starvation, 0, Result{Outcome: Lost, Late: true}},
			{"starved, a reply", 2 * starvation, grace / 2, Result{Outcome: Replied, Late: true, RTT: timeout + 2*starvation + grace/2}},
		} {
			v := newVolley(loopback, 1)
			if c.answer > 0 {
				time.AfterFunc(c.answer, func() { note(v.shots[0].replied) })
			}
			if got := v.await(t.Context(), 0, time.Now().Add(-timeout-c.behind), timeout); got != c.want {
				t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
			}
		}
		v := newVolley(loopback, 1)
		v.fail(errors.New("network is down"))
		if r := v.await(t.Context(), 0, time.Now(), time.Hour); r.Outcome != NotSent {
			t.Errorf("a failure: %+v", r)
		}
	})
}
