package zone_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/dns/zone"
	"github.com/buddyring/buddyring/router/view"
)

const origin = "buddyring.internal."

// world are the pools of a test.
type world struct {
	t     *testing.T
	zone  *zone.Zone
	pools map[member.Pool]*view.Table
}

func newWorld(t *testing.T, pools map[member.Pool]*view.Table) *world {
	t.Helper()
	z, err := zone.New(origin, netip.MustParseAddr("192.0.2.53"))
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, z, pools}
}

func (w *world) find(name member.Pool) (zone.Pool, error) {
	if w.pools == nil {
		return zone.Pool{}, member.ErrUnavailable
	}
	table, ok := w.pools[name]
	if !ok {
		return zone.Pool{}, member.ErrNotFound
	}
	return zone.Pool{
		Names: w.zone.NewNames(name, table), StoreID: "s1",
		Position: member.Position{Epoch: 2, Revision: 17}, Age: 1234567 * time.Microsecond, Stale: true,
	}, nil
}

// ask returns the code and the records of each section, in order.
func (w *world) ask(name string, qtype uint16) (string, []string) {
	w.t.Helper()
	a := w.zone.Answer(zone.Question{Name: name, Type: qtype, Class: dns.ClassINET}, w.find)
	var lines []string
	for prefix, section := range map[string][]dns.RR{"": a.Records, "auth ": a.Authority, "more ": a.Others} {
		for _, rr := range section {
			if rr.Header().Ttl != 1 || rr.Header().Class != dns.ClassINET {
				w.t.Errorf("header %v", rr.Header())
			}
			lines = append(lines, prefix+strings.ReplaceAll(strings.ReplaceAll(rr.String(), "\t1\tIN\t", " "), "\t", " "))
		}
	}
	slices.Sort(lines)
	return dns.RcodeToString[a.Rcode], lines
}

func (w *world) expect(name string, qtype uint16, rcode string, want ...string) {
	w.t.Helper()
	code, got := w.ask(name, qtype)
	if code != rcode {
		w.t.Errorf("%s %s: %s, want %s", name, dns.TypeToString[qtype], code, rcode)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s %s (-want +got):\n%s", name, dns.TypeToString[qtype], diff)
	}
}

const soa = "auth buddyring.internal. SOA buddyring.internal. hostmaster.buddyring.internal. 1 3600 600 86400 1"

// server has an unnamed zone and weight 100, and endpoints NAME=HOST:PORT.
func server(id string, endpoints ...string) *view.Server {
	s := &view.Server{ID: member.ID(id), Phase: member.PhaseActive, Weight: 100}
	for _, e := range endpoints {
		name, address, ok := strings.Cut(e, "=")
		if !ok {
			name, address = "", name
		}
		s.Endpoints = append(s.Endpoints, member.Endpoint{Name: name, Address: address})
	}
	return s
}

func inZone(name string, s *view.Server) *view.Server {
	s.Zone = name
	return s
}

func active(servers ...*view.Server) *view.Table {
	return inStates(map[view.State][]*view.Server{view.StateActive: servers})
}

func inStates(by map[view.State][]*view.Server) *view.Table {
	var entries []view.Entry
	for state, servers := range by {
		for _, s := range servers {
			entries = append(entries, view.Entry{Server: s, State: state})
		}
	}
	return view.NewTable(entries)
}

func TestNamesOfAPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[member.Pool]*view.Table{
		"web": active(
			inZone("eu.a", server("web-1", "http=192.0.2.1:80", "admin=192.0.2.1:81", "repl=198.51.100.1:82")),
			inZone("eu.a", server("b.web-2", "http=[2001:db8::2]:80")),
			server("web-3", "http=[::ffff:192.0.2.3]:8080"),
		),
		"empty": active(),
	})
	web := func(name string) string { return name + "web." + origin }
	w.expect(web(""), dns.TypeA, "NOERROR", "web.buddyring.internal. A 192.0.2.1", "web.buddyring.internal. A 192.0.2.3")
	w.expect(web(""), dns.TypeAAAA, "NOERROR", "web.buddyring.internal. AAAA 2001:db8::2")
	w.expect(web(""), dns.TypeTXT, "NOERROR",
		`web.buddyring.internal. TXT "revision=17" "epoch=2" "age=1.235" "stale=true" "store=s1"`)
	services := func(owner string) []string {
		return []string{
			owner + " SRV 0 25600 80 web-1.web.buddyring.internal.", "more web-1.web.buddyring.internal. A 192.0.2.1",
			owner + " SRV 0 25600 80 b.web-2.web.buddyring.internal.", "more b.web-2.web.buddyring.internal. AAAA 2001:db8::2",
			owner + " SRV 0 25600 8080 web-3.web.buddyring.internal.", "more web-3.web.buddyring.internal. A 192.0.2.3",
		}
	}
	w.expect(web(""), dns.TypeSRV, "NOERROR", services(web(""))...)
	w.expect(web("_http._tcp."), dns.TypeSRV, "NOERROR", services(web("_http._tcp."))...)
	w.expect(web("_admin._tcp."), dns.TypeSRV, "NOERROR",
		web("_admin._tcp.")+" SRV 0 25600 81 web-1.web.buddyring.internal.", "more web-1.web.buddyring.internal. A 192.0.2.1")
	// An endpoint on another host than the server's first has a name of its own.
	w.expect(web("_repl._tcp."), dns.TypeSRV, "NOERROR",
		web("_repl._tcp.")+" SRV 0 25600 82 _repl.web-1.web.buddyring.internal.", "more _repl.web-1.web.buddyring.internal. A 198.51.100.1")
	w.expect(web("_repl.web-1."), dns.TypeA, "NOERROR", web("_repl.web-1.")+" A 198.51.100.1")
	w.expect(web("web-1."), dns.TypeA, "NOERROR", web("web-1.")+" A 192.0.2.1")
	w.expect(web("b.web-2."), dns.TypeAAAA, "NOERROR", web("b.web-2.")+" AAAA 2001:db8::2")
	w.expect(web("eu.a.zone."), dns.TypeA, "NOERROR", web("eu.a.zone.")+" A 192.0.2.1")
	w.expect(web("_admin._tcp.eu.a.zone."), dns.TypeSRV, "NOERROR",
		web("_admin._tcp.eu.a.zone.")+" SRV 0 25600 81 web-1.web.buddyring.internal.", "more web-1.web.buddyring.internal. A 192.0.2.1")
	// The case of the question comes back, and does not matter.
	w.expect("wEb-1.WEB.BuddyRing.internal.", dns.TypeA, "NOERROR", "wEb-1.WEB.BuddyRing.internal. A 192.0.2.1")

	// Names that are there without a record of the type, or with names below only.
	for _, name := range []string{
		web("web-1."), web("_tcp."), web("zone."), web("a.zone."), web("_tcp.eu.a.zone."), web("web-2."), "empty." + origin,
	} {
		w.expect(name, dns.TypeAAAA, "NOERROR", soa)
	}
	w.expect(web(""), dns.TypeMX, "NOERROR", soa)
	w.expect(web(""), dns.TypeSOA, "NOERROR", soa)
	for _, name := range []string{
		"other." + origin, web("web-4."), web("_ssh._tcp."), web("_http._udp."), web("us.zone."), web("x.web-1."), `web-1\.web.` + origin,
		"_http._tcp." + origin, `\000.` + origin, web("_repl.web-3."),
	} {
		w.expect(name, dns.TypeA, "NXDOMAIN", soa)
	}
}

func TestApex(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.expect(origin, dns.TypeSOA, "NOERROR", strings.TrimPrefix(soa, "auth "))
	w.expect(origin, dns.TypeNS, "NOERROR", origin+" NS "+origin, "more "+origin+" A 192.0.2.53")
	w.expect(origin, dns.TypeA, "NOERROR", origin+" A 192.0.2.53")
	w.expect(origin, dns.TypeAAAA, "NOERROR", soa)
}

// Before there is any state nobody is told that a pool does not exist.
func TestNoStateIsNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.expect("web."+origin, dns.TypeA, "SERVFAIL")
}

