package relay

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Way is one direction. The zero Way is open, and nothing on it is late. It is safe
// for concurrent use.
type Way struct {
	mu sync.Mutex
	// shut is closed when the way opens; nil while it is open.
	shut          chan struct{}
	delay, jitter time.Duration
	passed        time.Time
}

// Shut lets nothing pass, and no connection break, as when a network loses
// everything.
func (w *Way) Shut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shut == nil {
		w.shut = make(chan struct{})
	}
}

// Open ends Shut. What was sent meanwhile arrives, as by TCP.
func (w *Way) Open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shut != nil {
		close(w.shut)
		w.shut = nil
	}
}

// Slow makes what is sent from now on late by delay, and by up to jitter more. What
// was sent before keeps its place. Zero ends it.
func (w *Way) Slow(delay, jitter time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.delay, w.jitter = delay, jitter
}

// Passed is when something has passed last.
func (w *Way) Passed() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.passed
}

func (w *Way) note() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passed = time.Now()
}

func (w *Way) lateness() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jitter <= 0 {
		return w.delay
	}
	return w.delay + time.Duration(rand.Int64N(int64(w.jitter))) //nolint:gosec // it is no secret
}

// await waits until the way is open; false if ctx ends before.
func (w *Way) await(ctx context.Context) bool {
	for {
		w.mu.Lock()
		shut := w.shut
		w.mu.Unlock()
		if shut == nil {
			return ctx.Err() == nil
		}
		select {
		case <-shut:
		case <-ctx.Done():
			return false
		}
	}
}
