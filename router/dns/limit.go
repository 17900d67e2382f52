package dns

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/buddyring/buddyring/internal/quota"
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
func (l *limiter) allow(from netip.Prefix, size int, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of(from, now).AllowN(now, 1+(size-1)/ourSize)
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

// tcpLimits are those of TCP connections.
func tcpLimits() quota.Limits { return quota.Limits{Total: 256, PerSource: 32} }
