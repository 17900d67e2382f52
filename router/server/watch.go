package server

import (
	"fmt"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

const (
	// bookmarkEvery is how often a watcher hears that nothing has changed.
	bookmarkEvery = time.Second
	// sendLimit is how long one message may wait for its watcher to read.
	sendLimit = 5 * time.Second
	// senderIdle is how long a goroutine waits for another message to send.
	senderIdle = 5 * time.Second
)

// Watch streams a pool. Nothing is queued: a watcher that was busy gets, in one
// message, what has changed since the last one it was sent.
func (s *service) Watch(req *routerv1.WatchRequest, stream routerv1.RouterService_WatchServer) error {
	e, err := s.pools.find(req.GetPool())
	if err != nil {
		return err
	}
	s.metrics.watchers.Inc()
	defer s.metrics.watchers.Dec()
	w, err := s.audience.join(e.pool, rpc.Source(stream.Context()))
	if err != nil {
		return err
	}
	defer s.audience.leave(w)
	// Who has not joined is not waited for, so that what is sent must not be older
	// than that.
	if e, err = s.pools.find(string(e.pool)); err != nil {
		return err
	}
	tick := time.NewTicker(bookmarkEvery)
	defer tick.Stop()
	p := newPush(stream, w)
	defer p.limit.Stop()

	var has uint64
	if r := req.GetResume(); r != nil && (r.GetRun() == "" || r.GetRun() == e.run) {
		has = e.resume(r.GetStoreId(), member.Position{
			Epoch: member.Epoch(r.GetEpoch()), Revision: member.Revision(r.GetRevision()),
		})
	}
	for {
		if err := s.push(p, e, has); err != nil {
			return err
		}
		has = e.seq
		s.audience.tell(w, has)
		select {
		case <-e.superseded:
		case <-tick.C:
		case <-w.dropped:
			return s.slow(e.pool, settleLimit)
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.closing:
			return closedError()
		}
		if e, err = s.pools.find(string(e.pool)); err != nil {
			return err
		}
	}
}

// push is how a watcher is sent one message after the other.
type push struct {
	stream  routerv1.RouterService_WatchServer
	watcher *watcher
	// sent gets the outcome of the message under way.
	sent  chan error
	limit *time.Timer
}

func newPush(stream routerv1.RouterService_WatchServer, w *watcher) *push {
	return &push{stream: stream, watcher: w, sent: make(chan error, 1), limit: time.NewTimer(sendLimit)}
}

// push sends a watcher what it needs to have an edition, given the seq of the one
// that it has.
func (s *service) push(p *push, e *edition, has uint64) error {
	msg, err := e.message(has, time.Now())
	if err != nil {
		return err
	}
	p.limit.Reset(sendLimit)
	s.senders.send(sending{p.stream, msg, p.sent}, s.closing)
	select {
	case err := <-p.sent:
		return err
	case <-p.watcher.dropped:
		return s.slow(e.pool, settleLimit)
	case <-p.limit.C:
		return s.slow(e.pool, sendLimit)
	}
}

// slow drops a watcher.
func (s *service) slow(pool member.Pool, limit time.Duration) error {
	s.metrics.watchersSlow.Inc()
	return fmt.Errorf("watch pool %q: %w: a message was not read for %v", pool, member.ErrExhausted, limit)
}

// senders make the sends. A send to a client that does not read blocks until its
// stream ends, and the stream ends when its handler returns: so sends are not in
// the handler. A sender waits for another message when it is done, for the stack
// that gRPC needs takes longer to grow than a message to send.
type senders struct {
	running sync.WaitGroup
	next    chan sending
}

// sending is a message for a watcher.
type sending struct {
	stream routerv1.RouterService_WatchServer
	msg    *rpc.Encoded
	// sent gets the outcome.
	sent chan<- error
}

// send has a message sent by a sender that is free, or by a new one.
func (s *senders) send(m sending, closing <-chan struct{}) {
	select {
	case s.next <- m:
	default:
		s.running.Go(func() { s.run(m, closing) })
	}
}

func (s *senders) run(m sending, closing <-chan struct{}) {
	idle := time.NewTimer(senderIdle)
	defer idle.Stop()
	for {
		m.sent <- m.stream.SendMsg(m.msg)
		idle.Reset(senderIdle)
		select {
		case m = <-s.next:
		case <-idle.C:
			return
		case <-closing:
			return
		}
	}
}
