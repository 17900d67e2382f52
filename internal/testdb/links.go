package testdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// groupPort is where the nodes of a cluster listen to each other.
const groupPort = "4567"

// links are the ways between the nodes of a cluster. The others reach a node at its
// front, an address where the links listen. A node calls from its own address, so
// that the links know who calls; they pass the call on from the front of the caller,
// so that the node that is called knows it by that.
type links struct {
	hosts, fronts []string
	listeners     []net.Listener
	passing       sync.WaitGroup
	stop          context.CancelFunc

	mu sync.Mutex
	// ways has a channel for each way, from one node to another, which is closed while
	// the way is open.
	ways  map[way]chan struct{}
	conns map[net.Conn]bool
	// delay is for what passes on any way.
	delay time.Duration
}

// way is that of what one node sends to another.
type way struct{ from, to int }

// newLinks listens at the fronts of nodes with these addresses of their own.
func newLinks(hosts, fronts []string) (*links, error) {
	ctx, stop := context.WithCancel(context.Background())
	l := &links{hosts: hosts, fronts: fronts, stop: stop, ways: map[way]chan struct{}{}, conns: map[net.Conn]bool{}}
	for from := range hosts {
		for to := range hosts {
			l.ways[way{from, to}] = make(chan struct{})
		}
	}
	l.mend()
	for node, front := range fronts {
		lis, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(front, groupPort))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make links: %w", err), l.close())
		}
		l.listeners = append(l.listeners, lis)
		l.passing.Go(func() { l.accept(ctx, lis, node) })
	}
	return l, nil
}

func (l *links) accept(ctx context.Context, lis net.Listener, node int) {
	for {
		conn, err := lis.Accept()
		if err != nil {
			return
		}
		l.passing.Go(func() { l.serve(ctx, conn, node) })
	}
}

// serve passes on a call to a node, once nothing between the two is cut.
func (l *links) serve(ctx context.Context, caller net.Conn, node int) {
	defer l.drop(caller)
	host, _, _ := net.SplitHostPort(caller.RemoteAddr().String())
	from := slices.Index(l.hosts, host)
	if from < 0 || !l.keep(caller) {
		return
	}
	there, back := way{from, node}, way{node, from}
	for _, w := range []way{there, back} {
		select {
		case <-l.open(w):
		case <-ctx.Done():
			return
		}
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(l.fronts[from])}}
	called, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(l.hosts[node], groupPort))
	if err != nil {
		return
	}
	defer l.drop(called)
	if !l.keep(called) {
		return
	}
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		l.pass(called, caller, back)
	}()
	l.pass(caller, called, there)
	<-answers
}

// pass passes on what comes while the way is open, and then the end.
func (l *links) pass(from, to net.Conn, w way) {
	defer func() { _ = errors.Join(from.Close(), to.Close()) }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		<-l.open(w)
		l.mu.Lock()
		delay := l.delay
		l.mu.Unlock()
		time.Sleep(delay)
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			return
		}
	}
}

// keep remembers a connection, unless the links are about to end.
func (l *links) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return false
	}
	l.conns[c] = true
	return true
}

func (l *links) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *links) open(w way) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ways[w]
}

// cut lets nothing pass on a way. No connection breaks, as when a network loses all.
func (l *links) cut(w way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if isClosed(l.ways[w]) {
		l.ways[w] = make(chan struct{})
	}
}

// mend opens all ways. What was sent meanwhile arrives, as by TCP.
func (l *links) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = 0
	for _, open := range l.ways {
		if !isClosed(open) {
			close(open)
		}
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (l *links) close() error {
	l.stop()
	var errs []error
	for _, lis := range l.listeners {
		errs = append(errs, lis.Close())
	}
	l.mend()
	l.mu.Lock()
	for c := range l.conns {
		_ = c.Close() // another side may have done it
	}
	l.conns = nil
	l.mu.Unlock()
	l.passing.Wait()
	return errors.Join(errs...)
}

// Sever loses all that two nodes send to each other, until Mend.
func (c *Cluster) Sever(a, b int) {
	c.links.cut(way{a, b})
	c.links.cut(way{b, a})
}

// Isolate cuts a node off from all others.
func (c *Cluster) Isolate(node int) {
	for other := range c.nodes {
		if other != node {
			c.Sever(node, other)
		}
	}
}

// Slow delays all that nodes send to each other, until Mend.
func (c *Cluster) Slow(delay time.Duration) {
	c.links.mu.Lock()
	defer c.links.mu.Unlock()
	c.links.delay = delay
}

// Mend ends all cuts and delays.
func (c *Cluster) Mend() { c.links.mend() }
