package doors

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// callers ask by each door, each one request after the other.
	callers = 4
	// callPause is between two requests of a caller.
	callPause = 5 * time.Millisecond
	// requestTime is how long one request may take, pickTime a Pick before it.
	requestTime = 2 * time.Second
	pickTime    = 2 * time.Second
	// maxErrors is how many errors of an experiment are told.
	maxErrors = 3
)

// ask makes one request, and returns when its server was chosen, as far as the
// client knows.
type ask func(ctx context.Context) (chosen time.Time, err error)

// load is callers that use one door all the time.
type load struct {
	door  string
	stop  context.CancelFunc
	ended sync.WaitGroup

	asked    atomic.Int64
	mu       sync.Mutex
	failures []failure
}

type failure struct {
	chosen time.Time
	err    error
}

// start lets callers ask until stop; each has an ask of its own.
func start(ctx context.Context, door string, caller func(n int) ask) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{door: door, stop: cancel}
	for n := range callers {
		one := caller(n)
		l.ended.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(callPause) {
				l.count(ctx, one)
			}
		})
	}
	return l
}

// count makes a request and counts it, unless it was cut short by the end.
func (l *load) count(ctx context.Context, one ask) {
	chosen, err := one(ctx)
	if ctx.Err() != nil {
		return
	}
	l.asked.Add(1)
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, failure{chosen, err})
}

// take returns what has happened since it was called last. Times are counted from
// begun.
func (l *load) take(begun time.Time) Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := Outcome{Door: l.door, Asked: l.asked.Swap(0), Failed: len(l.failures)}
	for i, f := range l.failures {
		o.Last = max(o.Last, f.chosen.Sub(begun))
		if i < maxErrors {
			o.Errors = append(o.Errors, f.chosen.Format(time.StampMilli)+": "+f.err.Error())
		}
	}
	l.failures = nil
	return o
}

// close ends the callers.
func (l *load) close() {
	l.stop()
	l.ended.Wait()
}
