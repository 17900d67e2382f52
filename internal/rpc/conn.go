package rpc

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/mem"
)

// Conn is a server's connection that remembers how it ended. It is safe for
// concurrent use.
type Conn struct {
	net.Conn
	// raw is the connection's for the kernel, nil where there is none, or something
	// between, such as TLS.
	raw syscall.RawConn

	// byPeer is set by the peer's FIN or RST, closed by our own Close, lost by
	// any error that is neither.
	byPeer, closed, lost atomic.Bool
}

// newConn returns conn as one that remembers.
func newConn(conn net.Conn) *Conn {
	c := &Conn{Conn: conn}
	if tcp, ok := conn.(syscall.Conn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	return c
}

// ReadOnReady reads into a buffer of the pool, which it takes when there is
// something to read: gRPC asks for that where it finds it, and a connection at
// rest then holds no buffer. The caller gives the buffer back.
func (c *Conn) ReadOnReady(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error) {
	if c.raw == nil {
		buffer = pool.Get(size)
		if n, err = c.Read(*buffer); n > 0 {
			return buffer, n, err
		}
		pool.Put(buffer)
		return nil, 0, err
	}
	waited := c.raw.Read(func(fd uintptr) (done bool) {
		buffer = pool.Get(size)
		for {
			n, err = syscall.Read(int(fd), *buffer)
			if !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if err == nil && n > 0 {
			return true
		}
		pool.Put(buffer)
		buffer, n = nil, 0
		return !errors.Is(err, syscall.EAGAIN)
	})
	switch {
	case waited != nil:
		err = waited
	case err != nil:
		err = os.NewSyscallError("read", err)
	case n == 0:
		err = io.EOF
	}
	c.note(err)
	return buffer, n, err
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
