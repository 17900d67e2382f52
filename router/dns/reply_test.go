package dns

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/dns/zone"
	"github.com/buddyring/buddyring/router/door"
	"github.com/buddyring/buddyring/router/view"
)

// one is a router with one pool.
type one struct{ state *door.State }

func (o one) Pool(name member.Pool) (*door.State, error) {
	if name != "web" {
		return nil, member.ErrNotFound
	}
	return o.state, nil
}

func (o one) Pools() ([]*door.State, error) { return []*door.State{o.state}, nil }

func newResponder(tb testing.TB) *responder {
	tb.Helper()
	z, err := zone.New("buddyring.internal.")
	if err != nil {
		tb.Fatal(err)
	}
	servers := make([]*view.Server, 100)
	for i := range servers {
		servers[i] = &view.Server{
			ID: member.ID("web-" + strings.Repeat("x", i%50) + string(rune('a'+i/50))), Phase: member.PhaseActive, Weight: 1, Zone: "eu",
			Endpoints: []member.Endpoint{{Name: "http", Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}).String() + ":80"}},
		}
	}
	v := view.Restore("web", view.Snapshot{StoreID: "s", Servers: servers}, nil)
	return &responder{
		zone: z, metrics: newMetrics(prometheus.NewRegistry()),
		pools: one{&door.State{
			View: v, Table: v.Table(),
			Freshness: func(time.Time) (time.Duration, bool) { return 0, false },
		}},
	}
}

// Whatever comes, an answer can be parsed, belongs to the question, is no bigger
// than the question's transport allows, and never answers an answer. Cut, it is
// not bigger than the question.
func FuzzReply(f *testing.F) {
	r := newResponder(f)
	for name, qtype := range map[string]uint16{
		"web.buddyring.internal.": dns.TypeA, "_http._tcp.WEB.buddyring.internal.": dns.TypeSRV, "eu.zone.web.buddyring.internal.": dns.TypeTXT,
		"buddyring.internal.": dns.TypeSOA, ".": dns.TypeANY, "nobody.buddyring.internal.": dns.TypeA,
	} {
		for _, size := range []uint16{0, 1232, 9000} {
			m := new(dns.Msg)
			m.SetQuestion(name, qtype)
			if size > 0 {
				m.SetEdns0(size, true)
			}
			packet, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(packet, false)
			f.Add(packet, true)
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte, overTCP bool) {
		over, limit := udp, plainSize
		if overTCP {
			over, limit = tcp, dns.MaxMsgSize
		}
		out := r.reply(packet, over, time.Time{})
		if out == nil {
			if len(packet) >= headerSize && packet[2]&0x80 == 0 {
				t.Errorf("no answer to %x", packet)
			}
			return
		}
		res := new(dns.Msg)
		if err := res.Unpack(out); err != nil {
			t.Fatalf("answer %x to %x: %v", out, packet, err)
		}
		req := new(dns.Msg)
		if req.Unpack(packet) == nil {
			if opt := req.IsEdns0(); opt != nil && !overTCP {
				limit = min(maxUDPSize, max(limit, int(opt.UDPSize())))
			}
			if len(res.Question) == 1 && len(req.Question) == 1 && res.Question[0] != req.Question[0] {
				t.Errorf("answer to %v for %v", res.Question, req.Question)
			}
		}
		if len(out) > limit || !res.Response || out[0] != packet[0] || out[1] != packet[1] || overTCP && res.Truncated {
			t.Errorf("%d bytes of at most %d: %v", len(out), limit, res)
		}
		if short := cut(out); new(dns.Msg).Unpack(short) != nil || len(short) > max(len(packet), headerSize+maxNameBytes+4) {
			t.Errorf("cut to %x", short)
		}
	})
}

// maxNameBytes is the longest name on the wire.
const maxNameBytes = 255

// A source gets its share; sources beyond what is remembered share one; whoever
// has been quiet is forgotten to make room.
func TestLimiter(t *testing.T) {
	t.Parallel()
	l, now := newLimiter(), time.Unix(1000, 0)
	addr := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
	}
	granted := func(from netip.Prefix, size int) (n int) {
		for n < 10*answersBurst && l.allow(from, size, now) {
			n++
		}
		return n
	}
	if n := granted(addr(0), 100); n != answersBurst {
		t.Errorf("%d small answers, want %d", n, answersBurst)
	}
	if n := granted(addr(1), 8192); n != answersBurst/7 {
		t.Errorf("%d answers of 8 KiB, want %d", n, answersBurst/7)
	}
	now = now.Add(100 * time.Millisecond)
	if n := granted(addr(0), ourSize); n != answersPerSecond/10 {
		t.Errorf("%d answers after 100 ms, want %d", n, answersPerSecond/10)
	}
	for i := range 3 * maxSources {
		l.allow(addr(i), 1, now)
	}
	if n := len(l.sources); n != maxSources {
		t.Errorf("%d sources are remembered, want %d", n, maxSources)
	}
	if l.allow(addr(4*maxSources), 1, now) {
		t.Error("more sources than are remembered do not share one allowance")
	}
	now = now.Add(time.Minute)
	if !l.allow(addr(5*maxSources), 1, now) || len(l.sources) != 1 {
		t.Errorf("%d sources are remembered after a minute, want 1", len(l.sources))
	}
}

// A client that asks nothing, or does not take its answer, is dropped.
func TestSlowClientsAreDropped(t *testing.T) {
	t.Parallel()
	question := func(t *testing.T) []byte {
		m := new(dns.Msg)
		m.SetQuestion("_http._tcp.web.buddyring.internal.", dns.TypeSRV)
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte{0, byte(len(packet))}, packet...)
	}
	for name, c := range map[string]struct {
		send []byte
		want time.Duration
	}{
		"silent":        {nil, idleTime},
		"half a length": {[]byte{0}, idleTime},
		"not reading":   {question(t), sendTime},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &Server{responder: newResponder(t), metrics: newMetrics(prometheus.NewRegistry())}
				ours, theirs := net.Pipe()
				began, done := time.Now(), make(chan struct{})
				go func() {
					s.converse(t.Context(), ours)
					close(done)
				}()
				if _, err := theirs.Write(c.send); err != nil {
					t.Error(err)
				}
				<-done
				if took := time.Since(began); took != c.want {
					t.Errorf("dropped after %v, want %v", took, c.want)
				}
				_ = theirs.Close()
			})
		})
	}
}

func BenchmarkReply(b *testing.B) {
	r := newResponder(b)
	m := new(dns.Msg)
	m.SetQuestion("_http._tcp.web.buddyring.internal.", dns.TypeSRV)
	m.SetEdns0(8192, false)
	packet, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.reply(packet, udp, time.Time{})
	}
}