func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[member.Pool]*view.Table{"web": active(server("web-1", "192.0.2.1:80"))})
	for _, qtype := range []uint16{dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB} {
		w.expect("web."+origin, qtype, "REFUSED")
	}
	for _, name := range []string{"example.com.", ".", "internal.", "xbuddyring.internal.", `web\.buddyring.internal.`} {
		w.expect(name, dns.TypeA, "REFUSED")
	}
	for _, class := range []uint16{dns.ClassCHAOS, dns.ClassHESIOD, dns.ClassANY, dns.ClassNONE, 0} {
		a := w.zone.Answer(zone.Question{Name: "web." + origin, Type: dns.TypeA, Class: class}, w.find)
		if a.Rcode != dns.RcodeRefused || len(a.Records) > 0 {
			t.Errorf("class %d: %v", class, a)
		}
	}
}

// Endpoints may be names: those are targets as they are, and a server's name
// stands for its host's. A record has no room for other hosts.
func TestHostNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[member.Pool]*view.Table{"web": active(
		server("web-1", "http=db.example.com:80"), server("web-2", "http=[fe80::1%eth0]:80"), server("web-3", "http=a..b:80"),
		server("web-4", "http=192.0.2.4:80"), server("web-5", "http="+strings.Repeat("x", 64)+":80"),
	)})
	w.expect("web-1.web."+origin, dns.TypeA, "NOERROR", "web-1.web."+origin+" CNAME db.example.com.")
	w.expect("web-1.web."+origin, dns.TypeTXT, "NOERROR", "web-1.web."+origin+" CNAME db.example.com.")
	w.expect("web."+origin, dns.TypeA, "NOERROR", "web."+origin+" A 192.0.2.4")
	w.expect("_http._tcp.web."+origin, dns.TypeSRV, "NOERROR",
		"_http._tcp.web."+origin+" SRV 0 25600 80 db.example.com.",
		"_http._tcp.web."+origin+" SRV 0 25600 80 web-4.web."+origin, "more web-4.web."+origin+" A 192.0.2.4")
	w.expect("web-2.web."+origin, dns.TypeA, "NOERROR", soa)
}

func TestUDPServices(t *testing.T) {
	t.Parallel()
	game := server("g1", "play=192.0.2.1:7000")
	game.Endpoints[0].Protocol = "udp"
	w := newWorld(t, map[member.Pool]*view.Table{"game": active(game)})
	w.expect("_play._udp.game."+origin, dns.TypeSRV, "NOERROR",
		"_play._udp.game."+origin+" SRV 0 25600 7000 g1.game."+origin, "more g1.game."+origin+" A 192.0.2.1")
	w.expect("_play._tcp.game."+origin, dns.TypeSRV, "NXDOMAIN", soa)
}

// A server hides a zone that looks like it, so that its targets stay right.
func TestServerHidesAZone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[member.Pool]*view.Table{"web": active(
		server("eu.zone", "192.0.2.1:80"), inZone("eu", server("web-2", "192.0.2.2:80")),
	)})
	w.expect("eu.zone.web."+origin, dns.TypeA, "NOERROR", "eu.zone.web."+origin+" A 192.0.2.1")
}

// Names whose form is right may still be too long together; they are left out.
func TestNamesThatDoNotFit(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(strings.Repeat("x", 60)+".", 4) + "x"
	w := newWorld(t, map[member.Pool]*view.Table{"web": active(
		inZone(long, server(long, "http=192.0.2.1:80")), server("web-2", "http=192.0.2.2:80"),
	)})
	w.expect("_http._tcp.web."+origin, dns.TypeSRV, "NOERROR",
		"_http._tcp.web."+origin+" SRV 0 25600 80 web-2.web."+origin, "more web-2.web."+origin+" A 192.0.2.2")
}

func many(prefix string, n, from int) []*view.Server {
	out := make([]*view.Server, n)
	for i := range out {
		out[i] = server(fmt.Sprintf("%s%d", prefix, i), fmt.Sprintf("http=192.0.2.%d:80", from+i))
	}
	return out
}

