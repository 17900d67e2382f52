package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// fakeCheck is a check of a service that fares as a test says.
type fakeCheck struct {
	name string

	mu sync.Mutex
	// how is what it returns; hang lets it wait for its context, stuck for a
	// channel instead.
	how   error
	hang  bool
	stuck chan struct{}
	// running and most count the runs at a time, runs all.
	running, most, runs int
}

func (c *fakeCheck) String() string { return c.name }

func (c *fakeCheck) set(how error, hang bool, stuck chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.how, c.hang, c.stuck = how, hang, stuck
}

func (c *fakeCheck) count() (most, runs int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most, c.runs
}

func (c *fakeCheck) Run(ctx context.Context) error {
	c.mu.Lock()
	how, hang, stuck := c.how, c.hang, c.stuck
	c.running++
	c.runs++
	c.most = max(c.most, c.running)
	c.mu.Unlock()
	if hang {
		<-ctx.Done()
		how = ctx.Err()
	}
	if stuck != nil {
		<-stuck
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	return how
}

func wellService(names ...string) (checks []Check, fakes []*fakeCheck) {
	for _, name := range names {
		f := &fakeCheck{name: name}
		checks, fakes = append(checks, f), append(fakes, f)
	}
	return checks, fakes
}

// heard returns the next ServiceHealth, and after how long it came.
func (p *peer) heard() (*pb.ServiceHealth, time.Duration) {
	p.t.Helper()
	began := time.Now()
	h := expect(p, (*pb.SessionRequest).GetServiceHealth)
	return h, time.Since(began)
}

func TestServiceHealth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		checks, fakes := wellService("tcp://web", "exec:disk")
		f := startWith(t, &memory{}, Config{Checks: checks}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		if h, _ := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_UP || h.GetIncarnation() != 5 || h.GetText() != "" {
			t.Errorf("after the welcome: %v", h)
		}
		fakes[0].set(errors.New("connection refused"), false, nil)
		h, took := p.heard()
		if h.GetState() != pb.ServiceState_SERVICE_STATE_DOWN || h.GetText() != "tcp://web: connection refused" || took > 3*time.Second {
			t.Errorf("service down: %v after %v", h, took)
		}
		if err := f.Ready(); err != nil {
			t.Errorf("the agent itself is well: %v", err)
		}
		if down := f.metric("buddyring_agent_check_service_down"); down != 1 {
			t.Errorf("check_service_down %v", down)
		}
		time.Sleep(5 * time.Second)
		digests := p.seen()
		if h := digests[len(digests)-1].GetServiceHealth(); h.GetState() != pb.ServiceState_SERVICE_STATE_DOWN || h.GetIncarnation() != 5 {
			t.Errorf("digest %v", h)
		}

		// What is known is said again in every session.
		p.end <- nil
		p = c.next()
		p.welcome(6, assignmentOf(1))
		if h, _ := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_DOWN || h.GetIncarnation() != 6 {
			t.Errorf("after the next welcome: %v", h)
		}
		fakes[0].set(nil, false, nil)
		if h, took := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_UP || took > 2*time.Second {
			t.Errorf("service up: %v after %v", h, took)
		}
		time.Sleep(20 * time.Second)
		if more := p.pending(); len(more) > 0 && more[len(more)-1].GetServiceHealth() != nil {
			t.Errorf("said without a change: %v", more)
		}
	})
}

// TestHungServiceIsFound: whenever it hangs, it is said in less than 4 s.
func TestHungServiceIsFound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		checks, fakes := wellService("http://web")
		startWith(t, &memory{}, Config{Checks: checks}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		p.heard()
		for _, after := range []time.Duration{0, time.Millisecond, 500 * time.Millisecond, 999 * time.Millisecond} {
			time.Sleep(after)
			fakes[0].set(nil, true, nil)
			h, took := p.heard()
			if h.GetState() != pb.ServiceState_SERVICE_STATE_DOWN || took >= 4*time.Second || !strings.Contains(h.GetText(), errNoAnswer.Error()) {
				t.Errorf("%v: %v after %v", after, h, took)
			}
			fakes[0].set(nil, false, nil)
			p.heard()
		}
	})
}

