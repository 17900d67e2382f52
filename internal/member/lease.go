package member

import "time"

// Lease is the one row that says which coordinator leads.
type Lease struct {
	// StoreID identifies the database; "" before the first leader.
	StoreID string
	// Holder is the id of the coordinator that leads; "" before the first leader,
	// and when the last one has given the lead back.
	Holder ID
	// Instance is the run of the holder's program that took the lead.
	Instance string
	// Advertise is where agents and routers reach the holder, or "".
	Advertise string
	// Epoch counts leaders, Renewal their signs of life.
	Epoch   Epoch
	Renewal uint64
}

// Free reports whether nobody holds it.
func (l Lease) Free() bool { return l.Holder == "" }

// Moved reports whether somebody wrote l after o, or o after l.
func (l Lease) Moved(o Lease) bool { return l.Epoch != o.Epoch || l.Renewal != o.Renewal }

// Coordinator is one of the coordinators on a database.
type Coordinator struct {
	ID ID
	// Advertise is where agents and routers reach it, or "".
	Advertise string
	// LastSeen is when it was last there, by its own clock.
	LastSeen time.Time
}
