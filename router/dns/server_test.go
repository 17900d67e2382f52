package dns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/leak"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/dns"
	"github.com/buddyring/buddyring/router/door"
	"github.com/buddyring/buddyring/router/view"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	origin = "buddyring.internal."
	// patience bounds waits for what must happen, also on a machine with other work.
	patience = time.Minute
)

// pools are what a door under test is to serve.
type pools struct {
	states atomic.Pointer[map[member.Pool]*door.State]
	// at is the address of each server; nil for made-up ones.
	at func(i int) string
}

func (p *pools) Pool(name member.Pool) (*door.State, error) {
	states := p.states.Load()
	if states == nil {
		return nil, member.ErrUnavailable
	}
	if s := (*states)[name]; s != nil {
		return s, nil
	}
	return nil, member.ErrNotFound
}

func (p *pools) Pools() ([]*door.State, error) { return nil, member.ErrUnavailable }

// set makes pools of n servers each.
func (p *pools) set(sizes map[member.Pool]int) {
	at := p.at
	if at == nil {
		at = func(i int) string { return fmt.Sprintf("10.0.%d.%d:8080", i/250, i%250+1) }
	}
	states := map[member.Pool]*door.State{}
	for name, n := range sizes {
		servers := make([]*view.Server, n)
		for i := range servers {
			servers[i] = &view.Server{
				ID: member.ID(fmt.Sprintf("web-%d", i+1)), Phase: member.PhaseActive, Weight: 100,
				Endpoints: []member.Endpoint{{Name: "http", Address: at(i)}},
			}
		}
		v := view.Restore(name, view.Snapshot{StoreID: "s", Position: member.Position{Epoch: 1, Revision: 1}, Servers: servers}, nil)
		states[name] = &door.State{
			View: v, Table: v.Table(),
			Freshness: func(time.Time) (time.Duration, bool) { return 0, false },
		}
	}
	p.states.Store(&states)
}

