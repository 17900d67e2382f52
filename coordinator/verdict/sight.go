// Package verdict turns evidence into verdicts: the book-keeping of a
// confirmation round, the table that says what its answers come to, and how
// long a server that came back is held.
//
// It never removes anybody: it says what the evidence supports, and the pool
// machine acts. It is pure and not safe for concurrent use.
package verdict

import "time"

// Sight is what an observer sees of a subject.
type Sight uint8

// The sights.
const (
	SightUnknown Sight = iota
	SightUp
	SightDown
	SightCannotJudge
)

// String returns up, down, cannot_judge or unknown.
func (s Sight) String() string {
	switch s {
	case SightUp:
		return "up"
	case SightDown:
		return "down"
	case SightCannotJudge:
		return "cannot_judge"
	case SightUnknown:
	}
	return "unknown"
}

// Evidence is what stands behind a sight. Ages count back from its arrival.
type Evidence struct {
	Sight Sight
	// Sent and Lost count probes.
	Sent, Lost int
	// RTT is the last reply's round trip, 0 when there was none.
	RTT time.Duration
	// FirstLostAge is how long ago the first of the present run of lost probes
	// was sent, 0 when the last probe was answered.
	FirstLostAge time.Duration
	// LastReplyAge is how long ago the last reply came, 0 when there was none.
	LastReplyAge time.Duration
	// Trouble says why it cannot judge.
	Trouble string
	// Connect is what became of the TCP connects that a round asked for.
	Connect Connect
}

// Connect is the outcome of TCP connects to a subject.
type Connect uint8

// The outcomes. ConnectNone was not tried or proves nothing.
const (
	ConnectNone Connect = iota
	// ConnectAnswered: a SYN-ACK or RST came back; its kernel is alive.
	ConnectAnswered
	ConnectUnanswered
)
