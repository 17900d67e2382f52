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
// concurrent use, but for ReadOnReady.
type Conn struct {
	net.Conn
	// ready reads when there is something; nil where there is something between the
	// kernel and the connection, such as TLS.
	ready *readyRead

	// byPeer is set by the peer's FIN or RST, closed by our own Close, lost by
	// any error that is neither.
	byPeer, closed, lost atomic.Bool
}

// newConn returns conn as one that remembers.
func newConn(conn net.Conn) *Conn {
	c := &Conn{Conn: conn}
	if tcp, ok := conn.(syscall.Conn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			c.ready = &readyRead{raw: raw}
			c.ready.try = c.ready.read
		}
	}
	return c
}

// ReadOnReady reads into a buffer of the pool, which it takes when there is
// something to read: gRPC asks for that where it finds it, and a connection at
// rest then holds no buffer. The caller gives the buffer back. There is one caller
// at a time.
func (c *Conn) ReadOnReady(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error) {
	if c.ready != nil {
		buffer, n, err = c.ready.wait(size, pool)
		c.note(err)
		return buffer, n, err
	}
	buffer = pool.Get(size)
	if n, err = c.Read(*buffer); n > 0 {
		return buffer, n, err
	}
	pool.Put(buffer)
	return nil, 0, err
}

// readyRead is a read under way, which is kept from one to the next.
type readyRead struct {
	raw syscall.RawConn
	// try is read, which the kernel's connection calls when there may be something.
	try func(fd uintptr) (done bool)

	size   int
	pool   mem.BufferPool
	buffer *[]byte
	n      int
	err    error
}

func (r *readyRead) wait(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error) {
	r.size, r.pool = size, pool
	waited := r.raw.Read(r.try)
	buffer, n, err = r.buffer, r.n, r.err
	r.pool, r.buffer, r.n, r.err = nil, nil, 0, nil
	switch {
	case waited != nil:
		err = waited
	case err != nil:
		err = os.NewSyscallError("read", err)
	case n == 0:
		err = io.EOF
	}
	return buffer, n, err
}

func (r *readyRead) read(fd uintptr) (done bool) {
	r.buffer = r.pool.Get(r.size)
	for {
		r.n, r.err = syscall.Read(int(fd), *r.buffer)
		if !errors.Is(r.err, syscall.EINTR) {
			break
		}
	}
	if r.err == nil && r.n > 0 {
		return true
	}
	r.pool.Put(r.buffer)
	r.buffer, r.n = nil, 0
	return !errors.Is(r.err, syscall.EAGAIN)
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
