package daemon

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/buddyring/buddyring/agent/shell"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// fenceTime is how long what is done about a removal may take.
	fenceTime = 30 * time.Second
	// fenceEnd is how long it may take to end after that, or with the agent. A
	// command that waits for a dead disk cannot be killed.
	fenceEnd = time.Second
	// diskTime is how long the agent waits for a disk that does not answer, where
	// it has to wait for it at all.
	diskTime = 5 * time.Second
)

var (
	errFenceTime = fmt.Errorf("it did not end within %v", fenceTime)
	errFenceLeft = errors.New("it does not end when it is killed, leaving it behind")
)

// Removal says that others, by verdict or by hand, have taken an incarnation of
// the agent's server out of its pool.
type Removal struct {
	Pool        member.Pool
	ID          member.ID
	Incarnation member.Incarnation
	// Cause is CauseUnspecified where the coordinator does not remember it.
	Cause member.Cause
}

// removed takes the news that an incarnation is over. If the agent held it, in
// this boot of the host, and has not asked for its end, Deps.OnRemoved is called,
// once: the incarnation is forgotten first.
func (d *Daemon) removed(ctx context.Context, e *member.RemovedError) {
	s := d.keeper.get()
	if s.Incarnation == 0 || s.Incarnation != e.Incarnation || e.ID != d.id.server {
		return
	}
	d.persist(ctx, func(st *State) { st.Incarnation, st.Leaving = 0, false })
	if s.Leaving || d.leaving.isAsked() {
		d.log.Info("left the pool", "incarnation", e.Incarnation)
		return
	}
	d.metrics.removals.Inc()
	d.log.Warn("others have taken this server out of its pool", "incarnation", e.Incarnation, "cause", reasonOf(e.Cause))
	if d.deps.OnRemoved == nil || s.BootID != d.id.bootID {
		return
	}
	d.fence(ctx, Removal{Pool: d.id.pool, ID: e.ID, Incarnation: e.Incarnation, Cause: e.Cause})
}

func (d *Daemon) fence(ctx context.Context, r Removal) {
	ctx, cancel := context.WithTimeoutCause(ctx, fenceTime, errFenceTime)
	defer cancel()
	began := time.Now()
	output, err := d.runFence(ctx, r)
	log := d.log.With("incarnation", r.Incarnation, "took", time.Since(began).Round(time.Millisecond), "output", output)
	if err != nil {
		log.Warn("on-removed command failed", "error", err)
		return
	}
	log.Info("on-removed command has ended")
}

// runFence calls Deps.OnRemoved and returns soon after ctx has ended, even if the
// call does not.
func (d *Daemon) runFence(ctx context.Context, r Removal) (output string, err error) {
	type result struct {
		output string
		err    error
	}
	ended := make(chan result, 1)
	go func() {
		output, err := d.deps.OnRemoved(ctx, r)
		ended <- result{output, err}
	}()
	select {
	case e := <-ended:
		return e.output, e.err
	case <-ctx.Done():
	}
	select {
	case e := <-ended:
		return e.output, e.err
	case <-time.After(fenceEnd):
		return "", errors.Join(context.Cause(ctx), errFenceLeft)
	}
}

// persist changes the state and waits until the disk has been tried, or has not
// answered for diskTime.
func (d *Daemon) persist(ctx context.Context, change func(*State)) {
	tried := make(chan struct{})
	d.keeper.update(change, func(error) (again bool) {
		close(tried)
		return false
	})
	select {
	case <-tried:
	case <-time.After(diskTime):
		d.log.Warn("the state directory does not answer, going on without", "file", d.deps.Store.Path())
	case <-ctx.Done():
	}
}

// onRemoved returns a Deps.OnRemoved that runs a command line, or nil for none.
func onRemoved(line string) func(context.Context, Removal) (string, error) {
	if line == "" {
		return nil
	}
	return func(ctx context.Context, r Removal) (string, error) {
		return shell.Run(ctx, line, []string{
			"BUDDYRING_POOL=" + string(r.Pool),
			"BUDDYRING_SERVER_ID=" + string(r.ID),
			"BUDDYRING_INCARNATION=" + strconv.FormatUint(uint64(r.Incarnation), 10),
			"BUDDYRING_REASON=" + reasonOf(r.Cause),
		})
	}
}

// reasonOf is a cause in one word.
func reasonOf(c member.Cause) string {
	if c == member.CauseUnspecified {
		return "unknown"
	}
	return c.String()
}
