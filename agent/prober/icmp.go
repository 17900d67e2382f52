package prober

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

// payload is the least that pro-bing sends: its time stamp and 16 random bytes,
// new for every probe, by which it knows the reply.
const payload = 24

// leaving is how long a request may take to leave this host, at least. That
// takes a processor, which a busy host may have to wait for, and is no part of
// the round trip.
const leaving = 100 * time.Millisecond

// volley is a series of echo requests that one pinger sends through one socket.
type volley struct {
	target netip.Addr
	// shots are by sequence number; both channels of one get at most one value.
	shots []shot
	// broken is closed when the pinger fails, for the reason why.
	broken chan struct{}
	once   sync.Once
	why    error
}

type shot struct{ sent, replied chan time.Time }

func newVolley(target netip.Addr, n int) *volley {
	v := &volley{target: target, shots: make([]shot, n), broken: make(chan struct{})}
	for i := range v.shots {
		v.shots[i] = shot{sent: make(chan time.Time, 1), replied: make(chan time.Time, 1)}
	}
	return v
}

// fail ends all probes of the volley.
func (v *volley) fail(err error) {
	v.once.Do(func() {
		v.why = err
		close(v.broken)
	})
}

// ping sends one echo request and waits for its reply. The pinger has a socket
// of its own; it ends up to 100 ms after ping returns, when its receiver looks
// up from its poll.
func (p *Prober) ping(ctx context.Context, a netip.Addr, timeout time.Duration) Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := newVolley(a, 1)
	p.runs.Go(func() { v.run(ctx, p.cfg, time.Hour) })
	return v.probe(ctx, 0, timeout)
}

// probe waits until the i-th request has gone out, and then for its reply.
func (v *volley) probe(ctx context.Context, i int, timeout time.Duration) Result {
	patience := max(timeout, leaving)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case sent := <-v.shots[i].sent:
		return v.await(ctx, i, sent, timeout)
	case <-v.broken:
		return notSent(v.why)
	case <-timer.C:
		return notSent(fmt.Errorf("ping %v: the request did not leave this host within %v", v.target, patience))
	case <-ctx.Done():
		return notSent(ctx.Err())
	}
}

// await waits for the reply to a request that went out at sent. An observer that
// comes late to the time-out looks once more before it calls the reply lost, and
// if it comes late to that as well, or comes very late, says so.
func (v *volley) await(ctx context.Context, i int, sent time.Time, timeout time.Duration) Result {
	deadline, again, late := sent.Add(timeout), false, false
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		select {
		case at := <-v.shots[i].replied:
			return Result{Outcome: Replied, RTT: at.Sub(sent), Late: late}
		case <-v.broken:
			return notSent(v.why)
		case <-ctx.Done():
			return notSent(ctx.Err())
		case <-timer.C:
		}
		behind := time.Since(deadline)
		if behind > lateness && !again {
			again, late = true, behind > starvation
			deadline = time.Now().Add(grace)
			timer.Reset(grace)
			continue
		}
		select {
		case at := <-v.shots[i].replied:
			return Result{Outcome: Replied, RTT: at.Sub(sent), Late: late}
		default:
			return Result{Outcome: Lost, Late: late || behind > lateness}
		}
	}
}

// run runs a pinger that sends the requests, the first at once. A pinger stops
// sending when it has sent its Count, and ends when it has had as many replies
// with the right payload, even if they came from another address. So it is told
// one more than it sends, and after the last that it has sent one more.
func (v *volley) run(ctx context.Context, cfg Config, spacing time.Duration) {
	p := probing.New("")
	p.SetIPAddr(&net.IPAddr{IP: v.target.AsSlice()})
	p.SetPrivileged(cfg.Mode == ModeRaw)
	p.SetLogger(spinGuard{log: cfg.Logger, fail: v.fail})
	p.Size, p.Interval, p.Count = payload, spacing, len(v.shots)+1
	p.RecordRtts, p.RecordTTLs = false, false
	sent := 0
	p.OnSend = func(r *probing.Packet) {
		note(v.shots[r.Seq].sent)
		if sent = r.Seq + 1; sent == len(v.shots) {
			p.PacketsSent++
		}
	}
	p.OnSendError = func(_ *probing.Packet, err error) { v.fail(err) }
	p.OnRecv = func(r *probing.Packet) {
		if from, ok := netip.AddrFromSlice(r.IPAddr.IP); ok && from.Unmap() == v.target && r.Seq < sent {
			note(v.shots[r.Seq].replied)
		}
	}
	p.OnDuplicateRecv = p.OnRecv
	// A read error of the socket is trouble of this host. OnRecvError is not for
	// it: that is called for every poll that found nothing.
	if err := p.RunWithContext(ctx); err != nil && ctx.Err() == nil {
		v.fail(fmt.Errorf("ping %v: %w", v.target, err))
	}
}

// note keeps the present moment unless one is kept already.
func note(moment chan<- time.Time) {
	select {
	case moment <- time.Now():
	default:
	}
}

// spinGuard is a pinger's logger. When sending is forbidden (EACCES: a
// prohibiting route, or a broadcast address), pro-bing announces a broadcast
// address and tries again for ever, deaf to its context. Leaving the goroutine
// from the announcement is the only way out.
type spinGuard struct {
	log  *slog.Logger
	fail func(error)
}

func (g spinGuard) Infof(string, ...any) {
	g.fail(fmt.Errorf("send echo request: %w", errForbidden))
	runtime.Goexit()
}

var errForbidden = errors.Join(syscall.EACCES, errors.New("the route forbids it, or the address is a broadcast address"))

func (g spinGuard) Fatalf(format string, v ...any) { g.debug(format, v) }
func (g spinGuard) Errorf(format string, v ...any) { g.debug(format, v) }
func (g spinGuard) Warnf(format string, v ...any)  { g.debug(format, v) }
func (g spinGuard) Debugf(string, ...any)          {}

func (g spinGuard) debug(format string, v []any) {
	g.log.Debug("pinger spoke", "text", fmt.Sprintf(format, v...))
}
