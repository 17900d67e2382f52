package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/history"
)

// part is what a server was told last about its membership.
type part uint8

const (
	out part = iota
	in
	// unsure: it has asked to leave and has no answer.
	unsure
)

// membership is what one server knows, and can insist on.
type membership struct {
	part        part
	incarnation uint64
}

// ledger keeps what was acknowledged last, and what is wrong with it; of all that
// was, the history tells. It is safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	servers map[string]membership
	// doomed are the incarnations that an operator has asked to take out, by
	// server.
	doomed map[string]uint64
	// orders are those of the chaos pool by reason, promises are about the side pools,
	// acknowledged counts both. intents are the wishes that somebody sets all the time.
	orders       map[string]order
	promises     map[string]promise
	acknowledged map[history.Kind]int
	intents      int
	// accepted is when the first session was accepted in an epoch.
	accepted map[uint64]time.Time
	// news is closed at the next first session of an epoch.
	news                       chan struct{}
	joins, leaves              int
	lost, removed, staleEffect []string
}

func newLedger() *ledger {
	return &ledger{
		servers: map[string]membership{}, doomed: map[string]uint64{}, accepted: map[uint64]time.Time{}, news: make(chan struct{}),
		orders: map[string]order{}, promises: map[string]promise{}, acknowledged: map[history.Kind]int{},
	}
}

// asking notes that a server says hello: from now on it may be a member.
func (l *ledger) asking(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.servers[id].part == out {
		l.servers[id] = membership{part: unsure}
	}
}

// anyMember chooses a server that knows that it is a member, and that no operator
// takes out.
func (l *ledger) anyMember(rng *rand.Rand) (id string, incarnation uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id, m := range l.servers {
		if m.part == in && strings.HasPrefix(id, serverPrefix) && !l.isDoomed(id, m) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return "", 0, false
	}
	slices.Sort(ids)
	id = ids[rng.IntN(len(ids))]
	return id, l.servers[id].incarnation, true
}

// doom notes that an operator is about to take an incarnation out.
func (l *ledger) doom(id string, incarnation uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doomed[id] = incarnation
}

// members are the servers that know that they are members, by id.
func (l *ledger) members(prefix string) map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]uint64{}
	for id, m := range l.servers {
		if m.part == in && strings.HasPrefix(id, prefix) {
			all[id] = m.incarnation
		}
	}
	return all
}

// isDoomed reports whether an operator wants that incarnation out.
func (l *ledger) isDoomed(id string, m membership) bool {
	return m.incarnation != 0 && l.doomed[id] == m.incarnation
}

// welcomed takes the acceptance of a session.
func (l *ledger) welcomed(id string, incarnation, epoch uint64, resumed bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.accepted[epoch].IsZero() {
		l.accepted[epoch] = now
		close(l.news)
		l.news = make(chan struct{})
	}
	before := l.servers[id]
	if before.part == in && before.incarnation != incarnation && !l.isDoomed(id, before) {
		l.lost = append(l.lost, fmt.Sprintf("%s was a member in incarnation %d and is in %d", id, before.incarnation, incarnation))
	}
	if !resumed {
		l.joins++
	}
	l.servers[id] = membership{in, incarnation}
}

func (l *ledger) leaving(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers[id] = membership{unsure, l.servers[id].incarnation}
}

func (l *ledger) left(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers[id] = membership{}
	l.leaves++
}

// refused takes a coordinator's word that a server is no member.
func (l *ledger) refused(id string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.servers[id]; m.part == in && !l.isDoomed(id, m) {
		l.removed = append(l.removed, fmt.Sprintf("%s: %v", id, err))
	}
	l.servers[id] = membership{}
}

// stale counts an effect of an epoch below what the server had seen.
func (l *ledger) stale(id string, epoch, floor uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.staleEffect = append(l.staleEffect, fmt.Sprintf("%s got an effect of epoch %d after one of %d", id, epoch, floor))
}

// changes is how many intents were acknowledged.
func (l *ledger) changes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.intents
}

// acceptedAfter is when the first session was accepted in an epoch after a given
// one; false if none was, and then what closes at the next news.
func (l *ledger) acceptedAfter(epoch uint64) (time.Time, <-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for e, at := range l.accepted {
		if e > epoch && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first, l.news, !first.IsZero()
}

// settled reports whether everybody knows where it stands.
func (l *ledger) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.servers {
		if m.part == unsure {
			return false
		}
	}
	return true
}

// compare says what is wrong with the rows, by server.
func (l *ledger) compare(rows map[string]uint64) (wrong []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, m := range l.servers {
		incarnation, is := rows[id]
		switch {
		case m.part == in && incarnation != m.incarnation && !l.isDoomed(id, m):
			wrong = append(wrong, fmt.Sprintf("%s was told that it is incarnation %d, the table has %d", id, m.incarnation, incarnation))
		case m.part == out && is:
			wrong = append(wrong, fmt.Sprintf("%s was told that it has left, the table has incarnation %d", id, incarnation))
		}
	}
	slices.Sort(wrong)
	return wrong
}
