package pool

import (
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// wakeKind says what to look at when a time comes. Handlers look at the present
// state and may be called early, late or twice.
type wakeKind uint8

const (
	wakeRound        wakeKind = iota // a round: replace the silent, end it
	wakeAgain                        // a member: open another round, forget old answers
	wakeStream                       // a session: is it silent, was the nonce answered
	wakeAbsent                       // a member without a stream
	wakeWatchers                     // a member that has lost a temporary watcher
	wakeUncovered                    // the members that lack a temporary watcher
	wakeHeld                         // a member: the hold-down is over
	wakeMark                         // a member: renew the suspect mark
	wakeIntent                       // an id: the wish is over
	wakeRequest                      // a request id: forget it
	wakeDeparted                     // an id that left by verdict: forget it
	wakeWarm                         // the warm-up is over
	wakePropose                      // something waits to be proposed
	wakeContradicted                 // an id: the alarm has been up long enough
	wakeSuspect                      // a member that may have been suspect for long
	wakeSweep                        // the suspect around which a sweep was begun
	wakeLoss                         // a member that may have lost packets for long
	wakeMuted                        // an observer that may be heard again
	wakeMove                         // a member that may want another place
	wakeFiltered                     // there may be servers behind a filter
	wakeGuard                        // brake and floor
	wakeReference                    // the reference size
	wakeHealth                       // a member: its service
	wakeLeave                        // a member whose leave has come to a halt
	wakeYield                        // an id whose name another machine may have taken
	wakeRing                         // whether the rows made a ring when they were read
)

type wakeAt struct {
	at   time.Time
	kind wakeKind
	key  string
	num  uint64
}

// manyWakes is for how many there may always be room. Thousands of members that come
// at once have several each for a while, and one afterwards.
const manyWakes = 1024

// wakes is a heap: the first one is due first. push and pop are those of
// container/heap without the allocations.
type wakes []wakeAt

func (w *wakes) push(a wakeAt) {
	h := append(*w, a)
	*w = h
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

func (w *wakes) pop() wakeAt {
	h := *w
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], wakeAt{}
	h = h[:last]
	if cap(h) > manyWakes && last < cap(h)/4 {
		h = append(make(wakes, 0, 2*last), h...)
	}
	*w = h
	for i := 0; ; {
		child := 2*i + 1
		if child+1 < last && h[child+1].before(h[child]) {
			child++
		}
		if child >= last || !h[child].before(h[i]) {
			return first
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// before orders by time, and at equal times by content, so that equal machines
// wake in equal order.
func (a wakeAt) before(b wakeAt) bool {
	switch {
	case !a.at.Equal(b.at):
		return a.at.Before(b.at)
	case a.kind != b.kind:
		return a.kind < b.kind
	case a.key != b.key:
		return a.key < b.key
	}
	return a.num < b.num
}

// wake arranges for a look at something no later than at; a zero at is ignored.
func (m *Machine) wake(at time.Time, kind wakeKind, key string, num uint64) {
	if !at.IsZero() {
		m.wakes.push(wakeAt{at, kind, key, num})
	}
}

func (m *Machine) awake() {
	for len(m.wakes) > 0 && !m.wakes[0].at.After(m.now) {
		m.look(m.wakes.pop())
	}
}

func (m *Machine) look(w wakeAt) {
	id := member.ID(w.key)
	switch w.kind {
	case wakeRound:
		if s := m.rounds[w.num]; s != nil {
			m.progress(s)
		}
	case wakeStream:
		if sess := m.sessions[SessionID(w.num)]; sess != nil {
			m.lookStream(sess)
		}
	case wakeIntent:
		m.intentOver(id)
	case wakeRequest:
		if q, ok := m.requests[w.key]; ok && m.now.Sub(q.At) >= requestLife {
			delete(m.requests, w.key)
		}
	case wakeDeparted:
		if d, ok := m.departed[id]; ok && m.now.Sub(d.LeftAt) >= departedLife {
			delete(m.departed, id)
			m.guard.standing = nil
			m.trimLosses()
		}
	case wakeWarm:
		m.lookWarm()
		if m.warming {
			m.wake(m.startedAt.Add(warmUp), wakeWarm, "", 0)
		}
	case wakeContradicted:
		m.clearAlarm(alarmRemovalContradicted, id)
	case wakeUncovered:
		for _, id := range sortedKeys(m.uncovered) {
			m.tendWatchers(m.servers[id])
		}
	case wakeGuard:
		m.lookGuard()
	case wakeReference:
		m.lookReference()
	case wakeYield:
		m.lookYield(id)
	case wakeRing:
		m.lookRing()
	case wakePropose:
	case wakeFiltered:
		m.lookFiltered()
	case wakeAgain, wakeAbsent, wakeWatchers, wakeHeld, wakeMark, wakeSuspect, wakeSweep, wakeLoss, wakeMuted, wakeMove, wakeHealth, wakeLeave:
		if s := m.servers[id]; s != nil {
			m.lookServer(s, w)
		}
	}
}

func (m *Machine) lookServer(s *server, w wakeAt) {
	switch w.kind {
	case wakeAgain:
		m.reconsider(s)
	case wakeAbsent:
		m.lookAbsent(s)
	case wakeWatchers:
		m.tendWatchers(s)
	case wakeHeld:
		m.due[s.row.ID] = true
	case wakeMark:
		m.renewMark(s)
		m.renewHealth(s)
	case wakeHealth:
		m.lookHealth(s)
	case wakeLeave:
		m.lookLeave(s)
	case wakeSuspect:
		m.tendSubjects(s.row.ID)
	case wakeSweep:
		m.lookSweep(s, int(w.num))
	case wakeLoss:
		m.lookLoss(s, w.num)
	case wakeMuted:
		m.lookMuted(s)
	case wakeMove:
		m.lookMove(s)
	case wakeRound, wakeStream, wakeIntent, wakeRequest, wakeDeparted, wakeWarm, wakePropose, wakeContradicted, wakeUncovered,
		wakeFiltered, wakeGuard, wakeReference, wakeYield, wakeRing:
		// Not about a member.
	}
}

// setTimer asks for a Tick at the next wake, if that has changed.
func (m *Machine) setTimer() {
	var next time.Time
	if len(m.wakes) > 0 {
		next = m.wakes[0].at
	}
	if !next.Equal(m.timer) {
		m.timer = next
		m.emit(SetTimer{next})
	}
}
