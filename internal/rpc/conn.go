package rpc

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// Conn is a server's connection that remembers how it ended. It is safe for
// concurrent use.
type Conn struct {
	net.Conn

	// byPeer is set by the peer's FIN or RST, closed by our own Close, lost by
	// any error that is neither.
	byPeer, closed, lost atomic.Bool
}

// ClosedByPeer reports whether the peer's kernel ended the connection: its FIN
// or RST was read. It is false while the connection is open, after our own
// close, and after a time-out or an unreachable network.
func (c *Conn) ClosedByPeer() bool { return c.byPeer.Load() && !c.lost.Load() }

// Open reports whether neither side has ended the connection so far. A stream
// that was cancelled while its connection is open was cancelled by its client.
func (c *Conn) Open() bool { return !c.byPeer.Load() && !c.closed.Load() && !c.lost.Load() }

// Read reads as net.Conn does.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(err)
	return n, err
}

// Write writes as net.Conn does.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(err)
	return n, err
}

// Close closes as net.Conn does.
func (c *Conn) Close() error {
	if !c.byPeer.Load() {
		c.closed.Store(true)
	}
	return c.Conn.Close()
}

// note remembers the errors of both directions: the kernel tells a time-out
// only once, and the other direction then sees what looks like a FIN.
func (c *Conn) note(err error) {
	switch {
	case err == nil, c.closed.Load(), errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		c.byPeer.Store(true)
	default:
		c.lost.Store(true)
	}
}
