package server

import (
	"context"
	"math"
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
	// told is the seq of the edition it was last sent.
	told atomic.Uint64
}

func newAudience() *audience {
	return &audience{watchers: map[*watcher]struct{}{}, progress: newSignal()}
}

// join adds a watcher. As long as it has been told nothing it is not behind: it
// begins with what is current then.
func (a *audience) join(pool member.Pool) *watcher {
	w := &watcher{pool: pool}
	w.told.Store(math.MaxUint64)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watchers[w] = struct{}{}
	return w
}

func (a *audience) leave(w *watcher) {
	a.mu.Lock()
	delete(a.watchers, w)
	a.mu.Unlock()
	a.progress.set()
}

func (a *audience) tell(w *watcher, seq uint64) {
	w.told.Store(seq)
	a.progress.set()
}

// await returns when every watcher of these editions' pools has been sent them
// or later ones, or is gone; or when ctx ends. Only one goroutine may wait.
func (a *audience) await(ctx context.Context, editions []*edition) error {
	for !a.told(editions) {
		select {
		case <-a.progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (a *audience) told(editions []*edition) bool {
	want := make(map[member.Pool]uint64, len(editions))
	for _, e := range editions {
		want[e.pool] = e.seq
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watchers {
		if w.told.Load() < want[w.pool] {
			return false
		}
	}
	return true
}
