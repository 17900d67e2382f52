package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// deathInterval is how long until the next server crashes, at most, and
	// deathTime how long it is dead, at most.
	deathInterval = 8 * time.Second
	deathTime     = 20 * time.Second
	// lookInterval is how often an agent looks at its subjects.
	lookInterval = 100 * time.Millisecond
)

// errDied ends a session whose host has crashed.
var errDied = errors.New("the host has crashed")

// death is when a host was dead; the end is zero while it is.
type death struct{ begin, end time.Time }

// mortality says which of the scripted agents' hosts are dead: they answer
// nothing, and their watchers miss them. It is safe for concurrent use.
type mortality struct {
	mu     sync.Mutex
	deaths map[string][]death
}

func newMortality() *mortality { return &mortality{deaths: map[string][]death{}} }

// kill lets a host crash, unless it is dead.
func (m *mortality) kill(id string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.deaths[id]
	if len(list) > 0 && list[len(list)-1].end.IsZero() {
		return false
	}
	m.deaths[id] = append(list, death{begin: now})
	return true
}

// revive lets a dead host come back.
func (m *mortality) revive(id string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if list := m.deaths[id]; len(list) > 0 {
		list[len(list)-1].end = now
	}
}

// since is when a host died, if it is dead.
func (m *mortality) since(id string) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.deaths[id]
	if len(list) == 0 || !list[len(list)-1].end.IsZero() {
		return time.Time{}, false
	}
	return list[len(list)-1].begin, true
}

// settleTime is how long after its return a host may still be removed for having
// been dead: the verdict was under way.
const settleTime = 3 * time.Second

// excuses reports whether a removal by verdict was right.
func (m *mortality) excuses(id string, at time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.deaths[id] {
		if !at.Before(d.begin) && (d.end.IsZero() || at.Before(d.end.Add(settleTime))) {
			return true
		}
	}
	return false
}

func (m *mortality) count() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, list := range m.deaths {
		n += len(list)
	}
	return n
}

// reap lets one host after the other crash and come back, until ctx ends or all
// is to be calm.
func (m *mortality) reap(ctx context.Context, l *ledger, rng *rand.Rand, calm *atomic.Bool) {
	for ctx.Err() == nil && !calm.Load() {
		sleep(ctx, time.Duration(rng.Int64N(int64(deathInterval))))
		id, _, ok := l.anyMember(rng)
		if !ok || calm.Load() || !m.kill(id, time.Now()) {
			continue
		}
		sleep(ctx, time.Duration(rng.Int64N(int64(deathTime))))
		m.revive(id, time.Now())
	}
}

// dies waits until the host of the agent is back, if it is dead, and takes no
// notice of what comes meanwhile. It comes back with another boot and another run
// of the agent.
func (a *agent) dies(ctx context.Context, inbox <-chan *pb.SessionResponse) (died bool) {
	begin, dead := a.mortality.since(a.role.id)
	if !dead {
		return false
	}
	a.lose(begin)
	a.ledger.leaving(a.role.id)
	for ctx.Err() == nil {
		if _, dead := a.mortality.since(a.role.id); !dead {
			a.begin()
			break
		}
		select {
		case <-inbox:
		case <-time.After(lookInterval):
		case <-ctx.Done():
		}
	}
	return true
}

// lose writes down that nobody answers for the present run any more.
func (a *agent) lose(at time.Time) {
	if a.lost {
		return
	}
	a.lost = true
	a.history.Call(history.Operation{
		Kind: history.Lost, Pool: chaosPool, Server: a.role.id, Client: a.role.id, Run: a.hello.GetInstanceId(),
	}, at)
}
