package quota

import (
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Guard makes the listeners of a process that have limits.
type Guard struct {
	log         *slog.Logger
	open, limit *prometheus.GaugeVec
	refused     *prometheus.CounterVec
}

// NewGuard returns a guard without listeners. Its metrics are on the registry from
// then on.
func NewGuard(reg *prometheus.Registry, log *slog.Logger) *Guard {
	f := promauto.With(reg)
	return &Guard{
		log: log,
		open: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "buddyring_connections", Help: "Connections that are open, by listener.",
		}, []string{"listener"}),
		limit: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "buddyring_connections_limit", Help: "How many connections a listener takes at a time.",
		}, []string{"listener"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "buddyring_connections_refused_total",
			Help: "Connections that were closed at once, by listener and by the limit that was reached: total or source.",
		}, []string{"listener", "limit"}),
	}
}

// spareFiles are for all that a process has open besides the connections that are
// shared out: its own files and dials, and listeners with Few.
const spareFiles = 300

// Few are limits for a listener that hardly anybody uses.
func Few() Limits { return Limits{Total: 100, PerSource: 50} }

// Share returns limits with which so many listeners leave the process the files
// that it needs besides, and says so where that is less than was wanted.
func (g *Guard) Share(wanted Limits, listeners int) Limits {
	shared := wanted.within(openFiles(), listeners)
	if shared.Total < wanted.Total {
		g.log.Warn("fewer connections than configured, for the process may not open more files",
			"configured", wanted.Total, "connections", shared.Total, "open_files", openFiles())
	}
	return shared
}

// within shares out files. A source that may not have all is left three quarters.
func (l Limits) within(files, listeners int) Limits {
	total := max(1, (files-spareFiles)/listeners)
	switch {
	case total >= l.Total:
		return l
	case l.PerSource >= l.Total:
		return Limits{total, total}
	}
	return Limits{total, min(l.PerSource, (3*total+3)/4)}
}

// Listener returns lis with limits: who comes when one is reached is disconnected
// at once. The name is that of the listener in metrics and log.
func (g *Guard) Listener(lis net.Listener, name string, limits Limits) net.Listener {
	g.limit.WithLabelValues(name).Set(float64(limits.Total))
	l := &listener{
		Listener: lis, name: name, log: g.log, counter: NewCounter(limits), open: g.open.WithLabelValues(name),
		refused: map[Limit]prometheus.Counter{},
	}
	for _, limit := range []Limit{Total, PerSource} {
		l.refused[limit] = g.refused.WithLabelValues(name, string(limit))
	}
	return l
}

type listener struct {
	net.Listener

	name    string
	log     *slog.Logger
	counter *Counter
	open    prometheus.Gauge
	refused map[Limit]prometheus.Counter
}

// Accept waits for the next connection that the limits allow.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := SourceOf(conn.RemoteAddr())
		if limit := l.counter.Take(from, 1); limit != None {
			l.refuse(conn, from, limit)
			continue
		}
		l.open.Inc()
		if tcp, ok := conn.(*net.TCPConn); ok {
			return &tcpConn{TCPConn: tcp, place: place{listener: l, from: from}}, nil
		}
		return &plainConn{Conn: conn, place: place{listener: l, from: from}}, nil
	}
}

// refuse closes a connection in a way that leaves nothing in the kernel.
func (l *listener) refuse(conn net.Conn, from netip.Prefix, limit Limit) {
	l.refused[limit].Inc()
	l.log.Warn("connection refused, there are too many",
		"listener", l.name, "source", from.String(), "limit", string(limit))
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be gone
	}
	_ = conn.Close() // nothing was said
}

// place is what a connection holds until it is closed.
type place struct {
	listener *listener
	from     netip.Prefix
	left     atomic.Bool
}

func (p *place) leave() {
	if !p.left.Swap(true) {
		p.listener.open.Dec()
		p.listener.counter.Return(p.from, 1)
	}
}

// tcpConn can do all that a TCP connection can: gRPC waits for its readiness, and
// HTTP closes one direction.
type tcpConn struct {
	*net.TCPConn

	place place
}

// Close closes the connection and leaves its place.
func (c *tcpConn) Close() error {
	defer c.place.leave()
	return c.TCPConn.Close()
}

type plainConn struct {
	net.Conn

	place place
}

// Close closes the connection and leaves its place.
func (c *plainConn) Close() error {
	defer c.place.leave()
	return c.Conn.Close()
}
