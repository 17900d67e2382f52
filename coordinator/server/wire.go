package server

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// heard is an agent's message after its Hello.
type heard struct {
	// input is nil for a kind that this version does not know.
	input pool.Input
	// digest is the number of a digest, which is acknowledged also if it is 0.
	digest   uint64
	isDigest bool
}

// decode decodes and parses an agent's message. What agents say all the time is
// decoded here, without the messages in between and with a small part of the
// stack: each of thousands of streams keeps the stack that it once needed. All
// else, and whatever is wrong or unusual, is left to the packages for that. known
// are the agent's own.
func decode(id pool.SessionID, raw []byte, known *names) (heard, error) {
	if h, ok := quick(id, raw, known); ok {
		return h, nil
	}
	req := &pb.SessionRequest{}
	if err := proto.Unmarshal(raw, req); err != nil {
		return heard{}, member.Invalid("message", "is not a SessionRequest")
	}
	in, err := parseMessage(id, req)
	return heard{input: in, digest: req.GetDigest().GetSeq(), isDigest: req.GetDigest() != nil}, err
}

// usualSubjects is how many servers an agent watches where nothing is wrong.
const usualSubjects = 2

// The fields of the messages that are decoded and encoded here.
const (
	requestReport, requestDigest, requestAssignmentAck = 2, 3, 6
	responseEpoch, responseDigestAck                   = 1, 6
	ackSeq                                             = 1

	digestSeq, digestSubjects, digestSelfScore, digestHealth                   = 1, 2, 3, 4
	healthIncarnation, healthState                                             = 1, 2
	subjectID, subjectIncarnation, subjectEvidence, subjectJitter, subjectLost = 1, 2, 3, 4, 5
	reportID, reportIncarnation, reportEvidence, reportLost                    = 1, 2, 3, 4

	evidenceSight, evidenceSent, evidenceLost, evidenceRTT, evidenceFirstLost, evidenceLastReply, evidenceConnect = 1, 2, 3, 4, 5, 6, 8

	durationSeconds, durationNanos = 1, 2
)

// quick decodes a report, a digest or an acknowledgement as the usual encoders
// write them: fields in order, none twice but for those that repeat. It is false
// for all that it does not know or that is not in order.
func quick(id pool.SessionID, raw []byte, known *names) (h heard, ok bool) {
	f := fields{rest: raw}
	if !f.next() || len(f.rest) > 0 || !f.isBytes {
		return heard{}, false
	}
	switch int32(f.number) {
	case requestReport:
		h.input, ok = quickReport(id, f.bytes, known)
	case requestDigest:
		h.isDigest = true
		h.input, h.digest, ok = quickDigest(id, f.bytes, known)
	case requestAssignmentAck:
		h.input, ok = quickAssignmentAck(id, f.bytes)
	}
	return h, ok
}

func quickAssignmentAck(id pool.SessionID, raw []byte) (in pool.Input, ok bool) {
	f, ack := fields{rest: raw}, pool.AssignmentAck{Session: id}
	for f.next() {
		if f.number != ackSeq || f.isBytes {
			return nil, false
		}
		ack.Seq = f.value
	}
	return ack, f.fine()
}

func quickReport(id pool.SessionID, raw []byte, known *names) (in pool.Input, ok bool) {
	f, r := fields{rest: raw}, pool.Report{Session: id}
	for ok = true; ok && f.next(); {
		switch {
		case f.number == reportID && f.isBytes:
			r.Subject, ok = known.read(f.bytes)
		case f.number == reportIncarnation && !f.isBytes:
			r.Incarnation = member.Incarnation(f.value)
		case f.number == reportEvidence && f.isBytes:
			r.Evidence, ok = quickEvidence(f.bytes)
		case f.number == reportLost && !f.isBytes && f.value <= 10:
			r.LostOfTen = int(f.value)
		default:
			ok = false
		}
	}
	return r, ok && f.fine() && r.Subject != "" && r.Incarnation != 0 && r.Evidence.Sight != 0
}

func quickDigest(id pool.SessionID, raw []byte, known *names) (in pool.Input, seq uint64, ok bool) {
	f, d := fields{rest: raw, repeated: digestSubjects}, pool.Digest{Session: id}
	for ok = true; ok && f.next(); {
		switch {
		case f.number == digestSeq && !f.isBytes:
			seq = f.value
		case f.number == digestSubjects && f.isBytes && len(d.Subjects) < maxSubjects:
			if d.Subjects == nil {
				d.Subjects = make([]pool.SubjectDigest, 0, usualSubjects)
			}
			var s pool.SubjectDigest
			s, ok = quickSubject(f.bytes, known)
			d.Subjects = append(d.Subjects, s)
		case f.number == digestSelfScore && !f.isBytes && f.value <= math.MaxInt32:
			d.SelfScore = int(f.value)
		case f.number == digestHealth && f.isBytes:
			d.Health, ok = quickHealth(id, f.bytes)
		default:
			ok = false
		}
	}
	return d, seq, ok && f.fine()
}

// quickHealth decodes what there is to say of a service that is well.
func quickHealth(id pool.SessionID, raw []byte) (h *pool.ServiceHealth, ok bool) {
	f := fields{rest: raw}
	h = &pool.ServiceHealth{Session: id}
	for ok = true; ok && f.next(); {
		switch {
		case f.number == healthIncarnation && !f.isBytes:
			h.Incarnation = member.Incarnation(f.value)
		case f.number == healthState && !f.isBytes:
			ok = f.value == uint64(pb.ServiceState_SERVICE_STATE_UP)
		default:
			ok = false
		}
	}
	return h, ok && f.fine() && h.Incarnation != 0 && f.number == healthState
}

