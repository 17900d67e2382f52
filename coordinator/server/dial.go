package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/connect"
)

// dialLimit bounds the dials of one process at a time; more of them wait.
const dialLimit = 256

// dialer answers a machine's question whether a host answers TCP.
type dialer struct {
	open  func(ctx context.Context, address string) (net.Conn, error)
	slots chan struct{}
}

func newDialer(open func(ctx context.Context, address string) (net.Conn, error)) dialer {
	if open == nil {
		open = func(ctx context.Context, address string) (net.Conn, error) {
			return connect.Dial(ctx, net.Dialer{}, address)
		}
	}
	return dialer{open: open, slots: make(chan struct{}, dialLimit)}
}

// dial tries all addresses at once. A connection or an RST from any of them
// proves a live kernel. Where none could even be tried, it cannot judge.
func (d dialer) dial(ctx context.Context, q pool.Dial) pool.Dialed {
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	results := make(chan pool.Dialed, len(q.Addresses))
	for _, address := range q.Addresses {
		go func() { results <- d.one(ctx, address) }()
	}
	best := pool.Dialed{CannotJudge: true, Text: "there is no address to connect to"}
	for i := range q.Addresses {
		if r := <-results; i == 0 || weight(r) > weight(best) {
			best = r
		}
		if best.Answered {
			cancel()
		}
	}
	best.Round = q.Round
	return best
}

// weight orders what was found out: an answer says more than silence, and that
// more than nothing.
func weight(d pool.Dialed) int {
	switch {
	case d.Answered:
		return 2
	case !d.CannotJudge:
		return 1
	}
	return 0
}

func (d dialer) one(ctx context.Context, address string) pool.Dialed {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return pool.Dialed{CannotJudge: true, Text: "too many connects at once"}
	}
	conn, err := d.open(ctx, address)
	var lookup *net.DNSError
	switch {
	case err == nil:
		return pool.Dialed{Answered: true, Text: closing(conn, address)}
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return pool.Dialed{Answered: true, Text: address + " answered with a reset"}
	case errors.As(err, &lookup):
		return pool.Dialed{CannotJudge: true, Text: fmt.Sprintf("cannot resolve %s: %v", address, err)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), timedOut(err),
		errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EHOSTUNREACH):
		return pool.Dialed{Text: address + " did not answer"}
	default:
		return pool.Dialed{CannotJudge: true, Text: fmt.Sprintf("cannot connect to %s: %v", address, err)}
	}
}

func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func closing(conn net.Conn, address string) string {
	if err := conn.Close(); err != nil {
		return fmt.Sprintf("%s accepted a connection (closing it: %v)", address, err)
	}
	return address + " accepted a connection"
}
