package chaos

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// look reports the subjects that have died, and those that are back.
func (c *conversation) look() {
	for id, s := range c.subjects {
		_, dead := c.mortality.since(id)
		if dead == s.missed {
			continue
		}
		s.missed = dead
		c.send(&pb.SessionRequest{Message: &pb.SessionRequest_Report{Report: &pb.Report{
			ServerId: id, Incarnation: s.incarnation, Evidence: c.sight(id),
		}}})
	}
}

// answer says what there is to say to a message.
func (c *conversation) answer(m *pb.SessionResponse) {
	switch m := m.GetMessage().(type) {
	case *pb.SessionResponse_Welcome:
		c.obey(m.Welcome.GetAssignment())
	case *pb.SessionResponse_Assignment:
		c.obey(m.Assignment)
	case *pb.SessionResponse_Challenge:
		c.send(&pb.SessionRequest{Message: &pb.SessionRequest_Echo{Echo: &pb.Echo{Nonce: m.Challenge.GetNonce()}}})
	case *pb.SessionResponse_Question:
		id := m.Question.GetSubject().GetServerId()
		if _, dead := c.mortality.since(id); !dead {
			c.verdict(m.Question, true)
			return
		}
		// A server is missed when the last probe has no answer either.
		c.verdict(m.Question, false)
		time.AfterFunc(m.Question.GetOver().AsDuration()+probeTime, func() {
			select {
			case c.probed <- m.Question:
			case <-c.stream.Context().Done():
			}
		})
	}
}

// verdict answers a question with what is seen now.
func (c *conversation) verdict(q *pb.Question, final bool) {
	id := q.GetSubject().GetServerId()
	c.send(&pb.SessionRequest{Message: &pb.SessionRequest_Answer{Answer: &pb.Answer{
		Round: q.GetRound(), ServerId: id, Incarnation: q.GetSubject().GetIncarnation(), Evidence: c.sight(id), Final: &final,
	}}})
}

// obey acknowledges an assignment and reports on all its subjects.
func (c *conversation) obey(as *pb.Assignment) {
	c.send(&pb.SessionRequest{Message: &pb.SessionRequest_AssignmentAck{AssignmentAck: &pb.AssignmentAck{Seq: as.GetSeq()}}})
	c.subjects = map[string]*subject{}
	for _, s := range as.GetSubjects() {
		// Nothing has been reported: look does, for the dead and for those that live.
		_, dead := c.mortality.since(s.GetServerId())
		c.subjects[s.GetServerId()] = &subject{s.GetIncarnation(), !dead}
	}
	c.look()
}

// sight is what the agent sees of a server.
func (c *conversation) sight(id string) *pb.Evidence {
	begin, dead := c.mortality.since(id)
	if !dead {
		return &pb.Evidence{
			Sight: pb.Sight_SIGHT_UP, Sent: 1, Rtt: durationpb.New(300 * time.Microsecond), LastReplyAge: durationpb.New(0),
		}
	}
	age := durationpb.New(time.Since(begin))
	return &pb.Evidence{
		Sight: pb.Sight_SIGHT_DOWN, Sent: 30, Lost: 30, FirstLostAge: age, LastReplyAge: age,
	}
}
