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
	mu sync.Mutex
	// ch closes at the end, and is nil from then on: thousands of sessions keep
	// their endings, and need no channels for those that are over.
	ch  chan struct{}
	err error
}

func newEnding() *ending { return &ending{ch: make(chan struct{})} }

// end ends it; only the first reason counts.
func (e *ending) end(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ch != nil {
		close(e.ch)
		e.ch, e.err = nil, err
	}
}

func (e *ending) done() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ch != nil {
		return e.ch
	}
	over := make(chan struct{})
	close(over)
	return over
}

// ended reports whether it is over.
func (e *ending) ended() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ch == nil
}

// reason is for use after done.
func (e *ending) reason() error {
	<-e.done()
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// crowd counts those who are inside of something, until it is closed to more.
// Unlike a WaitGroup it may be entered while somebody waits for its end. The zero
// value is open and empty. It is safe for concurrent use.
type crowd struct {
	mu     sync.Mutex
	closed bool
	inside int
	// gone, nil while nobody waits, closes when the last one leaves.
	gone chan struct{}
}

// enter lets the caller in, who has to leave, unless the crowd is closed.
func (c *crowd) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.inside++
	}
	return !c.closed
}

func (c *crowd) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inside--; c.inside == 0 && c.gone != nil {
		close(c.gone)
		c.gone = nil
	}
}

// run runs f in a goroutine for somebody who is inside.
func (c *crowd) run(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside++
	go func() {
		defer c.leave()
		f()
	}()
}

// close lets nobody in any more.
func (c *crowd) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// empty closes the crowd and waits until all have left.
func (c *crowd) empty() {
	c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.inside > 0 {
		if c.gone == nil {
			c.gone = make(chan struct{})
		}
		gone := c.gone
		c.mu.Unlock()
		<-gone
		c.mu.Lock()
	}
}
