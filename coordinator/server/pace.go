package server

import (
	"slices"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// snapshotsAtOnce paces the snapshots of all subscribers, who share the bytes of
	// one, so that everybody else is served meanwhile. One that takes longer than
	// snapshotTime waits for its network, and keeps nobody from anything.
	snapshotsAtOnce = 5
	snapshotTime    = time.Second / 4
)

// compacted tells that a resume point is of another history, or too old, and
// sends a snapshot.
func (s *subscription) compacted(h *history, otherHistory bool) error {
	s.service.metrics.compactions.Inc()
	err := s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_Compacted{
		Compacted: &pb.Compacted{Pool: string(h.name), OtherHistory: &otherHistory},
	}})
	if err != nil {
		return err
	}
	return s.snapshot(h)
}

// snapshot sends a whole pool when it is this subscriber's turn, which lasts until
// the message after it.
func (s *subscription) snapshot(h *history) error {
	s.leavePlace()
	if turn, err := s.waitForPlace(); !turn || err != nil {
		return err
	}
	leave := sync.OnceFunc(s.service.snapshots.leave)
	late := time.AfterFunc(snapshotTime, leave)
	snapshot := h.snapshot()
	first, err := s.deliver(snapshot)
	s.giveUp = func() {
		late.Stop()
		leave()
	}
	if first {
		s.service.metrics.snapshots.Inc()
	}
	s.cursors[h.name] = member.Position{Epoch: s.service.lead.epoch, Revision: snapshot.leads.Revision}
	return err
}

// waitForPlace waits for this subscriber's turn; it is false when the stream is over.
// Whenever a bookmark is due, an empty SoftMarks says instead that the coordinator
// is there: a router that heard nothing would take it for lost and go to the next
// one, where it would wait anew. A bookmark would say that it has all pools.
func (s *subscription) waitForPlace() (mine bool, err error) {
	places := s.service.snapshots
	turn := places.join()
	defer func() {
		if !mine {
			places.giveUp(turn)
		}
	}()
	due := time.NewTicker(bookmarkInterval)
	defer due.Stop()
	for {
		select {
		case <-turn:
			return true, nil
		case <-due.C:
			err := s.send(&pb.SubscribeResponse{Message: &pb.SubscribeResponse_SoftMarks{
				SoftMarks: &pb.SoftMarks{Epoch: uint64(s.service.lead.epoch)},
			}})
			if err != nil {
				return false, err
			}
		case <-s.over.done():
			return false, nil
		}
	}
}

// leavePlace lets the next subscriber have its snapshot, if this one has had its
// own.
func (s *subscription) leavePlace() {
	if s.giveUp != nil {
		s.giveUp()
		s.giveUp = nil
	}
}

// line lets in so many at a time, first come, first served. It is safe for
// concurrent use.
type line struct {
	mu      sync.Mutex
	free    int
	waiting []chan struct{}
}

func newLine(places int) *line { return &line{free: places} }

// join queues up. What it returns is closed when it is one's turn, which lasts until
// leave.
func (l *line) join() (turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	turn = make(chan struct{})
	if l.free > 0 {
		l.free--
		close(turn)
	} else {
		l.waiting = append(l.waiting, turn)
	}
	return turn
}

// leave lets the next one in.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.free++
		return
	}
	close(l.waiting[0])
	l.waiting = l.waiting[1:]
}

// giveUp does not wait any longer, or leaves if it was one's turn already.
func (l *line) giveUp(turn chan struct{}) {
	l.mu.Lock()
	before := len(l.waiting)
	l.waiting = slices.DeleteFunc(l.waiting, func(other chan struct{}) bool { return other == turn })
	called := len(l.waiting) == before
	l.mu.Unlock()
	if called {
		l.leave()
	}
}
