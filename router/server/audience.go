package server

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
)

// settleLimit is how long a change waits for one door's clients before it is
// acknowledged without those that do not take it.
const settleLimit = 2 * time.Second

// settler passes editions on to the clients of one door. What a router
// acknowledges has been through all of its settlers: "safe to stop" rests on it.
type settler interface {
	// settle returns when the door's clients have been sent these editions or later
	// ones. It bounds its own wait, and lets go of those that do not take them. It
	// is called by one goroutine at a time. An error is that of ctx.
	settle(ctx context.Context, editions []*edition) error
}

// settle waits for all settlers at once.
func settle(ctx context.Context, settlers []settler, editions []*edition) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range settlers {
		g.Go(func() error { return s.settle(ctx, editions) })
	}
	return g.Wait()
}

// audience are the watchers, and what each has been told. It is safe for
// concurrent use.
type audience struct {
	places   *quota.Counter
	mu       sync.Mutex
	watchers map[*watcher]struct{}
	// progress is set when a watcher has been told something, or has left.
	progress signal
}

// watcher is one Watch stream.
type watcher struct {
	pool member.Pool
	from netip.Prefix
	// told is the seq of the edition it was last sent, 0 before.
	told atomic.Uint64
	// gone is set when the stream has ended.
	gone atomic.Bool
	// dropped is closed when it has held up others for too long.
	dropped chan struct{}
	drop    func()
}

// maxWatchers bounds what watchers cost a router: some 45 KiB each on a connection of
// its own, 18 KiB where many share one. One source may have half of them.
const maxWatchers = 20_000

func newAudience() *audience {
	return &audience{places: quota.NewCounter(quota.Halves(maxWatchers)), watchers: map[*watcher]struct{}{}, progress: newSignal()}
}

// join adds a watcher, which then begins with what is current.
func (a *audience) join(pool member.Pool, from netip.Prefix) (*watcher, error) {
	switch a.places.Take(from, 1) {
	case quota.Total:
		return nil, fmt.Errorf("watch pool %q: %w: the router has %d watchers", pool, member.ErrExhausted, maxWatchers)
	case quota.PerSource:
		return nil, fmt.Errorf("watch pool %q: %w: the router has %d watchers from %s, half of what it takes",
			pool, member.ErrExhausted, maxWatchers/2, from)
	case quota.None:
	}
	w := &watcher{pool: pool, from: from, dropped: make(chan struct{})}
	w.drop = sync.OnceFunc(func() { close(w.dropped) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watchers[w] = struct{}{}
	return w, nil
}

func (a *audience) leave(w *watcher) {
	a.places.Return(w.from, 1)
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

// settle returns when every watcher of these editions' pools has been sent them
// or later ones, or is gone. Watchers that join meanwhile begin with these
// editions or later ones. One that has not been sent them within settleLimit is
// dropped, and comes back for the newest; but not one that waits for its first
// message, for it has nothing to be wrong about.
func (a *audience) settle(ctx context.Context, editions []*edition) error {
	want := make(map[member.Pool]uint64, len(editions))
	for _, e := range editions {
		want[e.pool] = e.seq
	}
	behind := a.behind(want)
	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
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
		case <-limit.C:
			for _, w := range behind {
				if w.told.Load() > 0 && !w.knows(want) {
					w.drop()
				}
			}
			return nil
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