// Suspects are dropped as long as half of both stay; what is removed or whose
// service is down is listed where there is nobody else. Whoever is listed has a
// priority by its state.
func TestWhoIsListed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		active, suspect, down, held int
		want                        string
	}{
		"all well":                    {active: 3, want: "000"},
		"half suspect":                {active: 2, suspect: 2, want: "00"},
		"more than half suspect":      {active: 1, suspect: 2, want: "011"},
		"only suspects":               {suspect: 2, want: "11"},
		"the only one suspect":        {suspect: 1, want: "1"},
		"last resorts are not wanted": {active: 1, suspect: 2, down: 3, held: 4, want: "011"},
		"services down":               {down: 2, held: 1, want: "22"},
		"held":                        {held: 2, want: "33"},
		"held beside active":          {active: 1, held: 5, want: "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, map[member.Pool]*view.Table{"web": inStates(map[view.State][]*view.Server{
				view.StateActive: many("a", c.active, 1), view.StateSuspect: many("s", c.suspect, 11),
				view.StateServiceDown: many("d", c.down, 21), view.StateHeldBack: many("h", c.held, 31),
			})})
			a := w.zone.Answer(zone.Question{Name: "_http._tcp.web." + origin, Type: dns.TypeSRV, Class: dns.ClassINET}, w.find)
			var got []byte
			for _, rr := range a.Records {
				got = append(got, byte('0'+rr.(*dns.SRV).Priority))
			}
			slices.Sort(got)
			if string(got) != c.want {
				t.Errorf("priorities %s, want %s", got, c.want)
			}
			a = w.zone.Answer(zone.Question{Name: "web." + origin, Type: dns.TypeA, Class: dns.ClassINET}, w.find)
			if len(a.Records) != len(c.want) {
				t.Errorf("%d addresses, want %d", len(a.Records), len(c.want))
			}
			// Whoever may get work in some case has a name.
			for _, id := range []string{"a0", "s0", "d0", "h0"} {
				n := map[byte]int{'a': c.active, 's': c.suspect, 'd': c.down, 'h': c.held}[id[0]]
				a = w.zone.Answer(zone.Question{Name: id + ".web." + origin, Type: dns.TypeA, Class: dns.ClassINET}, w.find)
				if (len(a.Records) == 1) != (n > 0) {
					t.Errorf("%s: %v", id, a.Records)
				}
			}
		})
	}
}

// The weights of SRV keep the ratio of ours, also after division by 256.
func TestWeights(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ ours, want []int }{
		"default":    {[]int{100, 100}, []int{25600, 25600}},
		"ratio":      {[]int{1, 50, 200}, []int{256, 12800, 51200}},
		"heavy":      {[]int{100, 10_000}, []int{652, 65280}},
		"very light": {[]int{1, 10_000}, []int{6, 65280}},
	} {
		var servers []*view.Server
		for i, weight := range c.ours {
			s := server(fmt.Sprintf("s%d", i), fmt.Sprintf("192.0.2.%d:80", i+1))
			s.Weight = uint32(weight)
			servers = append(servers, s)
		}
		w := newWorld(t, map[member.Pool]*view.Table{"web": active(servers...)})
		a := w.zone.Answer(zone.Question{Name: "web." + origin, Type: dns.TypeSRV, Class: dns.ClassINET}, w.find)
		var got []int
		for _, rr := range a.Records {
			got = append(got, int(rr.(*dns.SRV).Weight))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: weights %v, want %v", name, got, c.want)
		}
	}
}

// The random number turns the order, and a bound takes that many from there on.
func TestOrderAndBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[member.Pool]*view.Table{"web": active(many("s", 5, 1)...)})
	ask := func(random uint64, limit int) string {
		a := w.zone.Answer(zone.Question{Name: "web." + origin, Type: dns.TypeA, Class: dns.ClassINET, Random: random, Max: limit}, w.find)
		got := ""
		for _, rr := range a.Records {
			got += fmt.Sprint(rr.(*dns.A).A.To4()[3])
		}
		if a.Cut {
			got += " cut"
		}
		return got
	}
	for want, got := range map[string]string{
		"12345": ask(0, 0), "34512": ask(2, 0), "512 cut": ask(4, 3), "23451": ask(6, 5), "1 cut": ask(0, 1),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCheckOrigin(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"buddyring.internal.", "buddyring.internal", "Pools.Example.COM", "_pools.lan", "x"} {
		if err := zone.CheckOrigin("dns-zone", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", ".", "a..b", "-a", "a b", `a\.b`, strings.Repeat("x", 64), strings.Repeat("a.", 51), "a..", "ä"} {
		var wrong *member.FieldError
		if err := zone.CheckOrigin("dns-zone", bad); !errors.As(err, &wrong) || wrong.Field != "dns-zone" {
			t.Errorf("%q: %v, want one that names dns-zone", bad, err)
		}
		if _, err := zone.New(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
