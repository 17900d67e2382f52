package server

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
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
	id     pool.SessionID
	epoch  member.Epoch
	outbox chan *pb.SessionResponse
	// greeted ends when the Hello was handed to a machine, welcomed when the
	// machine has accepted it.
	greeted, welcomed *ending
	over              *ending
}

func newSession(id pool.SessionID, epoch member.Epoch) *session {
	return &session{
		id: id, epoch: epoch, outbox: make(chan *pb.SessionResponse, outboxSize),
		greeted: newEnding(), welcomed: newEnding(), over: newEnding(),
	}
}

// errOverflow ends the session of an agent that does not read.
var errOverflow = fmt.Errorf("%w: more than %d messages wait for this agent", member.ErrExhausted, outboxSize)

// put queues a message. Messages leave in the order in which they were put;
// when the outbox is full, the session ends.
func (s *session) put(m *pb.SessionResponse) {
	m.Epoch = uint64(s.epoch)
	select {
	case s.outbox <- m:
	default:
		s.over.end(errOverflow)
	}
}

// write sends what is put until the session is over, and then what is left. It
// does not end the session when sending fails: the reader sees why.
func (s *session) write(send func(*pb.SessionResponse) error) {
	for {
		select {
		case m := <-s.outbox:
			if send(m) != nil {
				return
			}
		case <-s.over.done():
			s.flush(send)
			return
		}
	}
}

func (s *session) flush(send func(*pb.SessionResponse) error) {
	for {
		select {
		case m := <-s.outbox:
			if send(m) != nil {
				return
			}
		default:
			return
		}
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
	s.welcomed.end(nil)
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

// acknowledge confirms a digest. Before the Welcome nothing may be sent.
func (s *session) acknowledge(seq uint64) {
	if s.welcomed.ended() {
		s.put(&pb.SessionResponse{Message: &pb.SessionResponse_DigestAck{DigestAck: &pb.DigestAck{Seq: seq}}})
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
