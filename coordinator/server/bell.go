package server

import "sync"

// bell wakes everybody who waits for something to be published. It is safe for
// concurrent use.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

func newBell() *bell { return &bell{ch: make(chan struct{})} }

// next returns a channel that closes at the next ring. Take it before looking
// at what is there, so that nothing is missed in between.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// ending is a one-time end with its reason. It is safe for concurrent use.
type ending struct {
	once sync.Once
	ch   chan struct{}
	// err is written before ch closes.
	err error
}

func newEnding() *ending { return &ending{ch: make(chan struct{})} }

// end ends it; only the first reason counts.
func (e *ending) end(err error) {
	e.once.Do(func() {
		e.err = err
		close(e.ch)
	})
}

func (e *ending) done() <-chan struct{} { return e.ch }

// ended reports whether it is over.
func (e *ending) ended() bool {
	select {
	case <-e.ch:
		return true
	default:
		return false
	}
}

// reason is for use after done.
func (e *ending) reason() error {
	<-e.ch
	return e.err
}
