package prober

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
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

// listen returns the port of a listener, and the port of one that is closed.
func listen(t *testing.T) (open, closed uint16) {
	t.Helper()
	ports := make([]uint16, 2)
	for i := range ports {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = lis.Addr().(*net.TCPAddr).AddrPort().Port()
		if i == 1 {
			lis.Close()
		} else {
			t.Cleanup(func() { lis.Close() })
		}
	}
	return ports[0], ports[1]
}

func TestTCPReplyIsAnAcceptOrARefusal(t *testing.T) {
	t.Parallel()
	open, closed := listen(t)
	p := testProber(t, ModeNone)
	for name, port := range map[string]uint16{"accepted": open, "refused": closed} {
		r := p.Probe(t.Context(), Target{Addresses: []netip.Addr{loopback}, Probe: tcp(port)}, 5*time.Second)
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
	_, closed := listen(t)
	p := testProber(t, ModeNone)
	r := p.Probe(t.Context(), Target{
		Addresses: []netip.Addr{netip.MustParseAddr("224.0.0.1"), loopback}, Probe: tcp(closed),
	}, 5*time.Second)
	if r.Outcome != Replied {
		t.Errorf("%+v", r)
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
// has come meanwhile, and marks what it finds.
func TestLateObserver(t *testing.T) {
	t.Parallel()
	longAgo := time.Now().Add(-time.Second)
	e := &echo{replied: make(chan time.Time, 1), failed: make(chan error, 1)}
	if r := e.await(t.Context(), longAgo, 20*time.Millisecond); r.Outcome != Lost || !r.Late {
		t.Errorf("no reply: %+v", r)
	}
	e.replied <- longAgo.Add(5 * time.Millisecond)
	if r := e.await(t.Context(), longAgo, 20*time.Millisecond); r.Outcome != Replied || r.RTT != 5*time.Millisecond {
		t.Errorf("a reply: %+v", r)
	}
	e.failed <- errors.New("network is down")
	if r := e.await(t.Context(), time.Now(), time.Hour); r.Outcome != NotSent {
		t.Errorf("a failure: %+v", r)
	}
}
