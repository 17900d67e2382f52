package daemon

import (
	"errors"
	"sync"
	"time"
)

// leaving is a wish to leave the pool and how it went. It is safe for
// concurrent use.
type leaving struct {
	// asked is closed by the first ask, over when the agent has ended.
	asked, over chan struct{}

	mu       sync.Mutex
	why      string
	until    time.Time
	no       string
	wanted   bool
	finished bool
	result   error
}

func newLeaving() *leaving {
	return &leaving{asked: make(chan struct{}), over: make(chan struct{})}
}

// ask wants to leave, drained by a time.
func (l *leaving) ask(reason string, drained time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.wanted {
		l.wanted, l.why, l.until = true, reason, drained
		close(l.asked)
	}
}

func (l *leaving) isAsked() bool {
	select {
	case <-l.asked:
		return true
	default:
		return false
	}
}

// pointless reports whether the agent should leave and is not a member: nothing
// is left to be done.
func (l *leaving) pointless(s State) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted && s.Incarnation == 0
}

// terms are why it leaves, and by when it is to be drained.
func (l *leaving) terms() (reason string, drained time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why, l.until
}

// refused notes what the coordinator said.
func (l *leaving) refused(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.no = text
}

func (l *leaving) refusal() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.no
}

// end notes how the agent ended; errLeft is success.
func (l *leaving) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.finished {
		return
	}
	l.finished = true
	if !errors.Is(err, errLeft) {
		l.result = errors.Join(errors.New("the agent ended before its server had left the pool"), err)
	}
	close(l.over)
}

func (l *leaving) outcome() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result
}

// link is whether there is an accepted session. It is safe for concurrent use.
type link struct {
	metrics *metrics

	mu   sync.Mutex
	lost time.Time
	why  error
}

func newLink(m *metrics) *link { return &link{metrics: m} }

func (l *link) up() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost, l.why = time.Time{}, nil
	l.metrics.connected.Set(1)
}

// down keeps the moment of the loss when a later attempt fails too.
func (l *link) down(now time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == nil {
		l.lost = now
	}
	l.why = err
	l.metrics.connected.Set(0)
}

// trouble is why there is no session, or nil.
func (l *link) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

func (l *link) since(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Sub(l.lost)
}