// serve runs a door on loopback until the test ends, and returns its address.
func serve(t *testing.T, p *pools) (string, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	s, err := dns.New(dns.Config{Zone: origin}, dns.Deps{Pools: p, Registry: reg, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	packets, streams := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, packets, streams) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return packets.LocalAddr().String(), reg
}

// listen opens a port of both transports.
func listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		streams, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		packets, err := net.ListenPacket("udp", streams.Addr().String())
		if err == nil {
			return packets, streams
		}
		// Somebody else has that port.
		if err = errors.Join(err, streams.Close()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// ask asks by "udp" or "tcp", with an EDNS size unless that is 0.
func ask(t *testing.T, network, address, name string, qtype uint16, size uint16) *wire.Msg {
	t.Helper()
	m := new(wire.Msg)
	m.SetQuestion(name, qtype)
	if size > 0 {
		m.SetEdns0(size, false)
	}
	// The client itself must take whatever comes, so that a packet that is too big
	// shows.
	client := wire.Client{Net: network, UDPSize: wire.MaxMsgSize, Timeout: patience}
	res, _, err := client.Exchange(m, address)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// An answer never exceeds what the client takes, says so when it is cut, and is
// whole over TCP. A part of the services is never given, of the addresses it is.
func TestSizes(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(map[member.Pool]int{"one": 1, "ten": 10, "fifty": 50, "many": 200, "huge": 3000})
	address, _ := serve(t, p)
	for _, c := range []struct {
		network, pool string
		qtype, size   uint16
		records       int
		cut           bool
	}{
		{"udp", "one", wire.TypeSRV, 0, 1, false},
		{"udp", "ten", wire.TypeA, 0, 10, false},
		{"udp", "fifty", wire.TypeA, 0, -1, true},
		{"udp", "fifty", wire.TypeA, 1232, 50, false},
		{"udp", "fifty", wire.TypeSRV, 1232, 0, true},
		{"udp", "fifty", wire.TypeSRV, 8192, 50, false},
		{"udp", "many", wire.TypeSRV, 8192, 0, true},
		{"udp", "many", wire.TypeA, 8192, 200, false},
		{"udp", "huge", wire.TypeA, 65535, -1, true},
		{"udp", "fifty", wire.TypeA, 1, -1, true},
		{"tcp", "many", wire.TypeSRV, 0, 200, false},
		{"tcp", "many", wire.TypeSRV, 512, 200, false},
		{"tcp", "huge", wire.TypeSRV, 0, -1, false},
	} {
		res := ask(t, c.network, address, "_http._tcp."+c.pool+"."+origin, c.qtype, c.size)
		if c.qtype == wire.TypeA {
			res = ask(t, c.network, address, c.pool+"."+origin, c.qtype, c.size)
		}
		name := fmt.Sprintf("%s %s %s %d", c.network, c.pool, wire.TypeToString[c.qtype], c.size)
		if res.Rcode != wire.RcodeSuccess || res.Truncated != c.cut || !res.Authoritative || res.RecursionAvailable {
			t.Errorf("%s: %v", name, res.MsgHdr)
		}
		if c.records >= 0 && len(res.Answer) != c.records || c.records < 0 && len(res.Answer) == 0 {
			t.Errorf("%s: %d records, want %d", name, len(res.Answer), c.records)
		}
		limit := 65535
		if c.network == "udp" {
			limit = min(8192, max(512, int(c.size)))
		}
		res.Compress = true
		if n := res.Len(); n > limit {
			t.Errorf("%s: %d bytes, want at most %d", name, n, limit)
		}
		if opt := res.IsEdns0(); (opt != nil) != (c.size > 0) || opt != nil && opt.UDPSize() != 1232 {
			t.Errorf("%s: EDNS %v", name, opt)
		}
	}
}

// Every listed server is reached over the course of a few cut answers.
func TestCutAnswersTakeTurns(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(map[member.Pool]int{"fifty": 50})
	address, _ := serve(t, p)
	seen := map[string]bool{}
	for i := 0; len(seen) < 50; i++ {
		for _, rr := range ask(t, "udp", address, "fifty."+origin, wire.TypeA, 0).Answer {
			seen[rr.String()] = true
		}
		if i == 200 {
			t.Fatalf("only %d of 50 after %d answers", len(seen), i)
		}
	}
}

func TestNamesAndCodes(t *testing.T) {
	t.Parallel()
	p := &pools{}
	address, _ := serve(t, p)
	if res := ask(t, "udp", address, "web."+origin, wire.TypeA, 0); res.Rcode != wire.RcodeServerFailure || res.Authoritative {
		t.Errorf("before any state: %v", res)
	}
	p.set(map[member.Pool]int{"web": 2})
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct {
			name      string
			qtype     uint16
			rcode     int
			records   int
			authority bool
		}{
			{"wEB.buddyRING.internal.", wire.TypeA, wire.RcodeSuccess, 2, false},
			{"web." + origin, wire.TypeAAAA, wire.RcodeSuccess, 0, true},
			{"nobody." + origin, wire.TypeA, wire.RcodeNameError, 0, true},
			{"web." + origin, wire.TypeANY, wire.RcodeRefused, 0, false},
			{origin, wire.TypeAXFR, wire.RcodeRefused, 0, false},
			{"example.com.", wire.TypeA, wire.RcodeRefused, 0, false},
		} {
			res := ask(t, network, address, c.name, c.qtype, 1232)
			if res.Rcode != c.rcode || len(res.Answer) != c.records || (len(res.Ns) > 0) != c.authority {
				t.Errorf("%s %s: %v", network, c.name, res)
			}
			if res.Question[0].Name != c.name {
				t.Errorf("asked for %s, answered %s", c.name, res.Question[0].Name)
			}
			for _, rr := range res.Answer {
				if rr.Header().Name != c.name {
					t.Errorf("asked for %s, got %s", c.name, rr.Header().Name)
				}
			}
		}
	}
}

// A new state is answered from at once.
func TestChangeIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	p := &pools{}
	address, _ := serve(t, p)
	for n := range 5 {
		p.set(map[member.Pool]int{"web": n})
		if res := ask(t, "udp", address, "web."+origin, wire.TypeA, 0); len(res.Answer) != n {
			t.Errorf("%d records, want %d", len(res.Answer), n)
		}
	}
}

// A client that is answered too much by UDP gets the question back, cut, and is
// answered over TCP; other sources are answered as ever.
func TestLimitPerSource(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(map[member.Pool]int{"fifty": 50})
	address, reg := serve(t, p)
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := new(wire.Msg)
	m.SetQuestion("_http._tcp.fifty."+origin, wire.TypeSRV)
	m.SetEdns0(8192, false)
	question, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65535)
	// How many it takes depends on how quickly they come.
	const most = 100_000
	limited := 0
	for n := 0; limited < 10 && n < most; n++ {
		if _, err := conn.Write(question); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if n > len(question) {
			continue
		}
		limited++
		res := new(wire.Msg)
		if err := res.Unpack(buf[:n]); err != nil || !res.Truncated || len(res.Answer) > 0 || res.Question[0] != m.Question[0] {
			t.Fatalf("%v, %v", res, err)
		}
	}
	if limited == 0 {
		t.Errorf("%d answers of 4 KiB were sent to one source", most)
	}
	if got := value(t, reg, "buddyring_router_dns_limited_total"); got != float64(limited) {
		t.Errorf("limited_total = %v, want %d", got, limited)
	}
	if res := ask(t, "tcp", address, "fifty."+origin, wire.TypeA, 0); len(res.Answer) != 50 {
		t.Errorf("over TCP: %d records", len(res.Answer))
	}
	other := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	client := wire.Client{Dialer: &other, Timeout: patience}
	res, _, err := client.Exchange(m, address)
	if err != nil || len(res.Answer) != 50 {
		t.Errorf("another source: %v, %v", res, err)
	}
}

