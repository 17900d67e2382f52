//go:build mariadb

package store_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/testdb"
)

// fate is what a proxy does with a COMMIT.
type fate int

const (
	pass fate = iota
	// lose closes the connection before the server sees the COMMIT.
	lose
	// loseAnswer lets the server commit and closes the connection before the
	// client hears of it.
	loseAnswer
	// hang lets the server commit and never tells the client.
	hang
	// late closes the client's connection, and keeps the COMMIT until deliver.
	late
)

// proxy stands between a store and a MariaDB and harms its COMMITs.
type proxy struct {
	URL string

	server   string
	listener net.Listener
	wg       sync.WaitGroup

	// deliver lets the late COMMITs go on; delivered is closed then.
	deliver   func()
	delivered chan struct{}

	// hanging has an entry for each COMMIT whose answer is kept; ended is closed at
	// the end of the test.
	hanging, ended chan struct{}

	// rollbacks counts the ROLLBACKs that were sent.
	rollbacks atomic.Int64

	mu    sync.Mutex
	fates []fate
	// cut makes the proxy refuse connections once the fates are used up.
	cut, down bool
	conns     []net.Conn
}

func newProxy(t *testing.T, server *testdb.Server, database string) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "proxy") //nolint:usetesting // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{URL: testdb.SocketURL(database, socket), server: server.Socket(), listener: l, delivered: make(chan struct{}), hanging: make(chan struct{}, 8), ended: make(chan struct{})}
	p.deliver = sync.OnceFunc(func() { close(p.delivered) })
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		close(p.ended)
		p.deliver()
		p.closeAll()
		p.wg.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

// harm sets what becomes of the next COMMITs, in order.
func (p *proxy) harm(fates ...fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fates = fates
}

// harmAndCut lets nobody connect after these.
func (p *proxy) harmAndCut(fates ...fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fates, p.cut = fates, true
}

// limited is the context of a caller whose deadline comes when his COMMIT hangs, and
// not before, however slow the machine is.
type limited struct {
	context.Context //nolint:containedctx // it is a context itself

	passed chan struct{}
	// at is when the deadline has passed.
	at time.Time
}

func (l *limited) Done() <-chan struct{} { return l.passed }

func (l *limited) Err() error {
	select {
	case <-l.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// hangs lets the next COMMIT hang, and returns a context whose deadline is so long
// after that.
func (p *proxy) hangs(t *testing.T, after time.Duration) *limited {
	t.Helper()
	p.harm(hang)
	l := &limited{Context: t.Context(), passed: make(chan struct{})}
	p.wg.Go(func() {
		select {
		case <-p.hanging:
			time.Sleep(after)
		case <-p.ended:
		}
		l.at = time.Now()
		close(l.passed)
	})
	return l
}

// mend lets everybody through again.
func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fates, p.cut, p.down = nil, false, false
}

func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", p.server)
		p.mu.Lock()
		if err != nil || p.down {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
		} else {
			p.conns = append(p.conns, client, server)
			p.wg.Go(func() { p.serve(client, server) })
		}
		p.mu.Unlock()
	}
}

// next returns the fate of a COMMIT.
func (p *proxy) next() fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.fates) == 0 {
		return pass
	}
	f := p.fates[0]
	p.fates = slices.Delete(p.fates, 0, 1)
	p.down = p.cut && len(p.fates) == 0
	return f
}

// serve passes packets to the server and bytes back until a side ends.
func (p *proxy) serve(client, server net.Conn) {
	defer func() { _, _ = client.Close(), server.Close() }()
	// muted tells the way back that the next answer must not pass.
	muted := make(chan fate, 1)
	back := make(chan struct{})
	go func() {
		defer close(back)
		p.answers(client, server, muted)
	}()
	for {
		packet, err := readPacket(client)
		if err != nil {
			break
		}
		if string(packet[4:]) == "\x03COMMIT" {
			f := p.next()
			if f == lose {
				break
			}
			if f != pass {
				muted <- f
			}
			if f == late {
				_ = client.Close()
				<-p.delivered
			}
		}
		if string(packet[4:]) == "\x03ROLLBACK" {
			p.rollbacks.Add(1)
		}
		if _, err := server.Write(packet); err != nil {
			break
		}
	}
	_, _ = client.Close(), server.Close()
	<-back
}

// answers copies from server to client until it is told to keep an answer.
func (p *proxy) answers(client, server net.Conn, muted <-chan fate) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			_ = client.Close()
			return
		}
		select {
		case f := <-muted:
			if f == hang {
				p.hanging <- struct{}{}
				_, _ = io.Copy(io.Discard, server)
			}
			_ = client.Close()
			return
		default:
		}
		if _, err := client.Write(buf[:n]); err != nil && !errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// readPacket reads one packet of the protocol: three bytes of length, a number,
// and the payload.
func readPacket(r io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	packet := make([]byte, 4+(binary.LittleEndian.Uint32(head)&0xffffff))
	copy(packet, head)
	_, err := io.ReadFull(r, packet[4:])
	return packet, err
}
