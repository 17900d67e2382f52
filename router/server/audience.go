package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/buddyring/buddyring/internal/member"
)

// audience are the watchers, and what each has been told. It is safe for
// concurrent use.
type audience struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
	// progress is set when a watcher has been told something, or has left.
	progress signal
}

// watcher is one Watch stream.
type watcher struct {
	pool member.Pool
	// told is the seq of the edition it was last sent, 0 before.
	told atomic.Uint64
	// gone is set when the stream has ended.
	gone atomic.Bool
}

// maxWatchers bounds what watchers cost a router: some 25 KiB each, their share of a
// connection included.
const maxWatchers = 20_000

func newAudience() *audience {
	return &audience{watchers: map[*watcher]struct{}{}, progress: newSignal()}
}

// join adds a watcher, which then begins with what is current.
func (a *audience) join(pool member.Pool) (*watcher, error) {
	w := &watcher{pool: pool}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.watchers) >= maxWatchers {
		return nil, fmt.Errorf("watch pool %q: %w: the router has %d watchers", pool, member.ErrExhausted, maxWatchers)
	}
	a.watchers[w] = struct{}{}
	return w, nil
}

func (a *audience) leave(w *watcher) {
	a.mu.Lock()
	delete(a.watchers, w)
	a.mu.Unlock()
	w.gone.Store(true)
	a.progress.set()
}

func (a *audience) tell(w *watcher, seq uint64) {
	w.told.Store(seq)
	a.progress.set()
}

// await returns when every watcher of these editions' pools has been sent them
// or later ones, or is gone; or when ctx ends. Watchers that join meanwhile begin
// with these editions or later ones. Only one goroutine may wait.
func (a *audience) await(ctx context.Context, editions []*edition) error {
	want := make(map[member.Pool]uint64, len(editions))
	for _, e := range editions {
		want[e.pool] = e.seq
	}
	behind := a.behind(want)
	for {
		// One at a time: each is looked at again until it is told, and then no more.
		for len(behind) > 0 && behind[len(behind)-1].knows(want) {
			behind = behind[:len(behind)-1]
		}
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-a.progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watcher) knows(want map[member.Pool]uint64) bool {
	return w.told.Load() >= want[w.pool] || w.gone.Load()
}

func (a *audience) behind(want map[member.Pool]uint64) []*watcher {
	a.mu.Lock()
	defer a.mu.Unlock()
	var behind []*watcher
	for w := range a.watchers {
		if !w.knows(want) {
			behind = append(behind, w)
		}
	}
	return behind
}
