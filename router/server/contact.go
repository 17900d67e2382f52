package server

import (
	"sync/atomic"
	"time"
)

// missedBookmarks are how many make a coordinator lost.
const missedBookmarks = 3

// contact is when the coordinator last confirmed that a pool's state, or the state
// of any pool that it serves, is the present one. It is safe for concurrent use.
type contact struct {
	last atomic.Pointer[confirmation]
}

type confirmation struct {
	at time.Time
	// good is how long nothing is missed; 0 for a state from disk, which nobody
	// has confirmed in this run.
	good time.Duration
}

// newContact returns the contact of a state that is as old as said.
func newContact(at time.Time) *contact {
	c := &contact{}
	c.last.Store(&confirmation{at: at})
	return c
}

// confirm takes a sign of life of a coordinator that sends bookmarks at an
// interval.
func (c *contact) confirm(now time.Time, interval time.Duration) {
	c.last.Store(&confirmation{at: now, good: missedBookmarks * interval})
}

// at is when the state was confirmed.
func (c *contact) at() time.Time { return c.last.Load().at }

// age is how long ago the state was confirmed, and whether it is no more. A clock that was set back makes no negative age.
func (c *contact) age(now time.Time) (age time.Duration, stale bool) {
	last := c.last.Load()
	age = max(0, now.Sub(last.at))
	return age, age >= last.good
}