func quickSubject(raw []byte, known *names) (s pool.SubjectDigest, ok bool) {
	f := fields{rest: raw}
	for ok = true; ok && f.next(); {
		switch {
		case f.number == subjectID && f.isBytes:
			s.Subject, ok = known.read(f.bytes)
		case f.number == subjectIncarnation && !f.isBytes:
			s.Incarnation = member.Incarnation(f.value)
		case f.number == subjectEvidence && f.isBytes:
			s.Evidence, ok = quickEvidence(f.bytes)
		case f.number == subjectJitter && f.isBytes:
			_, ok = quickDuration(f.bytes)
		case f.number == subjectLost && !f.isBytes && f.value <= 10:
			s.LostOfTen = int(f.value)
		default:
			ok = false
		}
	}
	return s, ok && f.fine() && s.Subject != "" && s.Incarnation != 0 && s.Evidence.Sight != 0
}

// names are the servers of which an agent has spoken last: it speaks of the same
// ones all the time, and their names are neither checked nor kept anew each time.
type names [usualSubjects]member.ID

func (n *names) read(raw []byte) (id member.ID, ok bool) {
	for _, id := range n {
		if id != "" && string(id) == string(raw) {
			return id, true
		}
	}
	id, err := member.ParseID("", string(raw))
	if err != nil {
		return "", false
	}
	copy(n[:], n[1:])
	n[len(n)-1] = id
	return id, true
}

func quickEvidence(raw []byte) (e pool.Evidence, ok bool) {
	f := fields{rest: raw}
	for ok = true; ok && f.next(); {
		switch {
		case f.number == evidenceSight && !f.isBytes && f.value <= math.MaxInt32:
			sight, err := parseSight("", pb.Sight(f.value))
			e.Sight, ok = sight, err == nil
		case f.number == evidenceSent && !f.isBytes && f.value <= maxSent:
			e.Sent = int(f.value)
		case f.number == evidenceLost && !f.isBytes && f.value <= maxSent:
			e.Lost = int(f.value)
		case f.number == evidenceRTT && f.isBytes:
			e.RTT, ok = quickAge(f.bytes)
		case f.number == evidenceFirstLost && f.isBytes:
			e.FirstLostAge, ok = quickAge(f.bytes)
		case f.number == evidenceLastReply && f.isBytes:
			e.LastReplyAge, ok = quickAge(f.bytes)
		case f.number == evidenceConnect && !f.isBytes && f.value <= math.MaxInt32:
			e.Connect = parseConnect(pb.Connect(f.value))
		default:
			ok = false
		}
	}
	return e, ok && f.fine() && e.Lost <= e.Sent
}

// quickAge is parseAge of one that is set.
func quickAge(raw []byte) (time.Duration, bool) {
	d, ok := quickDuration(raw)
	return max(d, 1), ok
}

// quickDuration decodes durations of up to an hour, and no negative ones.
func quickDuration(raw []byte) (d time.Duration, ok bool) {
	f := fields{rest: raw}
	for f.next() {
		switch {
		case f.number == durationSeconds && !f.isBytes && f.value <= uint64(time.Hour/time.Second):
			d += time.Duration(f.value) * time.Second
		case f.number == durationNanos && !f.isBytes && f.value < uint64(time.Second):
			d += time.Duration(f.value)
		default:
			return 0, false
		}
	}
	return d, f.fine()
}

// fields goes through the fields of a message, which are numbers or bytes, in the
// order of their numbers.
type fields struct {
	rest []byte
	// repeated is the one that may come several times, 0 for none.
	repeated protowire.Number

	// number is that of the present field, and what it holds.
	number  protowire.Number
	isBytes bool
	value   uint64
	bytes   []byte
	broken  bool
}

// next goes to the next field; it is false at the end, or where something is out
// of order.
func (f *fields) next() bool {
	if len(f.rest) == 0 {
		return false
	}
	number, kind, n := protowire.ConsumeTag(f.rest)
	if f.broken = n < 0 || number < f.number || number == f.number && number != f.repeated; f.broken {
		return false
	}
	f.number, f.rest = number, f.rest[n:]
	switch kind {
	case protowire.VarintType:
		f.isBytes, f.bytes = false, nil
		f.value, n = protowire.ConsumeVarint(f.rest)
	case protowire.BytesType:
		f.isBytes, f.value = true, 0
		f.bytes, n = protowire.ConsumeBytes(f.rest)
	case protowire.Fixed32Type, protowire.Fixed64Type, protowire.StartGroupType, protowire.EndGroupType:
		n = -1
	default:
		n = -1
	}
	if f.broken = n < 0; f.broken {
		return false
	}
	f.rest = f.rest[n:]
	return true
}

// fine reports whether all fields were gone through.
func (f *fields) fine() bool { return !f.broken && len(f.rest) == 0 }

// encodeDigestAck encodes the SessionResponse that acknowledges a digest.
func encodeDigestAck(epoch member.Epoch, seq uint64) []byte {
	b := make([]byte, 0, 32)
	b = protowire.AppendVarint(protowire.AppendTag(b, responseEpoch, protowire.VarintType), uint64(epoch))
	b = protowire.AppendTag(b, responseDigestAck, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(protowire.SizeTag(ackSeq)+protowire.SizeVarint(seq)))
	return protowire.AppendVarint(protowire.AppendTag(b, ackSeq, protowire.VarintType), seq)
}
