package zone

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// Names are the names of one pool and what is behind them, relative to the
// pool's own. It is immutable and safe for concurrent use.
//
//	""                      the pool: A, AAAA, SRV (first endpoints), TXT
//	_ENDPOINT._tcp          SRV of the endpoints of that name; _udp where the
//	                        endpoint's protocol is "udp"
//	AZ.zone                 the servers of a zone, as the pool
//	_ENDPOINT._tcp.AZ.zone  their endpoints
//	SERVER                  the host of the server's first endpoint
//	_ENDPOINT.SERVER        the host of another endpoint, if it is another host
//
// A server whose id looks like a name of a zone hides that.
type Names struct {
	nodes map[string]*node
}

// node is a name. One without records is there because there are names below it.
type node struct {
	// pool is set for the pool itself.
	pool bool
	// alias is the host that the name stands for; there is nothing else then.
	alias     string
	four, six []netip.Addr
	services  []service
}

// service is what an SRV record says. The addr is that of the target where the
// target is a name of the pool.
type service struct {
	target           string
	addr             netip.Addr
	port             uint16
	priority, weight uint16
}

// NewNames returns the names of a pool that is served from a table.
func (z *Zone) NewNames(pool member.Pool, t *view.Table) *Names {
	b := &builder{nodes: map[string]*node{"": {pool: true}}, origin: string(pool) + "." + z.origin}
	for _, e := range t.Entries() {
		b.addServer(e.Server)
	}
	b.addGroup("", t.Entries())
	zones := map[string][]view.Entry{}
	for _, e := range t.Entries() {
		if e.Server.Zone != "" {
			zones[e.Server.Zone] = append(zones[e.Server.Zone], e)
		}
	}
	for name, entries := range zones {
		below := name + ".zone"
		if n := b.nodes[below]; n == nil || n.empty() {
			b.addGroup(below, entries)
		}
	}
	return b.finish()
}

func (n *node) empty() bool {
	return !n.pool && n.alias == "" && len(n.four)+len(n.six)+len(n.services) == 0
}

// builder collects the nodes of a pool.
type builder struct {
	nodes map[string]*node
	// origin is the pool's own name.
	origin string
}

// node returns the node of a name, which is made if it is not there. It is nil
// where DNS has no room for the name.
func (b *builder) node(name string) *node {
	n := b.nodes[name]
	if n == nil && fits(name+"."+b.origin) {
		n = &node{}
		b.nodes[name] = n
	}
	return n
}

// maxName is the longest name that DNS carries, with its dots.
const maxName = 254

func fits(name string) bool {
	_, ok := dns.IsDomainName(name)
	return ok && len(name) <= maxName
}

// addServer gives a server's hosts their names.
func (b *builder) addServer(s *view.Server) {
	var first string
	for i, e := range s.Endpoints {
		host, _ := split(e.Address)
		name := string(s.ID)
		if i == 0 {
			first = host
		} else if name = "_" + e.Name + "." + name; host == first {
			continue
		}
		n := b.node(name)
		if n == nil {
			continue
		}
		if addr := parse(host); addr.IsValid() {
			n.add(addr)
		} else if i == 0 && external(host) {
			n.alias = dns.Fqdn(host)
		}
	}
}

func (n *node) add(addr netip.Addr) {
	if addr.Is4() {
		n.four = append(n.four, addr)
	} else {
		n.six = append(n.six, addr)
	}
}

// addGroup lists servers under a name: the pool's own, or that of a zone.
func (b *builder) addGroup(name string, all []view.Entry) {
	entries := listed(all)
	scale := scaleOf(entries)
	group := b.node(name)
	if group == nil {
		return
	}
	for _, e := range entries {
		for i, ep := range e.Server.Endpoints {
			s, ok := b.service(e, ep)
			if !ok {
				continue
			}
			s.weight = scale.of(e.Server.Weight)
			if i == 0 {
				group.services = append(group.services, s)
				if s.addr.IsValid() {
					group.add(s.addr)
				}
			}
			if ep.Name == "" {
				continue
			}
			if n := b.node(join("_"+ep.Name+"."+transport(ep), name)); n != nil {
				n.services = append(n.services, s)
			}
		}
	}
}