// TestStuckCheckHasFailed: a check that does not come back has failed, is not
// started again meanwhile, holds up neither the others nor the end.
func TestStuckCheckHasFailed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		checks, fakes := wellService("exec:nfs", "tcp://web")
		stuck := make(chan struct{})
		fakes[0].set(nil, false, stuck)
		f := startWith(t, &memory{}, Config{Checks: checks}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		h, took := p.heard()
		if h.GetState() != pb.ServiceState_SERVICE_STATE_DOWN || took >= 4*time.Second || h.GetText() != "exec:nfs: "+errNotEnding.Error() {
			t.Errorf("%v after %v", h, took)
		}
		time.Sleep(time.Minute)
		if most, runs := fakes[0].count(); most != 1 || runs != 1 {
			t.Errorf("%d runs, %d at a time", runs, most)
		}
		if _, runs := fakes[1].count(); runs < 60 {
			t.Errorf("the other check ran %d times in a minute", runs)
		}
		began := time.Now()
		f.end()
		if took := time.Since(began); took > 2*checkEnd {
			t.Errorf("the agent's end took %v", took)
		}
		close(stuck)
		synctest.Wait()
	})
}

// TestNothingIsSaidBeforeTheFirstResults: but that there are checks, in every digest,
// since one that says nothing is of an agent without them.
func TestNothingIsSaidBeforeTheFirstResults(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		checks, fakes := wellService("a", "b")
		fakes[1].set(errors.New("starting"), false, nil)
		startWith(t, &memory{}, Config{Checks: checks}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		time.Sleep(1500 * time.Millisecond)
		for _, m := range p.pending() {
			if h := m.GetServiceHealth(); h != nil {
				t.Errorf("said %v", h)
			}
		}
		if h := p.seen()[0].GetServiceHealth(); h == nil || h.GetState() != pb.ServiceState_SERVICE_STATE_UNSPECIFIED || h.GetIncarnation() != 5 {
			t.Errorf("digest says %v", h)
		}
		fakes[1].set(nil, false, nil)
		if h, took := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_UP || took > time.Second {
			t.Errorf("%v after %v", h, took)
		}
	})
}

// TestRecheckTakesTheNewOneOfAName: the password of a check is no part of its name.
func TestRecheckTakesTheNewOneOfAName(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		checks, fakes := wellService("http://me:xxxxx@web/")
		fakes[0].set(errors.New("401 Unauthorized"), false, nil)
		f := startWith(t, &memory{}, Config{Checks: checks}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		if h, _ := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_DOWN {
			t.Errorf("first: %v", h)
		}
		again, _ := wellService("http://me:xxxxx@web/")
		f.Recheck(t.Context(), again)
		if h, took := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_UP || took > 3*time.Second {
			t.Errorf("with another password: %v after %v", h, took)
		}
	})
}

// TestRecheck: new checks take the place of the old, and without any the service
// is up again, in this session and in the next.
func TestRecheck(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCoordinator(t)
		checks, fakes := wellService("a", "b")
		fakes[0].set(errors.New("refused"), false, nil)
		f := startWith(t, &memory{}, Config{Checks: checks}, c)
		p := c.next()
		p.welcome(5, assignmentOf(1))
		if h, _ := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_DOWN {
			t.Errorf("first: %v", h)
		}
		f.Recheck(t.Context(), checks[1:])
		if h, took := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_UP || took > 0 {
			t.Errorf("without the failing one: %v after %v", h, took)
		}
		_, before := fakes[0].count()
		f.Recheck(t.Context(), checks)
		p.heard()
		if _, after := fakes[0].count(); after <= before {
			t.Error("a check that is back does not run")
		}
		f.Recheck(t.Context(), nil)
		if h, took := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_UP || took > 0 {
			t.Errorf("without checks: %v after %v", h, took)
		}
		p.end <- nil
		p = c.next()
		p.welcome(5, assignmentOf(1))
		if h, took := p.heard(); h.GetState() != pb.ServiceState_SERVICE_STATE_UP || took > 0 {
			t.Errorf("without checks, next session: %v after %v", h, took)
		}
		time.Sleep(time.Second)
		if h := p.seen()[0].GetServiceHealth(); h != nil {
			t.Errorf("digest says %v", h)
		}
	})
}
