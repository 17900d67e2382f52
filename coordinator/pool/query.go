package pool

import (
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Status is a pool at a glance.
type Status struct {
	Position      member.Position
	Settings      member.Settings
	ReferenceSize int
	// Members counts all phases, Active those that are ACTIVE and not suspect.
	Members, Active, Suspect int
	WarmingUp                bool
}

// ServerStatus is a row with the soft state around it.
type ServerStatus struct {
	Server    member.Server
	Suspect   bool
	Connected bool
	// WaitingFor says in plain words why it is not ACTIVE, or is empty.
	WaitingFor string
	Wish       member.Wish
	Temporary  []member.ID
}

// SessionStatus is a live session.
type SessionStatus struct {
	ID               member.ID
	Incarnation      member.Incarnation
	Peer             string
	Version          string
	Since, LastHeard time.Time
	Acked, Assigned  uint64
	AckedSubjects    []member.ID
	Subjects         []SubjectDigest
	SelfScore        int
}
