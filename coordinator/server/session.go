package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// outboxSize is how many messages may wait for one agent. An agent that lets
	// so many wait is not reading.
	outboxSize = 256
	// lingerTime is how long an ended session may take to send what it has.
	lingerTime = time.Second
	// digestInterval is how often agents send everything they see.
	digestInterval = 5 * time.Second
)

// session is one agent's stream as the pool's host sees it: a place to put
// messages that never blocks. It is safe for concurrent use.
type session struct {
	id    pool.SessionID
	epoch member.Epoch
	// spawn has a writer run: there is one only while there is something to send.
	spawn func(write func())
	send  func(any) error
	// box is what the agent has said and the machine has not heard.
	box box

	mu sync.Mutex
	// outbox waits to be sent, messages and encoded ones; unsent counts that and what
	// the writer has.
	outbox []any
	unsent int
	// writing says that there is a writer, closed that nothing more is sent. idle, nil
	// unless somebody waits for that, closes when the writer has ended.
	writing, closed bool
	idle            chan struct{}

	// late ends the session unless what is expected next comes in time; nil when
	// nothing is.
	late *time.Timer

	// welcomed says that the machine has accepted the agent.
	welcomed atomic.Bool
	over     *ending
}

// newSession returns a session whose messages go to send, on goroutines that spawn
// starts.
func newSession(id pool.SessionID, epoch member.Epoch, spawn func(func()), send func(any) error) *session {
	return &session{
		id: id, epoch: epoch, spawn: spawn, send: send, over: newEnding(),
	}
}

// expect ends the session for a reason after a time, unless something else is
// expected by then; without a reason nothing is.
func (s *session) expect(within time.Duration, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late != nil {
		s.late.Stop()
		s.late = nil
	}
	if why != nil && !s.closed {
		s.late = time.AfterFunc(within, func() { s.over.end(why) })
	}
}

// errOverflow ends the session of an agent that does not read.
var errOverflow = fmt.Errorf("%w: more than %d messages wait for this agent", member.ErrExhausted, outboxSize)

// put queues a message. Messages leave in the order in which they were put;
// when too many wait, the session ends.
func (s *session) put(m *pb.SessionResponse) {
	m.Epoch = uint64(s.epoch)
	if s.queue(m) {
		s.spawn(s.write)
	}
}

// queue takes a message and reports whether the caller has to see to a writer.
func (s *session) queue(m any) (idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return false
	case s.unsent == outboxSize:
		s.over.end(errOverflow)
		return false
	}
	s.outbox = append(s.outbox, m)
	s.unsent++
	idle, s.writing = !s.writing, true
	return idle
}

// write sends what is put until nothing is left. It does not end the session when
// sending fails: the reader sees why.
func (s *session) write() {
	for batch := s.take(0); batch != nil; batch = s.take(len(batch)) {
		for _, m := range batch {
			if s.send(m) != nil {
				s.close()
				break
			}
		}
	}
}

// take returns what the writer is to send next, once it has sent so many; with
// nothing left the writer ends.
func (s *session) take(sent int) []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsent -= sent
	batch := s.outbox
	s.outbox = nil
	if batch != nil {
		return batch
	}
	s.writing = false
	if s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
	return nil
}

// close drops what waits, and all that comes.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.outbox = true, nil
}

// flushed lets nothing more be put, and returns what closes when all has been sent;
// nil if it has.
func (s *session) flushed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.writing && s.idle == nil {
		s.idle = make(chan struct{})
	}
	return s.idle
}

// linger lets what was put before the end leave, unless that takes too long or
// the agent has gone.
func (s *session) linger(ctx context.Context) {
	unsent := s.flushed()
	if unsent == nil {
		return
	}
	late := time.NewTimer(lingerTime)
	defer late.Stop()
	select {
	case <-unsent:
	case <-late.C:
	case <-ctx.Done():
	}
}

// What the machine says to an agent, as messages.

func (s *session) welcome(w pool.Welcome, storeID string, coordinators []string) {
	s.put(&pb.SessionResponse{Message: &pb.SessionResponse_Welcome{Welcome: &pb.Welcome{
		Incarnation:     uint64(w.Incarnation),
		Phase:           toPhase(w.Phase),
		StoreId:         storeID,
		ReconnectSpread: durationpb.New(reconnectSpread(w.Members)),
		DigestInterval:  durationpb.New(digestInterval),
		Resumed:         &w.Resumed,
		Coordinators:    coordinators,
		Assignment:      toAssignment(w.Assignment),
		Standing:        toStanding(w.Standing),
	}}})
	s.welcomed.Store(true)
	s.expect(0, nil)
}

// reconnectSpread keeps the agents of a pool from all coming back at once.
func reconnectSpread(members int) time.Duration {
	return max(time.Second, time.Duration(members)*time.Millisecond)
}

func (s *session) assign(a pool.Assignment) {
	s.put(&pb.SessionResponse{Message: &pb.SessionResponse_Assignment{Assignment: toAssignment(a)}})
}

func (s *session) ask(a pool.Ask) {
	s.put(&pb.SessionResponse{Message: &pb.SessionResponse_Question{Question: &pb.Question{
		Round:            a.Round,
		Subject:          toSubject(a.Subject),
		Probes:           toCount(a.Probes),
		Over:             durationpb.New(a.Over),
		ProbeTimeout:     durationpb.New(a.Timeout),
		ConnectAddresses: a.Connect,
		Exhaustive:       a.Exhaustive,
	}}})
}

func (s *session) challenge(nonce uint64) {
	s.put(&pb.SessionResponse{Message: &pb.SessionResponse_Challenge{Challenge: &pb.Challenge{Nonce: nonce}}})
}

// acknowledge confirms a digest. Before the Welcome nothing may be sent. It is
// called on the goroutine that reads, which sends by itself unless another one is
// about it: an agent that takes nothing need not be listened to.
func (s *session) acknowledge(seq uint64) {
	if s.welcomed.Load() && s.queue(rpc.NewEncoded(encodeDigestAck(s.epoch, seq))) {
		s.write()
	}
}

func (s *session) stand(standing pool.Standing) {
	s.put(&pb.SessionResponse{Message: &pb.SessionResponse_Standing{Standing: toStanding(standing)}})
}

func toStanding(s pool.Standing) *pb.Standing {
	return &pb.Standing{Drained: &s.Drained, Actor: s.Actor, Reason: s.Reason}
}

func (s *session) left(l pool.LeaveDone) {
	state := pb.DrainState_DRAIN_STATE_UNSPECIFIED
	if l.Drained {
		state = toDrainState(l.Missing)
	}
	s.put(&pb.SessionResponse{Message: &pb.SessionResponse_LeaveResult{LeaveResult: &pb.LeaveResult{
		Left: &l.Left, Text: l.Text, Drain: state, Missing: toLags(l.Missing),
	}}})
}
