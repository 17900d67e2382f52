// Package zone answers DNS questions about pools of servers: which names there
// are below a domain, and which records they have.
//
// It decides who is listed, under which priority and weight. It never reads or
// writes a packet, never asks for anybody's name elsewhere, and draws no random
// numbers.
package zone

import (
	"errors"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/buddyring/buddyring/internal/member"
)

// TTL is how long an answer may be kept, also one that says that there is
// nothing.
const TTL = time.Second

const ttlSeconds = uint32(TTL / time.Second)

// Zone is a domain whose names are pools. It is immutable and safe for concurrent
// use.
type Zone struct {
	// origin is lower-case and ends in a dot.
	origin string
	labels int
	// self are the addresses of the name server, which has the domain's own name.
	self []netip.Addr
}

// New returns a zone. The name server's own addresses may be unknown.
func New(origin string, self ...netip.Addr) (*Zone, error) {
	if err := CheckOrigin("dns-zone", origin); err != nil {
		return nil, err
	}
	z := &Zone{origin: dns.CanonicalName(origin), self: self}
	z.labels = dns.CountLabel(z.origin)
	return z, nil
}

// maxOrigin leaves room for the names of servers and endpoints before it.
const maxOrigin = 100

// CheckOrigin checks the name of a zone: labels of letters, digits, inner hyphens
// and underscores, at most 100 bytes, the final dot optional.
func CheckOrigin(field, origin string) error {
	name := strings.TrimSuffix(origin, ".")
	if name == "" || len(name) > maxOrigin {
		return member.Invalid(field, "%q: must have 1 to %d bytes", origin, maxOrigin)
	}
	if _, err := member.ParseID(field, strings.ReplaceAll(strings.ToLower(name), "_", "0")); err != nil {
		return member.Invalid(field, "%q is not a domain name", origin)
	}
	return nil
}

// Question is what a client asks, and how much it can take.
type Question struct {
	// Name is as it was asked, in presentation format. Answers repeat its case.
	Name        string
	Type, Class uint16
	// Max is how many records can fit into the answer at most; 0 for no bound.
	Max int
	// Random makes the order of the records.
	Random uint64
}

// Answer is what there is to say.
type Answer struct {
	Rcode int
	// Records are the answer itself; Others are more useful addresses, which may
	// be left out.
	Records, Others []dns.RR
	// Authority says that there is nothing, and how long that may be kept.
	Authority []dns.RR
	// Cut says that there are more records than Max.
	Cut bool
}

// Pool is the present state of a pool.
type Pool struct {
	Names    *Names
	StoreID  string
	Position member.Position
	Age      time.Duration
	Stale    bool
}

// Answer answers a question. Pools are looked up by find, whose error is
// ErrNotFound where there is no such pool.
func (z *Zone) Answer(q Question, find func(member.Pool) (Pool, error)) Answer {
	name := dns.CanonicalName(q.Name)
	if q.Class != dns.ClassINET || !dns.IsSubDomain(z.origin, name) || meta(q.Type) {
		return Answer{Rcode: dns.RcodeRefused}
	}
	labels := dns.SplitDomainName(name)
	labels = labels[:len(labels)-z.labels]
	if len(labels) == 0 {
		return z.apex(q)
	}
	last := len(labels) - 1
	pool, err := member.ParsePool("name", labels[last])
	if err != nil {
		return z.nothing(dns.RcodeNameError)
	}
	p, err := find(pool)
	switch {
	case errors.Is(err, member.ErrNotFound):
		return z.nothing(dns.RcodeNameError)
	case err != nil:
		return Answer{Rcode: dns.RcodeServerFailure}
	}
	n, ok := p.Names.nodes[strings.Join(labels[:last], ".")]
	if !ok {
		return z.nothing(dns.RcodeNameError)
	}
	a := n.answer(q, p)
	if len(a.Records) == 0 {
		return z.nothing(dns.RcodeSuccess)
	}
	return a
}