// Packets that are no question are ignored or refused, and nothing breaks.
func TestGarbage(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(map[member.Pool]int{"web": 2})
	address, reg := serve(t, p)
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, packet := range [][]byte{
		{}, {1}, make([]byte, 11), append([]byte{1, 2, 0x80, 0, 0, 1}, make([]byte, 20)...), // noise and answers
	} {
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	header := func(flags byte, questions byte, rest ...byte) []byte {
		return append([]byte{7, 7, flags, 0, 0, questions, 0, 0, 0, 0, 0, 0}, rest...)
	}
	buf := make([]byte, 65535)
	for _, c := range []struct {
		packet []byte
		rcode  int
	}{
		{header(0, 0), wire.RcodeFormatError},                               // no question
		{header(0, 2, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1), wire.RcodeFormatError}, // two
		{header(0, 1), wire.RcodeFormatError},                               // one that is not there
		{header(0, 1, 0xc0, 12, 0, 1, 0, 1), wire.RcodeFormatError},         // a name that points at itself
		{header(0, 1, 63, 'x'), wire.RcodeFormatError},                      // a label that ends too soon
		{header(0x28, 1, 0, 0, 1, 0, 1), wire.RcodeNotImplemented},          // UPDATE
		{header(0x20, 1, 0, 0, 6, 0, 1), wire.RcodeNotImplemented},          // NOTIFY
	} {
		if _, err := conn.Write(c.packet); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if buf[0] != 7 || buf[1] != 7 || buf[2]&0x80 == 0 || int(buf[3]&0xf) != c.rcode || n > len(c.packet) {
			t.Errorf("%x: answer %x, want rcode %d", c.packet, buf[:n], c.rcode)
		}
	}
	m := new(wire.Msg)
	m.SetQuestion("web."+origin, wire.TypeA)
	m.SetEdns0(1232, false)
	m.IsEdns0().SetVersion(1)
	client := wire.Client{Timeout: patience}
	res, _, err := client.Exchange(m, address)
	if err != nil || res.Rcode != wire.RcodeBadVers || len(res.Answer) > 0 {
		t.Errorf("EDNS version 1: %v, %v", res, err)
	}
	// Packets are taken by several, and one may have been overtaken.
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got := value(t, reg, "buddyring_router_dns_ignored_total")
		if got == 4 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("ignored_total = %v, want 4", got)
		}
	}
}

// One source may have so many connections, and each ends when it says nothing
// that can be understood.
func TestConnections(t *testing.T) {
	t.Parallel()
	p := &pools{}
	p.set(map[member.Pool]int{"web": 2})
	address, _ := serve(t, p)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	var refused net.Conn
	for range 33 {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns, refused = append(conns, c), c
	}
	if _, err := refused.Read(make([]byte, 1)); err == nil {
		t.Error("a connection too many was answered")
	}
	m := new(wire.Msg)
	m.SetQuestion("web."+origin, wire.TypeA)
	first := &wire.Conn{Conn: conns[0]}
	for range 3 { // several questions on one connection
		if err := first.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		if res, err := first.ReadMsg(); err != nil || len(res.Answer) != 2 {
			t.Fatalf("%v, %v", res, err)
		}
	}
	for i, bad := range [][]byte{
		binary.BigEndian.AppendUint16(nil, 65535),                                 // too long
		append(binary.BigEndian.AppendUint16(nil, 3), 1, 2, 3),                    // too short
		append(binary.BigEndian.AppendUint16(nil, 12), make([]byte, 12)...)[:2:2], // unfinished
	} {
		c := conns[i+1]
		if _, err := c.Write(bad); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) && err == nil {
			t.Errorf("%x: %d bytes, %v", bad, n, err)
		}
	}
}

// value returns the sum of a metric over its labels.
func value(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
