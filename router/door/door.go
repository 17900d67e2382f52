// Package door is what the doors of a router see of its pools: the present state
// of each. A door turns that into answers of its kind; it changes nothing, and it
// waits for nobody but its own client.
package door

import (
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// Pools are the pools as they are served now. They are safe for concurrent use.
type Pools interface {
	// Pool returns the present state of a pool. The error is ErrNotFound where
	// there is no such pool, and ErrUnavailable before the router has seen any
	// state.
	Pool(name member.Pool) (*State, error)
	// Pools returns all of them by name; the error is ErrUnavailable before the
	// router has seen any state.
	Pools() ([]*State, error)
}

// State is one state of a pool. It never changes, but for its freshness, and is
// safe for concurrent use.
type State struct {
	View *view.View
	// Table is the view's, with the weights of the moment: servers that are new to
	// work have less at first.
	Table *view.Table
	// Superseded is closed when there is a newer state, or the pool is gone.
	Superseded <-chan struct{}
	// Freshness says how long ago the coordinator confirmed the state, and whether it
	// does so no more.
	Freshness func(now time.Time) (age time.Duration, stale bool)
	// NotServed says of a stale state whether a coordinator is in reach, and does not
	// serve the pool.
	NotServed func(now time.Time) bool

	made sync.Map
}

// Made returns what build makes for a key, made once in the life of a state. The
// keys of a door are of a type of its own, and as many as the state bounds.
func Made[K comparable, T any](s *State, key K, build func() T) T {
	once, ok := s.made.Load(key)
	if !ok {
		once, _ = s.made.LoadOrStore(key, sync.OnceValue(build))
	}
	return once.(func() T)() //nolint:forcetypeassert // a key has one type of value
}
