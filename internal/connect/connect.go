// Package connect opens TCP connections: with Dial for what they prove, since a host
// that accepts or refuses one is alive, and with First to speak to whichever address of
// a name answers. It sends nothing.
package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// ErrRefusedElsewhere is in the error of a connection that something other than the
// host has refused: a router or a firewall on the way, or this host's own firewall.
// It is no evidence of the host.
var ErrRefusedElsewhere = errors.New("refused by something on the way")

// Dial connects to HOST:PORT by TCP as the dialer's DialContext does, but tries the
// addresses of a name one after the other; its Control must be nil. The errors are
// those of DialContext, but that syscall.ECONNREFUSED is only for refusals by the host
// itself, and ErrRefusedElsewhere for others. It is safe for concurrent use.
func Dial(ctx context.Context, d net.Dialer, address string) (net.Conn, error) {
	refused := newRefusal()
	defer refused.close()
	d.Control, d.FallbackDelay = refused.watch, -1 // one attempt after the other
	conn, err := d.DialContext(ctx, "tcp", address)
	if errors.Is(err, syscall.ECONNREFUSED) && !refused.byHost() {
		return nil, fmt.Errorf("connect to %s: %w", address, ErrRefusedElsewhere)
	}
	return conn, err
}
