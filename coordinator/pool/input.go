package pool

import (
	"net/netip"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// Input is something that happened. The types below are all there are.
type Input interface{ input() }

// SessionID names one stream of an agent; the host never uses one twice.
type SessionID uint64

// Token names one waiting caller; the host never uses one twice.
type Token uint64

// Hello opens a session. The host has checked the fields and that the peer may
// speak for ID. The answer is Welcome or Refuse.
type Hello struct {
	Session    SessionID
	ID         member.ID
	Spec       member.Spec
	BootID     string
	InstanceID string
	// Incarnation is the one in the agent's state directory, or 0; the host
	// passes 0 when that state is of another store.
	Incarnation member.Incarnation
	// TellRemoval asks for a RemovedError, instead of joining anew, where others
	// have taken that incarnation out.
	TellRemoval bool
	// Identity is the peer certificate's URI SAN, or "" without TLS.
	Identity string
	Version  string
	// Peer is the agent's address, for people.
	Peer string
}

// Closed ends a session, whoever ended it.
type Closed struct {
	Session SessionID
	// ByPeer says that the peer's FIN or RST was read: its kernel was alive.
	ByPeer bool
}

// Sight is what an observer sees of a subject.
type Sight = verdict.Sight

// Evidence is what stands behind a sight.
type Evidence = verdict.Evidence

// Report says that what an agent sees of a subject has changed.
type Report struct {
	Session     SessionID
	Subject     member.ID
	Incarnation member.Incarnation
	Evidence    Evidence
	LostOfTen   int
}

// ServiceHealth says what an agent's checks find about its own server's service.
type ServiceHealth struct {
	Session     SessionID
	Incarnation member.Incarnation
	Down        bool
	// Text says which check fails and how.
	Text string
	// Undecided says that its checks have come to nothing yet.
	Undecided bool
}

// Digest is everything that an agent sees.
type Digest struct {
	Session   SessionID
	Subjects  []SubjectDigest
	SelfScore int
	// StateTrouble is why the agent's newest state is not on its disk, or empty.
	StateTrouble string
	// Health is nil for an agent without checks.
	Health *ServiceHealth
}

// SubjectDigest is what an agent has seen of one subject.
type SubjectDigest struct {
	Subject     member.ID
	Incarnation member.Incarnation
	Evidence    Evidence
	LostOfTen   int
}

// Answer is what an observer found out for a round.
type Answer struct {
	Session     SessionID
	Round       uint64
	Subject     member.ID
	Incarnation member.Incarnation
	Evidence    Evidence
	// Final says that the observer is done with the round.
	Final     bool
	SelfScore int
}

// Echo answers a Challenge.
type Echo struct {
	Session SessionID
	Nonce   uint64
}

// AssignmentAck says which assignment an agent acts on.
type AssignmentAck struct {
	Session SessionID
	Seq     uint64
}

// Leave says that the session's server shuts down normally. The answer is
// LeaveDone.
type Leave struct {
	Session     SessionID
	Incarnation member.Incarnation
	Reason      string
	// Drain is how long the routers may take to confirm that they send it nothing
	// more; 0 to leave at once, whatever the floor says.
	Drain time.Duration
}

// Drained answers AwaitRouters.
type Drained struct {
	ID          member.ID
	Incarnation member.Incarnation
	Revision    member.Revision
	// Missing are the routers that have not confirmed in time.
	Missing []Lag
}

// Dialed answers a Dial.
type Dialed struct {
	Round uint64
	// Answered says that a SYN-ACK or RST came back from any of the addresses.
	Answered bool
	// CannotJudge says that the host could not send, so it proves nothing.
	CannotJudge bool
	Text        string
}

// Call is what all operator commands have in common. The answer is Reply.
type Call struct {
	Token Token
	// RequestID makes the call repeatable for an hour; may be empty. Hash is a
	// hash of the call's content.
	RequestID string
	Hash      string
	// Earlier is the request of that id in the table, if there is one that is
	// still kept. The machine knows only those that it has answered itself.
	Earlier *member.Request
	Reason  string
	Actor   string
	// ExpectedRevision is nil for any.
	ExpectedRevision *member.Revision
	// ValidateOnly asks for all checks and no change.
	ValidateOnly bool
}

// UpdateServer replaces a member's spec as edited by Edit.
type UpdateServer struct {
	Call Call
	ID   member.ID
	// Edit returns the spec to have, from the present one; an error refuses the
	// call. It must be a pure function.
	Edit func(member.Spec) (member.Spec, error)
}

// RemoveServer takes a member out.
type RemoveServer struct {
	Call Call
	ID   member.ID
	// Incarnation is 0 for any.
	Incarnation member.Incarnation
}

// SetIntent sets an operator's wish.
type SetIntent struct {
	Call Call
	ID   member.ID
	Wish member.Wish
	// ExpiresIn is 0 for no end.
	ExpiresIn time.Duration
}

// DrainServer sets the wish that a member gets no new work.
type DrainServer struct {
	Call Call
	ID   member.ID
	// Incarnation is 0 for any.
	Incarnation member.Incarnation
	// Force drains it whatever the floor says.
	Force bool
}

// ResumeServer ends that wish.
type ResumeServer struct {
	Call Call
	ID   member.ID
}

// UpdateSettings replaces the pool's settings as edited by Edit.
type UpdateSettings struct {
	Call Call
	// Edit as in UpdateServer.
	Edit func(member.Settings) (member.Settings, error)
}

// ReleaseBrake confirms that the servers whose removal brake or floor hold are
// gone.
type ReleaseBrake struct {
	Call Call
	// IDs are those confirmed, all that are held now if there are none.
	IDs []member.ID
	// Kept are removed servers that routers still keep as a last resort.
	Kept []member.ID
}

// ReplaceServer puts a member into the place of another, which leaves. With the
// same id twice it lets another machine take the name over.
type ReplaceServer struct {
	Call Call
	ID   member.ID
	// Incarnation is that of ID, 0 for any.
	Incarnation member.Incarnation
	By          member.ID
	// Force replaces it however By, brake and floor stand.
	Force bool
}

// DeletePool ends the pool. The machine is dead afterwards.
type DeletePool struct {
	Call Call
	// Force deletes it with servers in it.
	Force bool
}

// RepairRing makes table, memory and the agents' lists agree.
type RepairRing struct {
	Call Call
	// Rows are those of the table, which was then at At. Where the pool is elsewhere
	// by now, the answer is ErrMoved.
	Rows []member.Server
	// Unreadable are the servers of other rows, which cannot be read.
	Unreadable []member.ID
	At         member.Position
}

// Committed says that the proposed change is durable.
type Committed struct{ ChangeID string }

// Rejected says that the proposed change has not happened and will not.
type Rejected struct {
	ChangeID string
	Err      error
}

// Fenced says that another leader exists. The machine is dead afterwards.
type Fenced struct{}

// Note is an event that did not arise in the machine, for the pool's history. It
// is written with the next change, or with one of its own before long.
type Note struct{ Event member.Event }

// Tick says only what time it is.
type Tick struct{}

func (Hello) input()          {}
func (Closed) input()         {}
func (Report) input()         {}
func (Digest) input()         {}
func (ServiceHealth) input()  {}
func (Answer) input()         {}
func (Echo) input()           {}
func (AssignmentAck) input()  {}
func (Leave) input()          {}
func (Drained) input()        {}
func (Dialed) input()         {}
func (UpdateServer) input()   {}
func (RemoveServer) input()   {}
func (SetIntent) input()      {}
func (DrainServer) input()    {}
func (ResumeServer) input()   {}
func (UpdateSettings) input() {}
func (ReleaseBrake) input()   {}
func (ReplaceServer) input()  {}
func (DeletePool) input()     {}
func (RepairRing) input()     {}
func (Committed) input()      {}
func (Rejected) input()       {}
func (Fenced) input()         {}
func (Note) input()           {}
func (Tick) input()           {}

// Subject is a server to watch, as its watcher is told.
type Subject struct {
	ID          member.ID
	Incarnation member.Incarnation
	Addresses   []netip.Addr
	Probe       member.Probe
	Role        Role
	// PhaseOffset is when within the period to probe.
	PhaseOffset time.Duration
}

// Role says why an agent watches a server, or answers in a round.
type Role uint8

// The roles.
const (
	RoleFirst Role = iota + 1
	RoleSecond
	RoleTemporary
	RoleWitness
)

// String returns first_buddy, second_buddy, temporary or witness.
func (r Role) String() string {
	return [...]string{"", "first_buddy", "second_buddy", "temporary", "witness"}[min(r, RoleWitness)]
}

// Assignment is the whole list of servers an agent watches.
type Assignment struct {
	Revision member.Revision
	Seq      uint64
	Subjects []Subject
	Interval time.Duration
}