// meta reports whether a type asks for more than one kind of record, or for the
// whole zone. Nobody needs these from a router, and they make big answers.
func meta(t uint16) bool { return t == dns.TypeIXFR || t >= dns.TypeAXFR && t <= dns.TypeANY }

// apex answers for the zone's own name.
func (z *Zone) apex(q Question) Answer {
	var a Answer
	switch q.Type {
	case dns.TypeSOA:
		a.Records = []dns.RR{z.soa(q.Name)}
	case dns.TypeNS:
		a.Records = []dns.RR{&dns.NS{Hdr: header(q.Name, dns.TypeNS), Ns: z.origin}}
		for _, addr := range z.self {
			a.Others = append(a.Others, address(z.origin, addr))
		}
	case dns.TypeA, dns.TypeAAAA:
		for _, addr := range z.self {
			if rr := address(q.Name, addr); rr.Header().Rrtype == q.Type {
				a.Records = append(a.Records, rr)
			}
		}
	}
	if len(a.Records) == 0 {
		return z.nothing(dns.RcodeSuccess)
	}
	return a
}

// nothing says that there is no such name, or no record of the type.
func (z *Zone) nothing(rcode int) Answer {
	return Answer{Rcode: rcode, Authority: []dns.RR{z.soa(z.origin)}}
}

// soa is the start of the zone. Nobody may copy the zone, so its serial number
// stands still.
func (z *Zone) soa(owner string) *dns.SOA {
	return &dns.SOA{
		Hdr: header(owner, dns.TypeSOA), Ns: z.origin, Mbox: "hostmaster." + z.origin, Serial: 1,
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttlSeconds,
	}
}

// answer returns the records of a node.
func (n *node) answer(q Question, p Pool) Answer {
	if n.alias != "" {
		return Answer{Records: []dns.RR{&dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME), Target: n.alias}}}
	}
	var a Answer
	switch q.Type {
	case dns.TypeA, dns.TypeAAAA:
		all := n.four
		if q.Type == dns.TypeAAAA {
			all = n.six
		}
		for _, addr := range draw(all, q) {
			a.Records = append(a.Records, address(q.Name, addr))
		}
		a.Cut = len(a.Records) < len(all)
	case dns.TypeSRV:
		for _, s := range draw(n.services, q) {
			a.Records = append(a.Records, &dns.SRV{
				Hdr: header(q.Name, dns.TypeSRV), Priority: s.priority, Weight: s.weight, Port: s.port, Target: s.target,
			})
			if s.addr.IsValid() {
				a.Others = append(a.Others, address(s.target, s.addr))
			}
		}
		a.Cut = len(a.Records) < len(n.services)
	case dns.TypeTXT:
		if n.pool {
			a.Records = []dns.RR{&dns.TXT{Hdr: header(q.Name, dns.TypeTXT), Txt: p.text()}}
		}
	}
	return a
}

// text says how fresh the pool is.
func (p Pool) text() []string {
	return []string{
		"revision=" + strconv.FormatUint(uint64(p.Position.Revision), 10),
		"epoch=" + strconv.FormatUint(uint64(p.Position.Epoch), 10),
		"age=" + strconv.FormatFloat(math.Round(p.Age.Seconds()*1000)/1000, 'f', -1, 64),
		"stale=" + strconv.FormatBool(p.Stale),
		"store=" + p.StoreID,
	}
}

// draw returns as many as can fit, from a random place on, round the end.
func draw[T any](all []T, q Question) []T {
	n := len(all)
	if n == 0 {
		return nil
	}
	count := n
	if q.Max > 0 {
		count = min(n, q.Max)
	}
	out, from := make([]T, count), int(q.Random%uint64(n))
	copy(out[copy(out, all[from:]):], all[:from])
	return out
}

func header(owner string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttlSeconds}
}

// address is an A or an AAAA record.
func address(owner string, addr netip.Addr) dns.RR {
	if addr.Is4() {
		return &dns.A{Hdr: header(owner, dns.TypeA), A: addr.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(owner, dns.TypeAAAA), AAAA: addr.AsSlice()}
}
