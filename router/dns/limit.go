package dns

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What one source may have. UDP answers are paid for by their size, because the
// address that they go to may be forged: an answer costs one for each ourSize
// bytes that it begins.
const (
	answersPerSecond = 500
	answersBurst     = 1000
	// maxSources bounds what is remembered; more sources than that share one
	// allowance.
	maxSources = 10_000
	// sweepEvery is how often the sources that have been quiet are forgotten when
	// there are too many.
	sweepEvery = time.Second
)

// limiter says how much a source may be sent. It is safe for concurrent use.
type limiter struct {
	mu      sync.Mutex
	sources map[netip.Prefix]*rate.Limiter
	others  *rate.Limiter
	swept   time.Time
}

func newLimiter() *limiter {
	return &limiter{
		sources: map[netip.Prefix]*rate.Limiter{}, others: rate.NewLimiter(answersPerSecond, answersBurst),
	}
}

// allow reports whether a source may be sent an answer of a size now.
func (l *limiter) allow(from netip.Addr, size int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(network(from), now).AllowN(now, 1+(size-1)/ourSize)
}

func (l *limiter) of(from netip.Prefix, now time.Time) *rate.Limiter {
	if s := l.sources[from]; s != nil {
		return s
	}
	if len(l.sources) >= maxSources && now.Sub(l.swept) >= sweepEvery {
		l.swept = now
		for p, s := range l.sources {
			if s.TokensAt(now) >= answersBurst {
				delete(l.sources, p)
			}
		}
	}
	if len(l.sources) >= maxSources {
		return l.others
	}
	s := rate.NewLimiter(answersPerSecond, answersBurst)
	l.sources[from] = s
	return s
}

// network is what counts as one source: an IPv4 address, or an IPv6 /64, which
// is what one host may have.
func network(from netip.Addr) netip.Prefix {
	from = from.Unmap()
	bits := from.BitLen()
	if from.Is6() {
		bits = 64
	}
	p, err := from.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no IP address: a test's own network
	}
	return p
}

// Limits of TCP connections.
const (
	maxConns          = 256
	maxConnsPerSource = 32
)

// connections counts the TCP connections. It is safe for concurrent use.
type connections struct {
	mu    sync.Mutex
	total int
	by    map[netip.Prefix]int
}

func newConnections() *connections { return &connections{by: map[netip.Prefix]int{}} }

// open reports whether a source may have one more, which is then counted until
// close.
func (c *connections) open(from netip.Prefix) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total >= maxConns || c.by[from] >= maxConnsPerSource {
		return false
	}
	c.total++
	c.by[from]++
	return true
}

func (c *connections) close(from netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.by[from]--; c.by[from] == 0 {
		delete(c.by, from)
	}
}

// source is the network that a peer is in.
func source(peer net.Addr) netip.Addr {
	switch a := peer.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}
