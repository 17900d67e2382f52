package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// wavePrefix begins the ids of the servers that join all at once.
const wavePrefix = "wave-"

// wave are servers that join at once and stay until they are told to leave.
type wave struct {
	leaving atomic.Bool
	lives   sync.WaitGroup
	stop    context.CancelFunc
}

func (r *run) surge(ctx context.Context) *wave {
	ctx, stop := context.WithCancel(ctx)
	w := &wave{stop: stop}
	r.waves++
	for n := range r.cfg.Wave {
		a := r.newAgent(1000*r.waves+n, role{
			id: fmt.Sprint(wavePrefix, n), address: fmt.Sprintf("10.1.%d.%d", n/250, n%250+1), once: true,
			stay: func() time.Duration { return 0 }, stays: func() bool { return !w.leaving.Load() },
		})
		w.lives.Go(func() { a.live(ctx) })
	}
	return w
}

// ebb lets all of them leave.
func (w *wave) ebb(ctx context.Context) error {
	w.leaving.Store(true)
	gone := make(chan struct{})
	go func() {
		w.lives.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return nil
	case <-time.After(patience):
	case <-ctx.Done():
	}
	w.stop()
	<-gone
	return errors.New("the servers of a wave do not leave")
}

// crash kills the database and the leader at once while servers join, and starts
// both again. Who has been welcomed by then must be in the table.
func (r *run) crash(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	w := r.surge(ctx)
	defer func() { w.stop(); w.lives.Wait() }()
	if err := r.joining(ctx, 1+r.rng.IntN(max(1, r.cfg.Wave-1))); err != nil {
		return err
	}
	begin := time.Now()
	if err := r.killBoth(c); err != nil {
		return err
	}
	welcomed := r.ledger.members(wavePrefix)
	if err := r.site.servers.Recover(); err != nil {
		return err
	}
	up := time.Now()
	if err := r.survived(ctx, welcomed); err != nil {
		return err
	}
	at, err := r.accepted(ctx, epoch)
	if err != nil {
		return err
	}
	r.report.Crashed = append(r.report.Crashed, at.Sub(up))
	r.say("%s of epoch %d and the database were killed after %d of %d joins; the first session came %s after the database, which took %s",
		c.id, epoch, len(welcomed), r.cfg.Wave, at.Sub(up).Round(time.Millisecond), up.Sub(begin).Round(time.Millisecond))
	return errors.Join(r.site.start(ctx, c), w.ebb(ctx))
}

// joining waits until so many servers of the wave are welcomed.
func (r *run) joining(ctx context.Context, n int) error {
	deadline := time.Now().Add(patience)
	for len(r.ledger.members(wavePrefix)) < n {
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("wait until %d of a wave have joined: %w", n, context.DeadlineExceeded)
		}
		sleep(ctx, time.Millisecond)
	}
	return nil
}

// killBoth kills a coordinator and the database, in either order.
func (r *run) killBoth(c *coordinator) error {
	kill := []func() error{
		func() error { c.proc.Expect(); return c.proc.Signal(syscall.SIGKILL) },
		r.site.servers.Crash,
	}
	first := r.rng.IntN(2)
	err := errors.Join(kill[first](), kill[1-first]())
	<-c.proc.Done()
	return err
}

// survived looks for servers in the table as it came out of a crash. They do not
// leave meanwhile.
func (r *run) survived(ctx context.Context, welcomed map[string]uint64) error {
	rows, err := r.rows(ctx)
	if err != nil {
		return err
	}
	r.report.WaveJoins += len(welcomed)
	for id, incarnation := range welcomed {
		if rows[id] != incarnation {
			r.report.Lost = append(r.report.Lost, fmt.Sprintf("%s was welcomed as incarnation %d, the table has %d after a crash", id, incarnation, rows[id]))
		}
	}
	return nil
}
