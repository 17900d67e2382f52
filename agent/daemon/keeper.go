package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// errSilent says that a disk does not answer.
var errSilent = fmt.Errorf("the state directory has not answered for %v", diskTime)

// Store is where the State survives; Disk in production.
type Store interface {
	// Load may hang; the store is used without waiting for it then.
	Load() (State, error)
	// Save replaces the saved state or leaves it as it was; where the new one has
	// no incarnation it may lose it.
	Save(s State) error
	Path() string
}

const (
	saveRetryFirst = time.Second
	saveRetryMax   = 30 * time.Second
)

// keeper holds the State in memory and brings it to the store, one writer at a
// time and always the newest: a slow disk delays nobody but those who wait for
// it. It is safe for concurrent use.
type keeper struct {
	store   Store
	log     *slog.Logger
	metrics *metrics
	wake    chan struct{}

	mu    sync.Mutex
	state State
	// version counts changes of state.
	version uint64
	waiting []waiter
	// failure is why the last save failed, nil when it did not.
	failure error

	// saved is the version in the store; it is the writer's own.
	saved uint64
	// turned has a token when saves have begun to fail, or to succeed again.
	turned chan struct{}
}

// told hears, from the writer, how a save went, and reports whether it wants to
// hear of the next one too. It must not block.
type told func(err error) (again bool)

// waiter is told how saves of its version, or of a later one, went.
type waiter struct {
	version uint64
	told    told
}

func newKeeper(s Store, log *slog.Logger, m *metrics) *keeper {
	return &keeper{store: s, log: log, metrics: m, wake: make(chan struct{}, 1), turned: make(chan struct{}, 1)}
}

// load reads the store. A state that cannot be used, or not be read within diskTime,
// is the same as none.
func (k *keeper) load() {
	var s State
	read := make(chan error, 1)
	go func() {
		var err error
		s, err = k.store.Load()
		read <- err
	}()
	var err error
	select {
	case err = <-read:
	case <-time.After(diskTime):
		err = errSilent
	}
	if err != nil {
		k.log.Warn("saved state is unusable, starting without it", "file", k.store.Path(), "error", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
}

// get returns the present state, which the caller must not change.
func (k *keeper) get() State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// update changes the state and has it saved. then, if not nil, is told how that
// went.
func (k *keeper) update(change func(*State), then told) {
	k.mu.Lock()
	next := k.state.clone()
	change(&next)
	k.state = next
	k.version++
	if then != nil {
		k.waiting = append(k.waiting, waiter{k.version, then})
	}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run saves changes until ctx ends.
func (k *keeper) run(ctx context.Context) {
	var retry <-chan time.Time
	pause := saveRetryFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-retry:
			pause = min(2*pause, saveRetryMax)
		}
		if k.save() {
			pause, retry = saveRetryFirst, nil
		} else {
			retry = time.After(pause)
		}
	}
}

// save brings the newest state to the store and reports whether it is there.
func (k *keeper) save() bool {
	k.mu.Lock()
	state, version := k.state, k.version
	k.mu.Unlock()
	if version == k.saved {
		return true
	}
	err := k.store.Save(state)
	k.note(err)
	k.metrics.saved(err)
	if err == nil {
		k.saved = version
	}
	for _, w := range k.ready(version) {
		if w.told(err) {
			k.wait(w)
		}
	}
	return err == nil
}

// note remembers how a save went, and says so where that has changed.
func (k *keeper) note(err error) {
	k.mu.Lock()
	before := k.failure
	k.failure = err
	k.mu.Unlock()
	switch {
	case err == nil && before != nil:
		k.log.Info("state is saved again", "file", k.store.Path())
	case err != nil && before == nil:
		k.log.Warn("state not saved, going on without", "file", k.store.Path(), "error", err)
	default:
		return
	}
	select {
	case k.turned <- struct{}{}:
	default:
	}
}

// trouble says why the newest state is not in the store, or is empty.
func (k *keeper) trouble() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failure == nil {
		return ""
	}
	return k.failure.Error()
}

func (k *keeper) wait(w waiter) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.waiting = append(k.waiting, w)
}

// ready takes out whoever waits for this version or an earlier one.
func (k *keeper) ready(version uint64) (ready []waiter) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var later []waiter
	for _, w := range k.waiting {
		if w.version <= version {
			ready = append(ready, w)
		} else {
			later = append(later, w)
		}
	}
	k.waiting = later
	return ready
}
