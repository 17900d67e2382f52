package history

import "time"

// History is what happened, as all who had a part in it saw it. Times count from
// its begin, by one monotonic clock.
type History struct {
	// Command makes a history like it.
	Command    string      `json:"command"`
	Operations []Operation `json:"operations"`
	Streams    []Stream    `json:"streams"`
}

// Kind says what an operation does.
type Kind string

// The kinds of operations.
const (
	// Hello asks that a run of a server's agent be a member: it joins, or is
	// resumed where it is one.
	Hello Kind = "hello"
	// Leave asks that an incarnation be no member any more, for itself.
	Leave Kind = "leave"
	// Remove asks the same of another's incarnation.
	Remove Kind = "remove"
	// Lost says that nobody answers for a run any more. It may be taken out from
	// now on; nobody acknowledges that, so its outcome is never known.
	Lost Kind = "lost"
	// Over is the word of a coordinator that an incarnation is no member.
	Over Kind = "over"
	// Intend sets what an operator wants for an id. No two have the same Intent,
	// unless they want nothing.
	Intend Kind = "intend"
	// Drain sets the same for a member.
	Drain Kind = "drain"
	// Resume ends what Drain has set, and does nothing where nothing is wanted.
	Resume Kind = "resume"
	// Replace lets a member, By, take the place of an incarnation, which is no member
	// any more; its Intent is what is wanted for that one's id from then on.
	Replace Kind = "replace"
	// Update edits the row of a member: Value becomes its Note.
	Update Kind = "update"
	// Create makes a pool with Value as its settings, Configure changes them, and
	// Delete ends the pool with all that is in it. Two Creates or Configures have
	// different Values.
	Create    Kind = "create"
	Configure Kind = "configure"
	Delete    Kind = "delete"
	// Read reads a pool from the table, in one transaction.
	Read Kind = "read"
	// Ask asks a coordinator for the ring. It may lead, stand by, or not know that
	// it has been succeeded.
	Ask Kind = "ask"
)

// OrderKinds are the kinds of what operators ask for.
func OrderKinds() []Kind {
	return []Kind{Intend, Remove, Drain, Resume, Replace, Update, Create, Configure, Delete}
}

// Operation is a question and what came of it.
type Operation struct {
	Kind Kind   `json:"kind"`
	Pool string `json:"pool"`
	// Server is empty for reads, and for what is done to a pool.
	Server string `json:"server,omitempty"`
	// By is who takes the place of Server.
	By string `json:"by,omitempty"`
	// Client is who asks.
	Client string `json:"client"`
	// Run is the run of the agent that says hello, or is lost.
	Run string `json:"run,omitempty"`
	// Incarnation is the one it is about; of a Hello, the one that it brings.
	Incarnation uint64 `json:"incarnation,omitempty"`
	// Intent is what is wanted, Value what is written otherwise.
	Intent Intent `json:"intent,omitzero"`
	Value  string `json:"value,omitempty"`

	Call   time.Duration `json:"call"`
	Return time.Duration `json:"return,omitempty"`
	// Known is false where no answer came: it may have taken effect, or may do so
	// at any later time.
	Known bool `json:"known"`
	// Retried says that the question was repeated until the answer came. Each try
	// may have taken effect, but together they have one.
	Retried bool   `json:"retried,omitempty"`
	Result  Result `json:"result"`
}

// Result is an answer. Each kind of operation has some of it.
type Result struct {
	// Incarnation is that of a welcomed member, Resumed whether it was one before.
	Incarnation uint64 `json:"incarnation,omitempty"`
	Resumed     bool   `json:"resumed,omitempty"`
	// Revision is that of the change, or of what is shown.
	Revision uint64 `json:"revision,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"`
	// ChangeID names the change that led to the revision.
	ChangeID string `json:"change_id,omitempty"`
	// Missing says that there is no such pool. Otherwise Rows are all members, and
	// Intents all intents by id.
	Missing  bool              `json:"missing,omitempty"`
	Settings string            `json:"settings,omitempty"`
	Rows     []Row             `json:"rows,omitempty"`
	Intents  map[string]Intent `json:"intents,omitempty"`
}

// Intent is what an operator wants for an id: the wish as the table has it, and why.
// The zero one wants nothing.
type Intent struct {
	Wish   string `json:"wish,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Row is a member. Ask knows neither incarnation nor note, and only Read the run.
// A client of a router is told id, incarnation and, as Phase, the state.
type Row struct {
	ID          string `json:"id"`
	Run         string `json:"run,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"`
	Phase       string `json:"phase"`
	First       string `json:"first,omitempty"`
	Second      string `json:"second,omitempty"`
	// Note is what an operator has written into the row.
	Note string `json:"note,omitempty"`
}

// Position is a point in the history of a pool.
type Position struct {
	Pool     string `json:"pool"`
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
	ChangeID string `json:"change_id,omitempty"`
}

// Stream is one subscription, from its hello to its end, or what a client of a
// router has watched of one pool.
type Stream struct {
	// Watcher holds one stream after the other.
	Watcher string        `json:"watcher"`
	Opened  time.Duration `json:"opened"`
	// Router is who tells a client; empty for a subscription.
	Router string `json:"router,omitempty"`
	// StoreID and Resume are what it brings along, a client with the Run that it
	// has them from.
	StoreID  string     `json:"store_id,omitempty"`
	Resume   []Position `json:"resume,omitempty"`
	Run      string     `json:"run,omitempty"`
	Messages []Message  `json:"messages"`
}

// MessageKind says what a message of a stream is.
type MessageKind string

// The kinds of messages.
const (
	Start     MessageKind = "start"
	Compacted MessageKind = "compacted"
	Snapshot  MessageKind = "snapshot"
	Delta     MessageKind = "delta"
	Marks     MessageKind = "marks"
	Synced    MessageKind = "synced"
	Bookmark  MessageKind = "bookmark"
	Deleted   MessageKind = "deleted"
)

// Message is one message of a stream. Each kind has some of it.
type Message struct {
	At   time.Duration `json:"at"`
	Kind MessageKind   `json:"kind"`
	// StoreID is that of a start, and of all that a client is told.
	StoreID string `json:"store_id,omitempty"`
	// Run is that of the router that sends a client a snapshot.
	Run string `json:"run,omitempty"`
	// Position is where the pool stands after a snapshot or a delta, and for a client
	// after a bookmark; From where a delta begins. Its pool alone counts in others; its epoch alone in a start, in
	// marks and in synced.
	Position Position `json:"position,omitzero"`
	From     uint64   `json:"from,omitempty"`
	// Put are the rows of a snapshot, or those that a delta writes; Gone are the
	// ids of those that it deletes.
	Put  []Row    `json:"put,omitempty"`
	Gone []string `json:"gone,omitempty"`
	// OtherHistory is said of a resume point.
	OtherHistory bool `json:"other_history,omitempty"`
	// Positions are those of a bookmark.
	Positions []Position `json:"positions,omitempty"`
	// SoftSeqs are the numbers of the marks, or the one of synced.
	SoftSeqs []uint64 `json:"soft_seqs,omitempty"`
}
