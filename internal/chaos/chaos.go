package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Config says what to do.
type Config struct {
	// Bin is the folder of the programs, Dir where their logs go.
	Bin, Dir string
	// Coordinators is how many there are, Servers how many scripted agents.
	Coordinators, Servers int
	// Agents is how many real agents there are besides, with a real router.
	Agents int
	// Kills is how often the leader is killed, Crashes how often together with the
	// database, Handovers how often it is told to stop, Stops how often it is
	// stopped by SIGSTOP, Cuts how often it is cut off from the database, and
	// Outages how often the database is stopped and continued, and killed and
	// started again, under a leader that is well. The last three last for StopFor.
	Kills, Crashes, Handovers, Stops, Cuts, Outages int
	StopFor                                         time.Duration
	// Progress is told what happens.
	Progress io.Writer
}

const (
	// patience is how long whatever must happen may take.
	patience = 60 * time.Second
	// restTime is how long the pool is left alone between two faults, at most.
	restTime = 2 * time.Second
	// superseded is how long after an outage a leader that has not renewed its
	// lease would have been succeeded.
	superseded = 5 * time.Second
)

// run is one experiment.
type run struct {
	cfg    Config
	site   *site
	real   *realPart
	ledger *ledger
	calm   atomic.Bool
	report Report
	// outages counts those of the database.
	outages int
}

// Run makes the experiment. The error is that of a fault that could not be made,
// or of something that did not come back; what is wrong is in the report.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	s, err := newSite(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r := &run{cfg: cfg, site: s, ledger: newLedger()}
	r.report = newReport(cfg)
	if r.real, err = s.startReal(ctx, cfg.Agents); err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, r.real.close()) }()
	living, stop := context.WithCancel(ctx)
	defer stop()
	var lives sync.WaitGroup
	for n := range cfg.Servers {
		lives.Go(func() { newAgent(s, r.ledger, &r.calm, n).live(living) })
	}
	o := &operator{site: s, ledger: r.ledger, calm: &r.calm}
	lives.Go(func() { o.work(living) })
	if err = r.faults(ctx); err == nil {
		err = r.settle(ctx)
	}
	stop()
	lives.Wait()
	if err != nil {
		s.logs(cfg.Progress)
		return r.report, err
	}
	return r.report, r.check(ctx)
}

// faults makes all faults, in turns.
func (r *run) faults(ctx context.Context) error {
	if _, err := r.accepted(ctx, 0); err != nil {
		return err
	}
	if err := r.real.follow(ctx, 1); err != nil {
		return err
	}
	for i := range max(r.cfg.Kills, r.cfg.Handovers, r.cfg.Stops, r.cfg.Crashes, r.cfg.Cuts, r.cfg.Outages) {
		for _, f := range []struct {
			name  string
			times int
			do    func(context.Context) error
		}{
			{"kill", r.cfg.Kills, r.kill},
			{"handover", r.cfg.Handovers, r.handOver},
			{"stop", r.cfg.Stops, r.stop},
			{"crash", r.cfg.Crashes, r.crash},
			{"cut", r.cfg.Cuts, r.cut},
			{"outage", r.cfg.Outages, r.outage},
		} {
			if i >= f.times {
				continue
			}
			sleep(ctx, rand.N(restTime)) //nolint:gosec // when is no secret
			if err := f.do(ctx); err != nil {
				return fmt.Errorf("%s %d: %w", f.name, i+1, err)
			}
		}
	}
	return nil
}

// accepted waits for the first session in an epoch after a given one.
func (r *run) accepted(ctx context.Context, epoch uint64) (time.Time, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("no session was accepted"))
	defer cancel()
	for {
		at, news, ok := r.ledger.acceptedAfter(epoch)
		if ok {
			return at, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		}
	}
}

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.cfg.Progress, format+"\n", args...)
}

// kill kills the leader and starts it again once another leads.
func (r *run) kill(ctx context.Context) error {
	return r.replace(ctx, &r.report.Failover, func(c *coordinator) error { c.proc.Kill(); return nil })
}

// handOver tells the leader to stop, and starts it again.
func (r *run) handOver(ctx context.Context) error {
	return r.replace(ctx, &r.report.Handover, func(c *coordinator) error {
		c.proc.Expect()
		return c.proc.Signal(syscall.SIGTERM)
	})
}

func (r *run) replace(ctx context.Context, took *Times, end func(*coordinator) error) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := end(c); err != nil {
		return err
	}
	at, err := r.accepted(ctx, epoch)
	if err != nil {
		return err
	}
	*took = append(*took, at.Sub(begin))
	r.say("%s of epoch %d ended; the first session after it took %s", c.id, epoch, at.Sub(begin).Round(time.Millisecond))
	<-c.proc.Done()
	return r.site.start(ctx, c)
}

