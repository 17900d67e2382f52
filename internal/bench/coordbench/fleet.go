package coordbench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/agent/daemon"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// dialsAtOnce keeps the backlog of the coordinator's listener from overflowing:
// real agents are on hosts of their own, and their connects are not all in one
// millisecond.
const dialsAtOnce = 256

// lookEvery is how often is looked whether what is waited for has come.
const lookEvery = 5 * time.Millisecond

// fleet is all agents and what they have seen.
type fleet struct {
	address string
	dialing chan struct{}
	// gate lets agents greet; connected counts those that wait before it.
	gate      chan struct{}
	connected atomic.Int64

	// questions counts those of the coordinator, which knows no reason for any;
	// unacked the sessions that were given up for want of an acknowledgement.
	questions, unacked atomic.Int64

	running sync.WaitGroup
	cancel  context.CancelFunc

	mu sync.Mutex
	// live counts the welcomed sessions, welcomes their times since mark.
	live     int
	welcomes []time.Time
	// removed and moved are what must not be: agents whose servers were taken out,
	// and memberships that came back as others.
	removed, moved int
	// losses counts the ends of attempts by reason, for people.
	losses map[string]int
}

// startFleet starts agents, which connect at once. They greet when gate is
// closed; nil for at once.
func startFleet(ctx context.Context, address string, n int, gate chan struct{}) *fleet {
	ctx, cancel := context.WithCancel(ctx)
	f := &fleet{address: address, dialing: make(chan struct{}, dialsAtOnce), gate: gate, cancel: cancel, losses: map[string]int{}}
	for number := range n {
		a := &agent{fleet: f, number: number, run: rand.Text()}
		f.running.Go(func() { a.live(ctx) })
	}
	return f
}

func (f *fleet) stop() {
	f.cancel()
	f.running.Wait()
}

// connect connects an agent when it is its turn.
func (f *fleet) connect(ctx context.Context, number int, address string) (*stream, error) {
	select {
	case f.dialing <- struct{}{}:
		defer func() { <-f.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return connect(ctx, sourceOf(number), address, agentBytes)
}

// wait waits until agents may greet.
func (f *fleet) wait(ctx context.Context) error {
	f.connected.Add(1)
	if f.gate == nil {
		return nil
	}
	select {
	case <-f.gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// welcome takes the acceptance of a session; had is the incarnation that the agent
// had, 0 for none.
func (f *fleet) welcome(had uint64, w *pb.Welcome) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live++
	f.welcomes = append(f.welcomes, now)
	if had != 0 && had != w.GetIncarnation() {
		f.moved++
	}
}

// lost takes the end of an attempt; removed is nil unless others have taken the
// server out.
func (f *fleet) lost(a daemon.Attempt, removed *member.RemovedError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how := "not reached"
	if a.Welcomed {
		f.live--
		how = "lost"
	}
	if removed != nil {
		f.removed++
	}
	why := "other"
	for _, known := range []error{daemon.ErrNoAck, member.ErrExhausted, member.ErrStale, member.ErrNotLeader, member.ErrInvalid, member.ErrUnavailable} {
		if errors.Is(a.Err, known) {
			why = known.Error()
			break
		}
	}
	f.losses[how+": "+why]++
}

// mark begins to note the times of welcomes anew.
func (f *fleet) mark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.welcomes, f.losses = nil, map[string]int{}
}

func (f *fleet) sessions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.live
}

// await waits until n sessions are live and returns when the last one of these was
// welcomed.
func (f *fleet) await(ctx context.Context, n int, patience time.Duration) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("it took longer than %s", patience))
	defer cancel()
	for {
		f.mu.Lock()
		live, times := f.live, len(f.welcomes)
		var last time.Time
		if times > 0 {
			last = f.welcomes[times-1]
		}
		f.mu.Unlock()
		if live >= n {
			return last, nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return last, fmt.Errorf("%d of %d agents have a session: %w; ends of sessions: %v", live, n, err, f.reasons())
		}
	}
}

// quantile is when a part of the welcomes since mark had come.
func (f *fleet) quantile(q float64) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortFunc(f.welcomes, time.Time.Compare)
	return f.welcomes[min(len(f.welcomes)-1, int(q*float64(len(f.welcomes))))]
}

func (f *fleet) reasons() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := map[string]int{}
	for why, n := range f.losses {
		all[why] = n
	}
	return all
}

// wrong counts what must never be.
func (f *fleet) wrong() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.removed + f.moved
}
