package member

import "time"

// Change is one durable change of a pool: one transaction, one revision. It
// either happens whole or not at all.
type Change struct {
	// ID makes the change repeatable: after a COMMIT of unknown outcome the
	// store finds it in the fence row's last_change_id. No two changes share it,
	// whatever history they belong to.
	ID   string
	Pool Pool
	// Base is the position the change was made from. The change takes effect
	// only if the pool is still there, and then is revision Base.Revision + 1.
	Base Position
	// Put are whole rows to write, Remove the rows to delete.
	Put    []Server
	Remove []Removal
	// Intents and Departed are written whole; Forget deletes intents by id.
	Intents  []Intent
	Forget   []ID
	Departed []Departed
	// Settings and ReferenceSize are written when not nil.
	Settings      *Settings
	ReferenceSize *int
	// MassChangeConfirmed says that an operator has confirmed that many servers
	// go at once. It is published, not stored.
	MassChangeConfirmed bool
	// Delete ends the pool, with all that belongs to it; nil for every other change.
	// Of the rest, only Requests is written then, and Remove lists who was in it.
	Delete   *Deletion
	Events   []Event
	Requests []Request
}

// Deletion says who has deleted a pool, when and why.
type Deletion struct {
	At     time.Time
	Actor  string
	Reason string
}

// DeletedPool is what is remembered of a deleted pool.
type DeletedPool struct {
	Name Pool
	// Position is its last one: revisions of a new pool of that name are above.
	Position Position
	Deletion
	// Request is the client's request that has deleted it; its ID may be empty.
	Request Request
}

// Revision is the revision that the change will have.
func (c Change) Revision() Revision { return c.Base.Revision + 1 }

// Removal takes one incarnation out of the table.
type Removal struct {
	ID          ID
	Incarnation Incarnation
	Cause       Cause
}

// EventKind names what an event tells.
type EventKind string

// The kinds of events.
const (
	EventJoined       EventKind = "joined"
	EventActivated    EventKind = "activated"
	EventAdopted      EventKind = "adopted"
	EventHeld         EventKind = "held"
	EventReleased     EventKind = "released"
	EventRemoved      EventKind = "removed"
	EventNotRemoved   EventKind = "not_removed"
	EventUpdated      EventKind = "updated"
	EventIntent       EventKind = "intent"
	EventPoolCreated  EventKind = "pool_created"
	EventPoolUpdated  EventKind = "pool_updated"
	EventAlarmRaised  EventKind = "alarm_raised"
	EventAlarmCleared EventKind = "alarm_cleared"
	EventContradicted EventKind = "contradicted"
	EventServiceDown  EventKind = "service_down"
	EventServiceUp    EventKind = "service_up"
	EventBraked       EventKind = "braked"
	EventUnbraked     EventKind = "unbraked"
	EventMoved        EventKind = "moved"
	EventDraining     EventKind = "draining"
	EventRestored     EventKind = "restored"
	EventRepaired     EventKind = "repaired"
	EventReplaced     EventKind = "replaced"
	EventPoolDeleted  EventKind = "pool_deleted"
)

// Event is one line of a pool's history, ordered by (Revision, Seq).
type Event struct {
	Revision Revision
	// Seq orders the events of one revision, from 0.
	Seq   int
	Epoch Epoch
	At    time.Time
	Kind  EventKind
	// ID is the server it is about, or "" for the pool.
	ID          ID
	Incarnation Incarnation
	Cause       Cause
	// Actor is who asked for it: a certificate identity, "agent/ID", or
	// "coordinator".
	Actor string
	// Text is one plain sentence.
	Text string
	// Explanation is the evidence behind a decision, or nil.
	Explanation *Explanation
}

// Request is the answer to a client's request_id, kept for an hour.
type Request struct {
	ID string
	// Hash is a hash of the request's content: the same id with another hash is
	// a client's error.
	Hash string
	// Revision is the revision at which the request took effect.
	Revision Revision
	At       time.Time
}

// Explanation tells why a server was removed, or was not. It is data; a person
// reads it through "buddyctl explain".
type Explanation struct {
	ID          ID          `json:"server_id"`
	Incarnation Incarnation `json:"incarnation"`
	// Verdict is the outcome in one word, Rule the rule that fired, Text a plain
	// sentence with the numbers.
	Verdict string `json:"verdict"`
	Rule    string `json:"rule"`
	Text    string `json:"text"`
	// Started is when the first doubt arrived, by the wall clock.
	Started time.Time `json:"started"`
	// Decided is when the decision was made; zero in histories of old.
	Decided time.Time `json:"decided"`
	// Timeline is in order of At.
	Timeline []Moment `json:"timeline"`
	// Rows are the ring rows before and after, for the servers that changed.
	Rows []RowChange `json:"rows,omitempty"`
	// Before and After are the brake and the floor around the decision; After is
	// nil where nothing was removed.
	Before *Safety `json:"safety_before,omitempty"`
	After  *Safety `json:"safety_after,omitempty"`
}

// Safety is where a pool stands between its brake and its floor.
type Safety struct {
	Members int `json:"members"`
	// Suspects counts what counts for the brake: see verdict.Brake.
	Suspects   int  `json:"suspects"`
	BrakeLimit int  `json:"brake_limit"`
	Engaged    bool `json:"brake_engaged"`
	// Lost counts the members lost by verdict and not back.
	Lost          int `json:"lost"`
	FloorLimit    int `json:"floor_limit"`
	ReferenceSize int `json:"reference_size"`
}

// Moment is one entry of an explanation's timeline.
type Moment struct {
	// At is the time since Explanation.Started.
	At time.Duration `json:"at"`
	// Kind is one of: doubt, cleared, round, asked, answer, no_answer, nonce,
	// nonce_echo, stream_closed, dial, suspect, not_counted, verdict, left_out,
	// committed, published, acked.
	Kind string `json:"kind"`
	// Round is the round it belongs to, or 0.
	Round uint64 `json:"round,omitempty"`
	// Who observed or answered: a server id, "coordinator", or "router/ID".
	Who string `json:"who,omitempty"`
	// Role is buddy, witness, temporary, subject or coordinator.
	Role string `json:"role,omitempty"`
	// Result is up, down, cannot_judge or unknown, where Kind has one.
	Result string `json:"result,omitempty"`
	// Sent and Lost count probes; RTT is the last reply's round trip, Age how
	// old the evidence was when it arrived.
	Sent int           `json:"sent,omitempty"`
	Lost int           `json:"lost,omitempty"`
	RTT  time.Duration `json:"rtt,omitempty"`
	Age  time.Duration `json:"age,omitempty"`
	Text string        `json:"text,omitempty"`
}

// RowChange is one row of the server table before and after a change. An empty
// Before is a new row, an empty After a deleted one.
type RowChange struct {
	ID     ID       `json:"server_id"`
	Before *Buddies `json:"before,omitempty"`
	After  *Buddies `json:"after,omitempty"`
}

// Buddies are the two watchers, and the two subjects, of a server.
type Buddies struct {
	First  ID `json:"first_buddy"`
	Second ID `json:"second_buddy"`
}

// Alarm is a condition a person should know of.
type Alarm struct {
	// Name is a constant such as AGENT_DOWN; Subject the server, router or ""
	// for the pool.
	Name    string
	Pool    Pool
	Subject string
	Since   time.Time
	Text    string
}

// Key identifies an alarm: at most one is active per key.
func (a Alarm) Key() AlarmKey { return AlarmKey{a.Name, a.Pool, a.Subject} }

// AlarmKey identifies an alarm.
type AlarmKey struct {
	Name    string
	Pool    Pool
	Subject string
}