// stop stops the leader until another one leads, and longer, and lets it go on.
func (r *run) stop(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := c.proc.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	at, err := r.accepted(ctx, epoch)
	if err != nil {
		return err
	}
	r.report.Stopped = append(r.report.Stopped, at.Sub(begin))
	sleep(ctx, r.cfg.StopFor-time.Since(begin))
	if err := c.proc.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	r.say("%s of epoch %d was stopped for %s; the first session after it took %s", c.id, epoch,
		time.Since(begin).Round(time.Second), at.Sub(begin).Round(time.Millisecond))
	return r.standsBy(ctx, c)
}

// cut keeps the leader from the database until another one leads, and longer.
func (r *run) cut(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	c.gate.shut()
	defer c.gate.reopen()
	if _, err := r.led(ctx, epoch); err != nil {
		return err
	}
	sleep(ctx, r.cfg.StopFor-time.Since(begin))
	c.gate.reopen()
	r.say("%s of epoch %d was cut off from the database for %s", c.id, epoch, time.Since(begin).Round(time.Second))
	return r.standsBy(ctx, c)
}

// led waits until a coordinator leads in an epoch after a given one.
func (r *run) led(ctx context.Context, epoch uint64) (*coordinator, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("nobody leads anew"))
	defer cancel()
	for {
		for _, c := range r.site.all {
			status, err := c.status(ctx)
			if err == nil && status.GetState() == pb.LeaderState_LEADER_STATE_LEADER && status.GetEpoch() > epoch {
				return c, nil
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// outage takes the database away, stopped or killed in turns, and gives it back:
// the leader, which is well, must lead on in its epoch.
func (r *run) outage(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if r.outages++; r.outages%2 == 1 {
		err = r.site.server.Pause()
		sleep(ctx, r.cfg.StopFor)
		err = errors.Join(err, r.site.server.Continue())
	} else {
		err = r.site.server.Crash()
		sleep(ctx, r.cfg.StopFor)
		err = errors.Join(err, r.site.server.Recover()) //nolint:contextcheck // it has a time-out of its own
	}
	if err != nil {
		return err
	}
	r.say("the database was away for %s", time.Since(begin).Round(time.Second))
	// Whoever would take over has had the time to.
	sleep(ctx, superseded)
	now, later, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	if now != c || later != epoch {
		r.report.Superseded = append(r.report.Superseded, fmt.Sprintf("%s led in epoch %d before an outage of %s, %s in epoch %d after it",
			c.id, epoch, time.Since(begin).Round(time.Second), now.id, later))
	}
	return nil
}

// standsBy waits until a coordinator knows that it does not lead.
func (r *run) standsBy(ctx context.Context, c *coordinator) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("%s does not stand by", c.id))
	defer cancel()
	for ctx.Err() == nil {
		if status, err := c.status(ctx); err == nil && status.GetState() == pb.LeaderState_LEADER_STATE_STANDBY {
			return nil
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return context.Cause(ctx)
}

// crash kills the database and the leader at once, and starts both again.
func (r *run) crash(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := r.site.server.Crash(); err != nil {
		return err
	}
	c.proc.Kill()
	if err := r.site.server.Recover(); err != nil { //nolint:contextcheck // it has a time-out of its own
		return err
	}
	up := time.Now()
	at, err := r.accepted(ctx, epoch)
	if err != nil {
		return err
	}
	r.report.Crashed = append(r.report.Crashed, at.Sub(up))
	r.say("%s of epoch %d and the database were killed; the first session came %s after the database, which took %s", c.id, epoch,
		at.Sub(up).Round(time.Millisecond), up.Sub(begin).Round(time.Millisecond))
	return r.site.start(ctx, c)
}

// settle waits until everybody has an answer and the ring is consistent.
func (r *run) settle(ctx context.Context) error {
	r.calm.Store(true)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the pool does not settle"))
	defer cancel()
	var last error
	for ctx.Err() == nil {
		if last = r.consistent(ctx); last == nil && r.ledger.settled() {
			return r.followed(ctx)
		}
		sleep(ctx, 200*time.Millisecond)
	}
	return errors.Join(context.Cause(ctx), last)
}

// followed waits until the real agents and the router are with the present
// leader.
func (r *run) followed(ctx context.Context) error {
	_, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	return r.real.follow(ctx, epoch)
}

func (r *run) consistent(ctx context.Context) error {
	c, _, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*askTime)
	defer cancel()
	ring, err := c.client.CheckRing(ctx, &pb.CheckRingRequest{Pool: "default"})
	switch {
	case err != nil:
		return err
	case !ring.GetConsistent():
		return fmt.Errorf("the ring is not consistent: %v", ring.GetProblems())
	}
	return nil
}
