package prober

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/internal/connect"
)

// handshake opens a TCP connection. SYN-ACK and RST are both a reply: a live host
// sent them, and so is a "port unreachable" from its own address. One from elsewhere
// is of a firewall, behind which nothing can be told. Another "unreachable" may be of
// the last router, to which the host is silent; since checkRoute has found a route, it
// is waited out like silence.
func handshake(ctx context.Context, to netip.AddrPort, timeout time.Duration) Result {
	began := time.Now()
	c, err := connect.Dial(ctx, net.Dialer{Timeout: timeout, KeepAlive: -1}, to.String())
	took := time.Since(began)
	if err == nil {
		_ = c.Close() // the handshake is the evidence
		return Result{Outcome: Replied, RTT: took, Late: took > timeout+lateness}
	}
	switch {
	case ctx.Err() != nil:
		return notSent(ctx.Err())
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return Result{Outcome: Replied, RTT: took, Late: took > timeout+lateness}
	case isTimeout(err):
		return Result{Outcome: Lost, Late: took > timeout+lateness}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return waitOut(ctx, began.Add(timeout))
	}
	return notSent(fmt.Errorf("connect: %w", err))
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func waitOut(ctx context.Context, deadline time.Time) Result {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return notSent(ctx.Err())
	case <-timer.C:
		return Result{Outcome: Lost, Late: time.Since(deadline) > lateness}
	}
}
