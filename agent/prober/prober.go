// Package prober sends one probe to one server and says what became of it: an
// ICMP echo, or TCP connects. It decides nothing about the server.
//
// A missing reply is Lost. Whatever keeps a probe from leaving this host is
// NotSent, never Lost; ICMP errors from elsewhere are neither.
package prober

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

const (
	// lateness is how late a time-out may be noticed before a look for a reply
	// that came meanwhile is needed, and grace how long that look takes.
	lateness = 20 * time.Millisecond
	grace    = 20 * time.Millisecond
	// starvation is how late a time-out may be noticed at all before the result
	// is marked as late.
	starvation = 100 * time.Millisecond
)

// Target is whom to probe, and how.
type Target struct {
	// Addresses are unicast. Any reply from any of them counts.
	Addresses []netip.Addr
	Probe     member.Probe
}

// Outcome is what became of a probe.
type Outcome uint8

// The outcomes.
const (
	Replied Outcome = iota + 1
	Lost
	NotSent
)

// Result is the outcome of a probe with its circumstances.
type Result struct {
	Outcome Outcome
	// RTT is the round trip of a reply, by the monotonic clock.
	RTT time.Duration
	// Late says that this process was late to look: a loss may be its own fault,
	// and RTT is too long.
	Late bool
	// Err says why a probe was not sent.
	Err error
}

func notSent(err error) Result { return Result{Outcome: NotSent, Err: err} }

// Config is what a Prober needs.
type Config struct {
	// Mode is how ICMP is sent; see SelfTest. With ModeNone, ICMP probes are
	// NotSent.
	Mode   Mode
	Logger *slog.Logger
}

// Prober sends probes. It is safe for concurrent use. Use New.
type Prober struct {
	cfg  Config
	runs sync.WaitGroup
}

// New returns a Prober.
func New(cfg Config) *Prober { return &Prober{cfg: cfg} }

// Wait returns when everything that was started has ended, which is up to 150 ms
// after the last call has returned and the context of the last Volley has ended.
func (p *Prober) Wait() { p.runs.Wait() }

// Probe sends one probe to every address of the target and waits for the first
// reply until the time-out, counted from the moment of sending, or until ctx
// ends. The target is Lost only if no address has answered and at least one was
// probed.
func (p *Prober) Probe(ctx context.Context, t Target, timeout time.Duration) Result {
	if len(t.Addresses) == 0 {
		return notSent(errors.New("the server has no probe address"))
	}
	return p.race(ctx, len(t.Addresses), func(ctx context.Context, i int) Result {
		return p.probeAddress(ctx, t.Addresses[i], t.Probe, timeout)
	})
}

// Volley prepares n probes of one target, to be sent spacing apart: the i-th
// call of the function that it returns, which is made when that probe is due,
// waits for its fate as Probe does. Echo requests share one socket for each
// address, which from the first call on sends them by itself. What is under way
// ends with ctx.
func (p *Prober) Volley(ctx context.Context, t Target, n int, spacing time.Duration) func(i int, timeout time.Duration) Result {
	if n == 1 || len(t.Addresses) == 0 || t.Probe.Method == member.ProbeTCP || p.cfg.Mode == ModeNone {
		return func(_ int, timeout time.Duration) Result { return p.Probe(ctx, t, timeout) }
	}
	volleys := make([]func() (*volley, error), len(t.Addresses))
	for k, a := range t.Addresses {
		volleys[k] = sync.OnceValues(func() (*volley, error) {
			if err := checkAddress(ctx, a); err != nil {
				return nil, err
			}
			v := newVolley(a, n)
			p.runs.Go(func() { v.run(ctx, p.cfg, max(spacing, time.Millisecond)) })
			return v, nil
		})
	}
	return func(i int, timeout time.Duration) Result {
		return p.race(ctx, len(volleys), func(ctx context.Context, k int) Result {
			v, err := volleys[k]()
			if err != nil {
				return notSent(err)
			}
			return v.probe(ctx, i, timeout)
		})
	}
}

// Connect opens a TCP connection to every address at once, closes it again, and
// waits for the first answer until the time-out, or until ctx ends. A SYN-ACK
// and a RST are both an answer. The result is Lost only if nothing has answered
// and at least one connect went out.
func (p *Prober) Connect(ctx context.Context, to []netip.AddrPort, timeout time.Duration) Result {
	if len(to) == 0 {
		return notSent(errors.New("there is nothing to connect to"))
	}
	return p.race(ctx, len(to), func(ctx context.Context, i int) Result {
		if err := checkAddress(ctx, to[i].Addr()); err != nil {
			return notSent(err)
		}
		return handshake(ctx, to[i], timeout)
	})
}

// race makes n attempts at once, at least one, and returns the first reply, or
// the worst of what they come to.
func (p *Prober) race(ctx context.Context, n int, attempt func(ctx context.Context, i int) Result) Result {
	if n == 1 {
		return attempt(ctx, 0)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan Result, n)
	for i := range n {
		p.runs.Go(func() { results <- attempt(ctx, i) })
	}
	var all Result
	for range n {
		r := <-results
		if r.Outcome == Replied {
			return r
		}
		all = worse(all, r)
	}
	return all
}

// worse joins the results of two addresses without a reply. An address that
// cannot be probed from here, such as an IPv6 address on an IPv4-only host, does
// not hide the loss of the other.
func worse(a, b Result) Result {
	switch {
	case a.Outcome == 0:
		return b
	case a.Outcome == Lost && b.Outcome == Lost:
		return Result{Outcome: Lost, Late: a.Late || b.Late}
	case a.Outcome == Lost:
		return a
	case b.Outcome == Lost:
		return b
	}
	return notSent(errors.Join(a.Err, b.Err))
}

func (p *Prober) probeAddress(ctx context.Context, a netip.Addr, how member.Probe, timeout time.Duration) Result {
	if err := checkAddress(ctx, a); err != nil {
		return notSent(err)
	}
	if how.Method == member.ProbeTCP {
		return handshake(ctx, netip.AddrPortFrom(a, how.Port), timeout)
	}
	if p.cfg.Mode == ModeNone {
		return notSent(ErrNoPermission)
	}
	return p.ping(ctx, a, timeout)
}

// checkAddress says why nothing can be sent to a from here, or nil.
func checkAddress(ctx context.Context, a netip.Addr) error {
	if !a.IsValid() || a.IsMulticast() || a.IsUnspecified() {
		return fmt.Errorf("%v is not a unicast address", a)
	}
	return checkRoute(ctx, a)
}

// checkRoute asks the kernel for a route to a by connecting a UDP socket, which
// sends nothing. It fails for the same reasons as sending would (no route, a
// forbidding route, a broadcast address), so that these are told apart from what
// others say later.
func checkRoute(ctx context.Context, a netip.Addr) error {
	d := net.Dialer{Control: refuseBroadcast}
	c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(a, 9).String())
	if err != nil {
		return fmt.Errorf("find route to %v: %w", a, err)
	}
	return c.Close()
}
