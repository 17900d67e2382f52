// Package relay passes on what two ends of a connection send to each other, for
// tests: at once, late, or not before it is told to. It loses nothing of what a
// connection carries and keeps its order, as TCP does.
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// parcelBytes is how much is passed on at once, at most.
	parcelBytes = 32 << 10
	// underWay is how many parcels of a connection are on a way, at most.
	underWay = 256
)

// Path is how connections go on. Paths may share their ways.
type Path struct {
	// There is the way from who has called, Back the one to it.
	There, Back *Way
	// Dial connects to who is called.
	Dial func(context.Context) (net.Conn, error)
}

// To returns a path to an address, with ways of its own.
func To(network, address string) *Path {
	return &Path{There: new(Way), Back: new(Way), Dial: func(ctx context.Context) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", address, err)
		}
		return conn, nil
	}}
}

// Shut shuts both ways, Open opens them, Slow makes both late.
func (p *Path) Shut() { p.There.Shut(); p.Back.Shut() }

// Open opens both ways.
func (p *Path) Open() { p.There.Open(); p.Back.Open() }

// Slow makes what passes late, each way. See Way.Slow.
func (p *Path) Slow(delay, jitter time.Duration) {
	p.There.Slow(delay, jitter)
	p.Back.Slow(delay, jitter)
}

// Relay takes the connections of a listener and passes them on.
type Relay struct {
	listener net.Listener
	route    func(caller net.Addr) *Path
	stop     context.CancelFunc
	passing  sync.WaitGroup
}

// Start passes connections on until Close. The route says where one goes, by who
// calls; nil turns the caller away.
func Start(lis net.Listener, route func(caller net.Addr) *Path) *Relay {
	ctx, stop := context.WithCancel(context.Background())
	r := &Relay{listener: lis, route: route, stop: stop}
	r.passing.Go(func() { r.accept(ctx) })
	return r
}

// Close closes the listener and all connections.
func (r *Relay) Close() error {
	err := r.listener.Close()
	r.stop()
	r.passing.Wait()
	return err
}

func (r *Relay) accept(ctx context.Context) {
	for {
		caller, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.passing.Go(func() { r.serve(ctx, caller) })
	}
}

// serve passes on one connection, once its ways are open.
func (r *Relay) serve(ctx context.Context, caller net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	called, path := r.reach(ctx, caller)
	if called == nil {
		turnAway(caller)
		return
	}
	defer context.AfterFunc(ctx, func() { _ = errors.Join(caller.Close(), called.Close()) })()
	var ways sync.WaitGroup
	for _, p := range []*passage{newPassage(caller, called, path.There), newPassage(called, caller, path.Back)} {
		ways.Go(func() { p.read(ctx) })
		ways.Go(func() {
			if !p.write(ctx) {
				cancel()
			}
		})
	}
	ways.Wait()
	_ = errors.Join(caller.Close(), called.Close())
}

// reach connects to who is called; nil if there is nobody.
func (r *Relay) reach(ctx context.Context, caller net.Conn) (net.Conn, *Path) {
	path := r.route(caller.RemoteAddr())
	if path == nil || !path.There.await(ctx) || !path.Back.await(ctx) {
		return nil, nil
	}
	called, err := path.Dial(ctx)
	if err != nil {
		return nil, nil
	}
	return called, path
}

// turnAway resets a connection, as a host does where nobody listens.
func turnAway(caller net.Conn) {
	if tcp, ok := caller.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = caller.Close()
}

// parcel is something that is under way: content, or the end, which is io.EOF where
// the connection did not break.
type parcel struct {
	content []byte
	end     error
	due     time.Time
}

// passage is one direction of one connection.
type passage struct {
	from, to net.Conn
	way      *Way
	parcels  chan parcel
}

func newPassage(from, to net.Conn, w *Way) *passage {
	return &passage{from, to, w, make(chan parcel, underWay)}
}

// read takes what comes, until the end, and says when it is due: never before what
// came earlier.
func (p *passage) read(ctx context.Context) {
	buffer := make([]byte, parcelBytes)
	var last time.Time
	send := func(next parcel) bool {
		if due := time.Now().Add(p.way.lateness()); due.After(last) {
			last = due
		}
		next.due = last
		select {
		case p.parcels <- next:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		n, err := p.from.Read(buffer)
		if n > 0 && !send(parcel{content: slices.Clone(buffer[:n])}) {
			return
		}
		if err != nil {
			send(parcel{end: err})
			return
		}
	}
}

// write passes on what was read, and then the end. It reports whether the other
// direction may go on.
func (p *passage) write(ctx context.Context) bool {
	for {
		var next parcel
		select {
		case next = <-p.parcels:
		case <-ctx.Done():
			return false
		}
		if !sleep(ctx, time.Until(next.due)) || !p.way.await(ctx) {
			return false
		}
		if next.end != nil {
			return errors.Is(next.end, io.EOF) && closeWrite(p.to) == nil
		}
		p.way.note()
		if _, err := p.to.Write(next.content); err != nil {
			return false
		}
	}
}

// sleep waits; false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// closeWrite tells the other side that there is no more to come.
func closeWrite(c net.Conn) error {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return c.Close()
	}
	return half.CloseWrite()
}
