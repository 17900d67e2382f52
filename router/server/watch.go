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
	w, err := s.audience.join(e.pool)
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

	var has uint64
	if r := req.GetResume(); r != nil {
		has = e.resume(r.GetStoreId(), member.Position{
			Epoch: member.Epoch(r.GetEpoch()), Revision: member.Revision(r.GetRevision()),
		})
	}
	for {
		if err := s.push(stream, push{e: e, has: has, dropped: w.dropped}); err != nil {
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

// push is what a watcher is to be sent.
type push struct {
	e *edition
	// has is the seq of the edition that it has.
	has     uint64
	dropped <-chan struct{}
}

// push sends a watcher what it needs to have an edition.
func (s *service) push(stream routerv1.RouterService_WatchServer, p push) error {
	msg, err := p.e.message(p.has, time.Now())
	if err != nil {
		return err
	}
	limit := time.NewTimer(sendLimit)
	defer limit.Stop()
	select {
	case err := <-s.senders.send(stream, msg):
		return err
	case <-p.dropped:
		return s.slow(p.e.pool, settleLimit)
	case <-limit.C:
		return s.slow(p.e.pool, sendLimit)
	}
}

// slow drops a watcher.
func (s *service) slow(pool member.Pool, limit time.Duration) error {
	s.metrics.watchersSlow.Inc()
	return fmt.Errorf("watch pool %q: %w: a message was not read for %v", pool, member.ErrExhausted, limit)
}

// senders are the sends under way. A send to a client that does not read blocks
// until its stream ends, and the stream ends when its handler returns: so sends
// are not in the handler.
type senders struct {
	running sync.WaitGroup
}

func (s *senders) send(stream routerv1.RouterService_WatchServer, msg *rpc.Encoded) <-chan error {
	sent := make(chan error, 1)
	s.running.Go(func() { sent <- stream.SendMsg(msg) })
	return sent
}