// service is an endpoint as a target: a name of the pool that has the endpoint's
// address, or the host that the endpoint names. It is false where DNS cannot say
// it.
func (b *builder) service(e view.Entry, ep member.Endpoint) (service, bool) {
	host, port := split(ep.Address)
	s := service{port: port, priority: uint16(e.State), addr: parse(host)}
	if !s.addr.IsValid() {
		s.target = dns.Fqdn(host)
		return s, external(host)
	}
	name := string(e.Server.ID)
	if first, _ := split(e.Server.Endpoints[0].Address); first != host {
		name = "_" + ep.Name + "." + name
	}
	s.target = name + "." + b.origin
	return s, b.nodes[name] != nil
}

// finish makes every name above another one exist, and addresses unique.
func (b *builder) finish() *Names {
	names := make([]string, 0, len(b.nodes))
	for name, n := range b.nodes {
		names = append(names, name)
		n.four, n.six = unique(n.four), unique(n.six)
	}
	for _, name := range names {
		for _, above, ok := strings.Cut(name, "."); ok; _, above, ok = strings.Cut(above, ".") {
			if b.nodes[above] == nil {
				b.nodes[above] = &node{}
			}
		}
	}
	return &Names{nodes: b.nodes}
}

func unique(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// listed are those of the entries that clients without a view of their own are
// told of: the ACTIVE ones; with the SUSPECT ones where these are more than half
// of both; and the last resorts where there is nobody else.
func listed(entries []view.Entry) []view.Entry {
	end := func(last view.State) int {
		i := slices.IndexFunc(entries, func(e view.Entry) bool { return e.State > last })
		if i < 0 {
			return len(entries)
		}
		return i
	}
	active, suspects := end(view.StateActive), end(view.StateSuspect)
	switch down := end(view.StateServiceDown); {
	case suspects == 0 && down == 0:
		return entries
	case suspects == 0:
		return entries[:down]
	case 2*active < suspects:
		return entries[:suspects]
	default:
		return entries[:active]
	}
}

// scale turns our weights into those of SRV: 256 times as much, so that clients
// which divide by that, as HAProxy does, see the difference; less where the
// heaviest would be too heavy.
type scale struct{ heaviest uint64 }

// weightUnit is what HAProxy divides by.
const weightUnit = 256

func scaleOf(entries []view.Entry) scale {
	s := scale{weightUnit - 1}
	for _, e := range entries {
		s.heaviest = max(s.heaviest, uint64(e.Server.Weight))
	}
	return s
}

func (s scale) of(weight uint32) uint16 {
	return uint16(max(1, uint64(weight)*(weightUnit-1)*weightUnit/s.heaviest))
}

// transport is the second label of a service's name.
func transport(e member.Endpoint) string {
	if e.Protocol == "udp" {
		return "_udp"
	}
	return "_tcp"
}

func join(name, above string) string {
	if above == "" {
		return name
	}
	return name + "." + above
}

// split splits an address that has been checked.
func split(address string) (host string, port uint16) {
	i := strings.LastIndexByte(address, ':')
	n, err := strconv.ParseUint(address[i+1:], 10, 16)
	if i < 0 || err != nil {
		return "", 0
	}
	return strings.TrimSuffix(strings.TrimPrefix(address[:i], "["), "]"), uint16(n)
}

// parse returns the address that a host is, or none. Records have no room for
// the scope of an IPv6 address.
func parse(host string) netip.Addr {
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}
	}
	return addr.Unmap()
}

// external reports whether a host is a name that can be the target of a record.
func external(host string) bool {
	_, err := netip.ParseAddr(host)
	return err != nil && host != "" && fits(dns.Fqdn(host))
}
