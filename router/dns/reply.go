package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/dns/zone"
	"github.com/buddyring/buddyring/router/door"
)

const (
	headerSize = 12
	// minRecord is what an A record with a compressed name takes.
	minRecord = 16
	// plainSize is what UDP carries to a client that says nothing about it, and
	// ourSize what we take and name to clients.
	plainSize = dns.MinMsgSize
	ourSize   = 1232
	// maxUDPSize is the biggest packet that a client can ask for by EDNS. More goes
	// over TCP.
	maxUDPSize = 8192
)

// transport is how a question came.
type transport uint8

const (
	udp transport = iota
	tcp
)

// String returns the name, such as "udp".
func (t transport) String() string {
	if t == tcp {
		return "tcp"
	}
	return "udp"
}

// responder turns questions into answers, packet by packet. It is safe for
// concurrent use.
type responder struct {
	zone    *zone.Zone
	pools   door.Pools
	metrics *metrics
}

// reply answers one packet. It is nil for what is no question at all: that may
// be an answer, or noise.
func (r *responder) reply(packet []byte, over transport, now time.Time) []byte {
	req, rcode := parse(packet)
	if req == nil {
		r.metrics.ignored.Inc()
		return nil
	}
	m := new(dns.Msg)
	m.SetReply(req)
	m.Rcode, m.Compress = rcode, true
	size := dns.MaxMsgSize
	if over == udp {
		size = plainSize
	}
	if opt := req.IsEdns0(); opt != nil {
		if over == udp {
			size = min(maxUDPSize, max(plainSize, int(opt.UDPSize())))
		}
		m.SetEdns0(ourSize, false)
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers
		}
	}
	if m.Rcode == dns.RcodeSuccess {
		r.answer(m, size, over, now)
	}
	r.metrics.answered(over, m)
	out, err := m.Pack()
	if err != nil || len(out) > size {
		return failure(packet, dns.RcodeServerFailure)
	}
	return out
}

// parse returns the question in a packet, and what is wrong with it. There is no
// question in what is too short or an answer.
func parse(packet []byte) (*dns.Msg, int) {
	if len(packet) < headerSize || packet[2]&0x80 != 0 {
		return nil, 0
	}
	bare := &dns.Msg{MsgHdr: dns.MsgHdr{
		Id: binary.BigEndian.Uint16(packet), Opcode: int(packet[2] >> 3 & 0xf), RecursionDesired: packet[2]&1 != 0,
	}}
	count := func(section int) uint16 { return binary.BigEndian.Uint16(packet[4+2*section:]) }
	switch {
	case bare.Opcode != dns.OpcodeQuery:
		return bare, dns.RcodeNotImplemented
	case count(0) != 1 || count(1) > 0 || count(2) > 1 || count(3) > 2:
		return bare, dns.RcodeFormatError
	}
	req := new(dns.Msg)
	if req.Unpack(packet) != nil || len(req.Question) != 1 {
		return bare, dns.RcodeFormatError
	}
	options := 0
	for _, rr := range req.Extra {
		if rr.Header().Rrtype == dns.TypeOPT {
			options++
		}
	}
	if options > 1 {
		return bare, dns.RcodeFormatError
	}
	return req, dns.RcodeSuccess
}

// answer adds the answer to a reply of at most a size.
func (r *responder) answer(m *dns.Msg, size int, over transport, now time.Time) {
	q := m.Question[0]
	a := r.zone.Answer(zone.Question{
		Name: q.Name, Type: q.Qtype, Class: q.Qclass, Max: size / minRecord,
		Random: rand.Uint64(), //nolint:gosec // load balancing is no secret
	}, func(name member.Pool) (zone.Pool, error) { return r.find(name, now) })
	m.Rcode, m.Answer, m.Ns = a.Rcode, a.Records, a.Authority
	m.Authoritative = a.Rcode == dns.RcodeSuccess || a.Rcode == dns.RcodeNameError
	m.Extra = append(a.Others, m.Extra...)
	records, authority := len(m.Answer), len(m.Ns)
	m.Truncate(size)
	// Addresses besides the answer are no part of what was asked (RFC 2181, 9). And
	// over TCP there is nothing better to ask by.
	m.Truncated = over == udp && (a.Cut || len(m.Answer) < records || len(m.Ns) < authority)
	m.Compress = true
	if m.Truncated && q.Qtype == dns.TypeSRV {
		// Clients such as HAProxy take a part for the whole, and would drop all others:
		// better none. A part of the addresses is of use to those who know no TCP.
		m.Answer, m.Extra = nil, slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeOPT })
	}
}

// key is under what a pool's names are kept with its state.
type key struct{}

func (r *responder) find(name member.Pool, now time.Time) (zone.Pool, error) {
	state, err := r.pools.Pool(name)
	if err != nil {
		return zone.Pool{}, err
	}
	p := zone.Pool{
		Names:   door.Made(state, key{}, func() *zone.Names { return r.zone.NewNames(name, state.Table) }),
		StoreID: state.View.StoreID(), Position: state.View.Position(),
	}
	p.Age, p.Stale = state.Freshness(now)
	return p, nil
}

// failure is a reply without a question, for what cannot be answered better.
func failure(packet []byte, rcode int) []byte {
	out := make([]byte, headerSize)
	copy(out, packet[:2])
	out[2] = 0x80 | packet[2]&0x79 // an answer, with the opcode and RD of the question
	out[3] = byte(rcode)
	return out
}

// cut turns a reply into one that says to ask over TCP: the header and the
// question, which is no more than what was asked.
func cut(reply []byte) []byte {
	end := headerSize
	if binary.BigEndian.Uint16(reply[4:]) == 1 {
		if _, off, err := dns.UnpackDomainName(reply, headerSize); err == nil && off+4 <= len(reply) {
			end = off + 4
		}
	}
	out := reply[:end]
	out[2] |= 0x02 // TC
	clear(out[6:headerSize])
	return out
}
