package server

import (
	"sync"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
)

const (
	// boxSize is how much one agent may have said that the machine has not heard yet:
	// a little more than what it says after a Welcome.
	boxSize = 16
	// digestDelay is how long a digest may wait for company: news come as reports, and
	// thousands of digests a second are not to wake the machine for each of them.
	digestDelay = 20 * time.Millisecond
)

// mail is what the agents of a pool have said and its machine has not heard yet, in
// a box for each of them. Who reads an agent's stream does not wait for the machine
// as long as there is room in the box: thousands that come back at once keep the
// machine busy for seconds, and an agent whose digest is not acknowledged meanwhile
// would give up and come back once more. It is safe for concurrent use.
type mail struct {
	// arrived has an element when there is something that is to be heard now.
	arrived chan struct{}

	mu sync.Mutex
	// waiting says that something is to be heard once digestDelay is over.
	waiting bool
	// senders are those with something in their boxes, in the order in which that was
	// put into the empty box.
	senders []*session
}

// box is what one agent has said, in this order. It is guarded by the mail.
type box struct {
	said []pool.Input
	// digest says that there is one in it.
	digest bool
	// room, nil while nobody waits, closes when the box is emptied.
	room chan struct{}
}

func newMail() *mail { return &mail{arrived: make(chan struct{}, 1)} }

// post puts what an agent says into its box. It waits while that is full, and with
// a digest while there is another one in it, so that no digest is acknowledged to
// an agent whose last one the machine does not hear. When over ends it drops the
// input. There is one caller at a time for a session.
func (m *mail) post(s *session, in pool.Input, over *ending) {
	for {
		room := m.put(s, in)
		if room == nil {
			return
		}
		select {
		case <-room:
		case <-over.done():
			return
		}
	}
}

// put puts an input into a box; where there is no room it returns what closes when
// there is.
func (m *mail) put(s *session, in pool.Input) (room <-chan struct{}) {
	_, digest := in.(pool.Digest)
	m.mu.Lock()
	defer m.mu.Unlock()
	b := &s.box
	if len(b.said) == boxSize || digest && b.digest {
		b.room = make(chan struct{})
		return b.room
	}
	if len(b.said) == 0 {
		m.senders = append(m.senders, s)
	}
	b.said, b.digest = append(b.said, in), b.digest || digest
	switch {
	case !digest:
		m.ring()
	case !m.waiting:
		m.waiting = true
		time.AfterFunc(digestDelay, m.ring)
	}
	return nil
}

// ring says that there is something to be heard now.
func (m *mail) ring() {
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// collect empties the boxes that have waited longest, until there are at least
// enough inputs or nothing is left, into the slice. It calls greeted for each
// session of which it takes the Hello.
func (m *mail) collect(inputs []pool.Input, enough int, greeted func(*session)) []pool.Input {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = false
	for len(inputs) < enough && len(m.senders) > 0 {
		s := m.senders[0]
		m.senders[0], m.senders = nil, m.senders[1:]
		if _, ok := s.box.said[0].(pool.Hello); ok {
			greeted(s)
		}
		inputs = append(inputs, s.box.said...)
		if s.box.room != nil {
			close(s.box.room)
		}
		s.box = box{}
	}
	if len(m.senders) > 0 {
		m.ring()
	}
	return inputs
}
