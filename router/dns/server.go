// Package dns is the DNS door of a router: it answers questions about the pools
// over UDP and TCP. What the answers are package zone decides.
//
// It knows no other names than those of its zone, asks nobody, and never sends a
// source more than its share: whoever asks too much by UDP is told to come by
// TCP.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/router/dns/zone"
	"github.com/buddyring/buddyring/router/door"
)

const (
	// maxQuestion is the longest packet that is read.
	maxQuestion = 4096
	// udpWorkers is how many packets are worked on at a time. What comes meanwhile
	// waits in the kernel, or is lost there.
	udpWorkers = 4
	// idleTime is how long a TCP client may take for a question, sendTime for
	// taking the answer.
	idleTime = 10 * time.Second
	sendTime = 5 * time.Second
)

// Config is what an operator decides about the door.
type Config struct {
	// Zone is the domain above all names.
	Zone string
}

// Deps are what the door needs from its process.
type Deps struct {
	Pools    door.Pools
	Registry *prometheus.Registry
	Logger   *slog.Logger
}

// Server is the door.
type Server struct {
	cfg       Config
	pools     door.Pools
	metrics   *metrics
	limiter   *limiter
	open      *quota.Counter
	log       *slog.Logger
	responder *responder
}

// New returns a door that does nothing until Run. Its metrics are on the
// registry from then on.
func New(cfg Config, deps Deps) (*Server, error) {
	if err := zone.CheckOrigin("dns-zone", cfg.Zone); err != nil {
		return nil, err
	}
	return &Server{
		cfg: cfg, pools: deps.Pools, metrics: newMetrics(deps.Registry), limiter: newLimiter(), open: quota.NewCounter(tcpLimits()), log: deps.Logger,
	}, nil
}

// Run answers on both, which it closes, until ctx ends; then it returns nil. It
// is called once.
func (s *Server) Run(ctx context.Context, packets net.PacketConn, streams net.Listener) error {
	z, err := zone.New(s.cfg.Zone, own(packets)...)
	if err != nil {
		return errors.Join(err, packets.Close(), streams.Close())
	}
	s.responder = &responder{zone: z, pools: s.pools, metrics: s.metrics}
	socket, err := newSocket(packets)
	if err != nil {
		return errors.Join(err, packets.Close(), streams.Close())
	}
	g, ctx := errgroup.WithContext(ctx)
	for range udpWorkers {
		g.Go(func() error { return s.answerPackets(ctx, socket) })
	}
	g.Go(func() error { return s.accept(ctx, streams) })
	g.Go(func() error {
		<-ctx.Done()
		return errors.Join(packets.Close(), streams.Close())
	})
	return g.Wait()
}

// own returns the one address that packets come to, if it is one.
func own(conn net.PacketConn) []netip.Addr {
	if a := address(conn.LocalAddr()).Unmap(); a.IsValid() && !a.IsUnspecified() && a.Zone() == "" {
		return []netip.Addr{a}
	}
	return nil
}

// address is the IP address of a socket.
func address(a net.Addr) netip.Addr {
	if udp, ok := a.(*net.UDPAddr); ok {
		return udp.AddrPort().Addr()
	}
	return netip.Addr{}
}

// answerPackets answers UDP questions, one at a time.
func (s *Server) answerPackets(ctx context.Context, packets socket) error {
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := packets.read(buf)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // that the socket is closed is why
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read dns packet: %w", err)
		case err != nil:
			pause(ctx)
			continue
		}
		now := time.Now()
		reply := s.responder.reply(buf[:n], udp, now)
		if reply == nil {
			continue
		}
		if !s.limiter.allow(quota.SourceOf(from.addr), len(reply), now) {
			s.metrics.limited.Inc()
			reply = cut(reply)
		}
		// A client that is gone needs no answer.
		_ = packets.write(reply, from)
	}
}

// accept takes TCP connections until ctx ends.
func (s *Server) accept(ctx context.Context, lis net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := lis.Accept()
		switch {
		case ctx.Err() != nil:
			if conn != nil {
				_ = conn.Close() // nothing was said
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept dns connection: %w", err)
		case err != nil:
			s.log.WarnContext(ctx, "cannot accept a connection", "error", err)
			pause(ctx)
			continue
		}
		from := quota.SourceOf(conn.RemoteAddr())
		if s.open.Take(from, 1) != quota.None {
			s.metrics.refused.Inc()
			_ = conn.Close() // nothing was said
			continue
		}
		clients.Go(func() {
			defer s.open.Return(from, 1)
			s.converse(ctx, conn)
		})
	}
}

// errorPause is how long to wait after a packet or a connection that could not be
// taken: the process may be out of descriptors.
const errorPause = 50 * time.Millisecond

func pause(ctx context.Context) {
	timer := time.NewTimer(errorPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// converse answers the questions of one connection, one at a time, until either
// side has enough or a client is too slow.
func (s *Server) converse(ctx context.Context, conn net.Conn) {
	s.metrics.connections.Inc()
	defer s.metrics.connections.Dec()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		stop()
		_ = conn.Close() // it may be closed already
	}()
	buf := make([]byte, maxQuestion)
	for {
		question, err := receive(conn, buf)
		if err != nil {
			return
		}
		reply := s.responder.reply(question, tcp, time.Now())
		if reply == nil || send(conn, reply) != nil {
			return
		}
	}
}

var errTooLong = errors.New("question is too long")

// receive reads one message with its length before it.
func receive(conn net.Conn, buf []byte) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(idleTime)); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(conn, buf[:2]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	if n > len(buf) {
		return nil, errTooLong
	}
	_, err := io.ReadFull(conn, buf[:n])
	return buf[:n], err
}

// send writes one message with its length before it.
func send(conn net.Conn, message []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}
