package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/agent/health"
)

const (
	checkPeriod = time.Second
	// checkTimeout is less than the period, so that a service that hangs right
	// after a check is out of routing within 4 s: health.Fall periods and this.
	checkTimeout = 900 * time.Millisecond
	// checkEnd is how long the agent's end waits for checks that do not end.
	checkEnd = time.Second
)

// Check is one check of the server's service; see checker.Check. The checks of
// an agent have different names.
type Check interface {
	String() string
	// Run makes it once; nil is a pass. It should end when ctx does.
	Run(ctx context.Context) error
}

// healthSink takes what the checks come to, without blocking.
type healthSink func(health.Verdict)

// checkup runs the checks of the server's service. One goroutine owns what is
// known of their results, and each check has its own.
type checkup struct {
	log     *slog.Logger
	metrics *metrics

	assigned chan []Check
	attached chan healthSink
	seen     atomic.Pointer[health.Verdict]
	runs     sync.WaitGroup
	results  chan checked

	// The rest is the owner's own: running are the checks that run, by name.
	health  health.Health
	running map[string]*running
}

// running is a check that is repeated until cancel is called.
type running struct {
	// check has the name that it had before, but may be another: a password is no
	// part of a name.
	check  atomic.Pointer[Check]
	cancel context.CancelFunc
}

// checked is how a check went; failure is empty for a pass.
type checked struct{ name, failure string }

// newCheckup knows from the start whether there will be checks: nothing must be
// said in their absence before they run.
func newCheckup(log *slog.Logger, m *metrics, checks []Check) *checkup {
	c := &checkup{
		log: log, metrics: m, assigned: make(chan []Check), attached: make(chan healthSink),
		results: make(chan checked), running: map[string]*running{},
	}
	if len(checks) > 0 {
		c.seen.Store(&health.Verdict{})
	}
	return c
}

// sees returns what the checks come to, Unknown before their first results, or
// nil without checks. It does not block.
func (c *checkup) sees() *health.Verdict { return c.seen.Load() }

// assign replaces the checks.
func (c *checkup) assign(ctx context.Context, checks []Check) {
	select {
	case c.assigned <- checks:
	case <-ctx.Done():
	}
}

// attach makes s the place to say changes to, in place of the one before, and
// says what is known at present; without checks that is "up", in case there were
// some before. A nil sink drops them.
func (c *checkup) attach(ctx context.Context, s healthSink) {
	select {
	case c.attached <- s:
	case <-ctx.Done():
	}
}

// run runs the checks until ctx ends.
func (c *checkup) run(ctx context.Context, checks []Check) {
	c.begin(ctx, checks)
	known, told := c.health.Verdict().State, health.Unknown
	say := healthSink(nil)
	for {
		select {
		case <-ctx.Done():
			c.end()
			return
		case say = <-c.attached:
			told = health.Unknown
		case checks = <-c.assigned:
			c.begin(ctx, checks)
		case one := <-c.results:
			c.health.Result(one.name, one.failure)
		}
		v := c.look()
		if v.State == health.Unknown {
			continue
		}
		if v.State != known {
			known = v.State
			c.log.Info("service health changed", "state", serviceState(v.State), "text", v.Text)
		}
		if v.State != told && say != nil {
			told = v.State
			say(v)
		}
	}
}

// end waits for what is still running.
func (c *checkup) end() {
	ended := make(chan struct{})
	go func() {
		c.runs.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(checkEnd):
		c.log.Warn("a check does not end, leaving it behind")
	}
}

// begin lets these checks run, and no others.
func (c *checkup) begin(ctx context.Context, checks []Check) {
	names := make([]string, len(checks))
	for i, check := range checks {
		names[i] = check.String()
		if r := c.running[names[i]]; r != nil {
			r.check.Store(&check)
			continue
		}
		one, cancel := context.WithCancel(ctx)
		r := &running{cancel: cancel}
		r.check.Store(&check)
		c.running[names[i]] = r
		c.runs.Go(func() { c.repeat(one, r) })
	}
	for name, r := range c.running {
		if !slices.Contains(names, name) {
			r.cancel()
			delete(c.running, name)
		}
	}
	c.health.Assign(names)
	c.look()
}

// look publishes what the checks come to and returns it.
func (c *checkup) look() health.Verdict {
	v := c.health.Verdict()
	if len(c.running) == 0 {
		c.seen.Store(nil)
	} else {
		c.seen.Store(&v)
	}
	c.metrics.service(c.health.Count(), v.State)
	return v
}

// repeat makes one check every period until ctx ends.
func (c *checkup) repeat(ctx context.Context, r *running) {
	ticker := time.NewTicker(checkPeriod)
	defer ticker.Stop()
	var unended *attempt
	for {
		var err error
		check, began := *r.check.Load(), time.Now()
		unended, err = c.once(ctx, check, unended)
		if ctx.Err() != nil {
			return
		}
		c.metrics.checked(time.Since(began), err)
		one := checked{name: check.String()}
		if err != nil {
			one.failure = printable(err.Error())
		}
		select {
		case c.results <- one:
		case <-ctx.Done():
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

var (
	errNoAnswer  = fmt.Errorf("no answer within %v", checkTimeout)
	errNotEnding = fmt.Errorf("%w, and the run before still hangs", errNoAnswer)
)

// attempt is one run of a check. err may be read once ended is closed.
type attempt struct {
	ended chan struct{}
	err   error
}

// once makes a check and says how it went. A run that does not end with its time
// has failed, and is returned; while it has not ended, there is no other.
func (c *checkup) once(ctx context.Context, check Check, unended *attempt) (*attempt, error) {
	if unended != nil {
		select {
		case <-unended.ended: // too late, however it went
		default:
			return unended, errNotEnding
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	a := &attempt{ended: make(chan struct{})}
	c.runs.Go(func() {
		defer close(a.ended)
		a.err = check.Run(ctx)
	})
	select {
	case <-a.ended:
		if a.err != nil && ctx.Err() != nil {
			return nil, errNoAnswer
		}
		return nil, a.err
	case <-ctx.Done():
		return a, errNoAnswer
	}
}

func serviceState(s health.State) string {
	switch s {
	case health.Up:
		return "up"
	case health.Down:
		return "down"
	case health.Unknown:
	}
	return "unknown"
}
