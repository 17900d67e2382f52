package demo

import (
	"time"
)

// Facts is what a run has shown, as --json prints it. Times are milliseconds:
// since the start in Joins, since the first event of its chapter elsewhere.
type Facts struct {
	OK bool `json:"ok"`
	// Reason says why OK is false.
	Reason  string `json:"reason,omitempty"`
	Version string `json:"version"`
	// Mode is "namespaces" or "loopback", Probe "icmp" or "tcp".
	Mode      string      `json:"mode"`
	Probe     string      `json:"probe"`
	Hosts     int         `json:"hosts"`
	Seconds   float64     `json:"seconds"`
	Listeners Listeners   `json:"listeners"`
	Joins     []Join      `json:"joins,omitempty"`
	Crash     *Departure  `json:"crash,omitempty"`
	Shutdown  *Departure  `json:"shutdown,omitempty"`
	Comeback  *Comeback   `json:"comeback,omitempty"`
	AgentKill *AgentKill  `json:"agent_killed,omitempty"`
	Client    ClientFacts `json:"client"`
}

// Listeners are the addresses that can be reached from the caller's shell.
type Listeners struct {
	Admin           string `json:"admin"`
	Router          string `json:"router"`
	CoordinatorHTTP string `json:"coordinator_http"`
	RouterHTTP      string `json:"router_http"`
	// DNS is unset where the router answers none.
	DNS string `json:"dns,omitempty"`
}

// Join is a server's way into the pool.
type Join struct {
	Server      string  `json:"server_id"`
	Incarnation uint64  `json:"incarnation"`
	JoinedMS    float64 `json:"joined_ms"`
	ActiveMS    float64 `json:"active_ms"`
}

// Departure is how a server left the pool, counted from the moment its cable
// was pulled or its agent got SIGTERM.
type Departure struct {
	Server      string `json:"server_id"`
	Incarnation uint64 `json:"incarnation"`
	Cause       string `json:"cause"`
	Rule        string `json:"rule,omitempty"`
	Revision    uint64 `json:"revision"`
	// FirstDoubtMS and SuspectMS are unset where nobody doubted. SuspectMS is
	// when the router had steered its clients away.
	FirstDoubtMS *float64 `json:"first_doubt_ms,omitempty"`
	SuspectMS    *float64 `json:"suspect_ms,omitempty"`
	// LastPickMS is when the client was last sent there; unset if never since.
	LastPickMS *float64 `json:"last_pick_ms,omitempty"`
	RemovedMS  float64  `json:"removed_ms"`
	// AckedMS is when the router had confirmed the removal.
	AckedMS float64 `json:"acked_ms"`
	// Observers are those who missed the server, and those asked to confirm.
	Observers []Observer `json:"observers,omitempty"`
	Rows      []Row      `json:"rows"`
}

// Observer is one answer about a server.
type Observer struct {
	Who    string  `json:"who"`
	Role   string  `json:"role"`
	Result string  `json:"result"`
	Sent   uint32  `json:"sent"`
	Lost   uint32  `json:"lost"`
	AtMS   float64 `json:"at_ms"`
}

// Row is a row of the server table before and after; nil for no row.
type Row struct {
	Server string   `json:"server_id"`
	Before *Buddies `json:"before"`
	After  *Buddies `json:"after"`
}

// Buddies are the two columns of a row that make the ring.
type Buddies struct {
	First  string `json:"first_buddy"`
	Second string `json:"second_buddy"`
}

// Comeback is the return of the crashed server, counted from its restart.
type Comeback struct {
	Server      string  `json:"server_id"`
	Incarnation uint64  `json:"incarnation"`
	HeldMS      float64 `json:"held_ms"`
	ActiveMS    float64 `json:"active_ms"`
	// PicksWhileHeld must be 0.
	PicksWhileHeld int `json:"picks_while_held"`
}

// AgentKill is what came of killing an agent alone.
type AgentKill struct {
	Server    string  `json:"server_id"`
	WatchedMS float64 `json:"watched_ms"`
	// Removed must be empty.
	Removed []string `json:"removed"`
	// Served counts the requests that the server answered meanwhile.
	Served int `json:"served"`
	// Resumed says that the new agent was given the same membership.
	Resumed bool `json:"resumed"`
}

// ClientFacts is what the client has seen.
type ClientFacts struct {
	Requests int     `json:"requests"`
	Failed   int     `json:"failed"`
	Phases   []Phase `json:"phases"`
	// SentAfterRemoval counts requests to a membership that the router had
	// confirmed to be over; it must be 0.
	SentAfterRemoval int `json:"sent_after_removal"`
}

// Phase is a stretch of time and the requests begun in it.
type Phase struct {
	Name     string `json:"name"`
	Requests int    `json:"requests"`
	Failed   int    `json:"failed"`
}

// ms is a length of time as the facts give it.
func ms(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}
