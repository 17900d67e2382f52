package pool

import (
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Effect is something to be done by the host. The types below are all there
// are.
type Effect interface{ effect() }

// Propose asks to commit a change. There is at most one under way.
type Propose struct {
	Change member.Change
	// Until is set where a removal rests on evidence, which may be gone by then: the
	// change is not to be tried later, nor ever again once its outcome is unknown.
	Until time.Time
}

// Welcome accepts a session; the membership is durable.
type Welcome struct {
	Session     SessionID
	Incarnation member.Incarnation
	Phase       member.Phase
	Resumed     bool
	// Members is the size of the pool, for the reconnect spread.
	Members    int
	Assignment Assignment
	Standing   Standing
}

// Standing is what an operator's wish means to a member.
type Standing struct {
	// Drained says that it gets no new work until an operator resumes it; Actor and
	// Reason who has said so and why.
	Drained       bool
	Actor, Reason string
}

// Stand tells a member's stream that its standing has changed.
type Stand struct {
	Session  SessionID
	Standing Standing
}

// Refuse ends a session with an error of package member.
type Refuse struct {
	Session SessionID
	Err     error
}

// Assign tells an agent whom to watch.
type Assign struct {
	Session    SessionID
	Assignment Assignment
}

// Ask asks an agent to probe a server for a round.
type Ask struct {
	Session SessionID
	Round   uint64
	Subject Subject
	Probes  int
	// Over is the time from the first probe to the last.
	Over    time.Duration
	Timeout time.Duration
	// Connect lists HOST:PORT to connect to by TCP once the first probe is lost.
	Connect []string
	// Exhaustive asks to send all probes and to count the lost ones.
	Exhaustive bool
}

// Challenge asks an agent for an Echo.
type Challenge struct {
	Session SessionID
	Nonce   uint64
}

// Dial asks the host to try TCP connects to all addresses (HOST:PORT) at once
// and to say whether any answered within the time-out. The answer is Dialed.
type Dial struct {
	Round     uint64
	Addresses []string
	Timeout   time.Duration
}

// LeaveDone answers a Leave.
type LeaveDone struct {
	Session SessionID
	Left    bool
	Text    string
	// Drained says that the routers were awaited, Missing which of them have not
	// confirmed.
	Drained bool
	Missing []Lag
}

// AwaitRouters asks to be told when every router has confirmed a revision, or
// which ones have not at the time Until. The answer is Drained.
type AwaitRouters struct {
	ID          member.ID
	Incarnation member.Incarnation
	Revision    member.Revision
	Until       time.Time
}

// Reply answers a Call.
type Reply struct {
	Token Token
	// Revision is the one at which the call took effect, or the present one for
	// ValidateOnly.
	Revision member.Revision
	Err      error
	// Repairs are what a RepairRing has done, or would do; none for one that is
	// repeated.
	Repairs []Repair
}

// Publish says that a change is durable: tell subscribers and event watchers.
type Publish struct{ Change member.Change }

// PublishMark says that soft state has changed.
type PublishMark struct{ Mark member.Mark }

// Raise raises an alarm; Clear ends it.
type Raise struct{ Alarm member.Alarm }

// Clear ends an alarm.
type Clear struct{ Key member.AlarmKey }

// Count adds one to a counter; see the constants.
type Count struct{ What Counter }

// Counter names a counter.
type Counter uint8

// The counters.
const (
	// CountContradicted: a removed server proved alive with the same boot id.
	CountContradicted Counter = iota
	// CountRound: a round was opened.
	CountRound
	// CountNotRemoved: a round ended without a removal.
	CountNotRemoved
	// CountDropped: a report, answer or echo was not asked for, late, or of an
	// old incarnation.
	CountDropped
	// CountBraked: a verdict that supported a removal was held by brake or floor.
	CountBraked
)

// Removed tells how long a removal by verdict took, for the histogram.
type Removed struct {
	Cause member.Cause
	// Detection is the time from the first lost probe to Committed.
	Detection time.Duration
}

// SetTimer asks for a Tick no later than At. It replaces the one before; a zero
// At asks for none.
type SetTimer struct{ At time.Time }

func (Propose) effect()      {}
func (Welcome) effect()      {}
func (Stand) effect()        {}
func (Refuse) effect()       {}
func (Assign) effect()       {}
func (Ask) effect()          {}
func (Challenge) effect()    {}
func (Dial) effect()         {}
func (LeaveDone) effect()    {}
func (AwaitRouters) effect() {}
func (Reply) effect()        {}
func (Publish) effect()      {}
func (PublishMark) effect()  {}
func (Raise) effect()        {}
func (Clear) effect()        {}
func (Count) effect()        {}
func (Removed) effect()      {}
func (SetTimer) effect()     {}
