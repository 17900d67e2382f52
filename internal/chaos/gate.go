package chaos

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/internal/testdb"
)

// gates are one coordinator's ways to the servers of the database, in the order in
// which it tries them.
type gates []*gate

func newGates(servers []*testdb.Server) (gates, error) {
	var all gates
	for _, s := range servers {
		g, err := newGate(s.Socket())
		if err != nil {
			return nil, errors.Join(err, all.close())
		}
		all = append(all, g)
	}
	return all, nil
}

// url is the store's, through the gates.
func (all gates) url() string {
	sockets := make([]string, len(all))
	for i, g := range all {
		sockets[i] = g.socket()
	}
	return testdb.SocketURL(database, sockets...)
}

// inUse is the gate that something has passed last.
func (all gates) inUse() int {
	newest := 0
	for i, g := range all {
		if g.passed.Load() > all[newest].passed.Load() {
			newest = i
		}
	}
	return newest
}

func (all gates) shut() {
	for _, g := range all {
		g.shut()
	}
}

func (all gates) reopen() {
	for _, g := range all {
		g.reopen()
	}
}

func (all gates) close() error {
	var errs []error
	for _, g := range all {
		errs = append(errs, g.close())
	}
	return errors.Join(errs...)
}

// gate is one coordinator's way to a server. While it is shut, nothing
// passes and no connection breaks, as when a network loses everything.
type gate struct {
	dir      string
	server   string
	listener net.Listener
	passing  sync.WaitGroup
	// passed is when something has passed last, in nanoseconds since 1970.
	passed atomic.Int64

	mu sync.Mutex
	// open is closed while the gate is open.
	open  chan struct{}
	conns []net.Conn
}

func newGate(server string) (*gate, error) {
	// A socket's path must be short.
	dir, err := os.MkdirTemp("", "gate-")
	if err != nil {
		return nil, fmt.Errorf("make gate: %w", err)
	}
	lis, err := net.Listen("unix", filepath.Join(dir, "sock")) //nolint:noctx // it waits for nobody
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make gate: %w", err), os.RemoveAll(dir))
	}
	g := &gate{dir: dir, server: server, listener: lis, open: make(chan struct{})}
	close(g.open)
	g.passing.Go(g.accept)
	return g, nil
}

func (g *gate) socket() string { return filepath.Join(g.dir, "sock") }

func (g *gate) accept() {
	for {
		client, err := g.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("unix", g.server) //nolint:noctx // it is on this host
		if err != nil {
			_ = client.Close()
			continue
		}
		g.mu.Lock()
		g.conns = append(g.conns, client, server)
		g.mu.Unlock()
		g.passing.Go(func() { g.pass(client, server) })
		g.passing.Go(func() { g.pass(server, client) })
	}
}

// pass passes on what comes, and then the end.
func (g *gate) pass(from, to net.Conn) {
	defer func() { _ = errors.Join(from.Close(), to.Close()) }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		<-open
		g.passed.Store(time.Now().UnixNano())
		if _, writeErr := to.Write(buffer[:n]); writeErr != nil || err != nil {
			return
		}
	}
}

// shut lets nothing pass until the gate is opened.
func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = make(chan struct{})
}

func (g *gate) reopen() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

func (g *gate) close() error {
	err := g.listener.Close()
	g.reopen()
	g.mu.Lock()
	var conns []io.Closer
	for _, c := range g.conns {
		conns = append(conns, c)
	}
	g.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	g.passing.Wait()
	return errors.Join(err, os.RemoveAll(g.dir))
}
