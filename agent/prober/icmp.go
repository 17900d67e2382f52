package prober

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	probing "github.com/prometheus-community/pro-bing"
)

// payload is the least that pro-bing sends: its time stamp and 16 random bytes,
// new for every probe, by which it knows the reply.
const payload = 24

// echo is one echo request on its way. Each channel gets at most one value.
type echo struct {
	target  netip.Addr
	sent    chan time.Time
	replied chan time.Time
	failed  chan error
}

// ping sends one echo request and waits for its reply. The pinger has a socket
// of its own; it ends up to 100 ms after ping returns, when its receiver looks
// up from its poll.
func (p *Prober) ping(ctx context.Context, a netip.Addr, timeout time.Duration) Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := &echo{
		target: a, sent: make(chan time.Time, 1), replied: make(chan time.Time, 1), failed: make(chan error, 1),
	}
	p.runs.Go(func() { e.run(ctx, p.cfg.Mode, p.cfg.Logger) })
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case sent := <-e.sent:
		return e.await(ctx, sent, timeout)
	case err := <-e.failed:
		return notSent(err)
	case <-timer.C:
		return notSent(fmt.Errorf("ping %v: the request did not leave this host within %v", a, timeout))
	case <-ctx.Done():
		return notSent(ctx.Err())
	}
}

// await waits for the reply to a request that went out at sent. An observer that
// comes late to the time-out looks once more before it calls the reply lost, and
// if it comes late to that as well, or comes very late, says so.
func (e *echo) await(ctx context.Context, sent time.Time, timeout time.Duration) Result {
	deadline, again, late := sent.Add(timeout), false, false
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		select {
		case at := <-e.replied:
			return Result{Outcome: Replied, RTT: at.Sub(sent), Late: late}
		case err := <-e.failed:
			return notSent(err)
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
		case at := <-e.replied:
			return Result{Outcome: Replied, RTT: at.Sub(sent), Late: late}
		default:
			return Result{Outcome: Lost, Late: late || behind > lateness}
		}
	}
}

// run runs a pinger that sends one request. It has no Count: that would end it
// at the first reply with the right payload even if it came from another
// address.
func (e *echo) run(ctx context.Context, mode Mode, log *slog.Logger) {
	p := probing.New("")
	p.SetIPAddr(&net.IPAddr{IP: e.target.AsSlice()})
	p.SetPrivileged(mode == ModeRaw)
	p.SetLogger(spinGuard{log: log, failed: e.failed})
	p.Size, p.Interval = payload, time.Hour
	p.RecordRtts, p.RecordTTLs = false, false
	p.OnSend = func(*probing.Packet) { e.sent <- time.Now() }
	p.OnSendError = func(_ *probing.Packet, err error) { fail(e.failed, err) }
	p.OnRecv = func(r *probing.Packet) {
		if from, ok := netip.AddrFromSlice(r.IPAddr.IP); ok && from.Unmap() == e.target && r.Seq == 0 {
			select {
			case e.replied <- time.Now():
			default:
			}
		}
	}
	p.OnDuplicateRecv = p.OnRecv
	// A read error of the socket is trouble of this host. OnRecvError is not for
	// it: that is called for every poll that found nothing.
	if err := p.RunWithContext(ctx); err != nil && ctx.Err() == nil {
		fail(e.failed, fmt.Errorf("ping %v: %w", e.target, err))
	}
}

func fail(failed chan<- error, err error) {
	select {
	case failed <- err:
	default:
	}
}

// spinGuard is a pinger's logger. When sending is forbidden (EACCES: a
// prohibiting route, or a broadcast address), pro-bing announces a broadcast
// address and tries again for ever, deaf to its context. Leaving the goroutine
// from the announcement is the only way out.
type spinGuard struct {
	log    *slog.Logger
	failed chan<- error
}

func (g spinGuard) Infof(string, ...any) {
	fail(g.failed, fmt.Errorf("send echo request: %w", errForbidden))
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
