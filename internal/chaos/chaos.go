package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Config says what to do.
type Config struct {
	// Seed is what the order of the faults, and all that is drawn, comes from.
	// When things happen is up to the machine all the same.
	Seed uint64
	// Command is kept with the history: it makes the same experiment. For Series it
	// has SEED in the place of the seed.
	Command string
	// Bin is the folder of the programs; Dir is where their logs go, and the history
	// and its charts when something is wrong.
	Bin, Dir string
	// Coordinators is how many there are, Servers how many scripted agents.
	Coordinators, Servers int
	// Watchers is how many scripted routers there are.
	Watchers int
	// Agents is how many real agents there are besides, Routers how many real
	// routers with them.
	Agents, Routers int
	// Galera says that the database is a Galera cluster instead of one MariaDB.
	Galera bool
	// Kills is how often the leader is killed, Crashes how often together with the
	// database while Wave (100 if 0) servers join at once, Handovers how often it is told to stop, Stops how often it is
	// stopped by SIGSTOP, Cuts how often it is cut off from the database, and
	// Outages how often the database is stopped and continued, and killed and
	// started again, under a leader that is well. The last three last for StopFor.
	// Clocks is how often the wall clock of a program is set by ten minutes or more:
	// the leader's, the database's, the router's and an agent's in turns.
	// Others is how often a standby, a router or an agent is killed and started
	// again, or stopped for StopFor, in turns; Nodes how often a node of the
	// cluster is killed, stopped or cut off for StopFor, see harms; Hosts how often
	// the leader is killed together with the node that it writes to.
	// Slows is how often links of the coordinators are slow for StopFor, see slownesses.
	Kills, Crashes, Handovers, Stops, Cuts, Outages, Clocks, Others, Nodes, Hosts, Slows int

	Wave    int
	StopFor time.Duration
	// Unsafe lets the database acknowledge what is not on its disk yet, to show
	// that this is noticed.
	Unsafe bool
	// Progress is told what happens.
	Progress io.Writer
}

const (
	// patience is how long whatever must happen may take.
	patience = 60 * time.Second
	// restTime is how long the pool is left alone between two faults, at most.
	restTime = 2 * time.Second
	// unsafeTime is when an unsafe database has written at least who leads: it writes
	// once a second what it has acknowledged.
	unsafeTime = 3 * time.Second
)

// run is one experiment.
type run struct {
	cfg     Config
	site    *site
	real    *realPart
	ledger  *ledger
	history *history.Recorder
	// mortality is that of the scripted agents' hosts.
	mortality *mortality
	agents    []*agent
	reader    *reader
	watchers  []*watcher
	clients   []*client
	calm      atomic.Bool
	report    Report
	// visits guards what visitors tell.
	visits sync.Mutex
	// rng is that of the faults.
	rng *rand.Rand
	// clocks are those that were set, by the process.
	clocks map[int]*timepiece
	// outages counts those of the database, waves those of joining servers.
	outages, waves int
}

// random returns a generator for somebody who draws.
func (r *run) random(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name)                      // it never fails
	return rand.New(rand.NewPCG(r.cfg.Seed, h.Sum64())) //nolint:gosec // what is drawn is no secret
}

// Run makes the experiment. The error is that of a fault that could not be made,
// or of something that did not come back; what is wrong is in the report.
func Run(ctx context.Context, cfg Config) (report Report, err error) {
	cfg.Wave = cmp.Or(cfg.Wave, 100)
	s, err := newSite(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r := &run{
		cfg: cfg, site: s, ledger: newLedger(), history: history.NewRecorder(time.Now()), mortality: newMortality(), report: newReport(cfg),
		clocks: map[int]*timepiece{},
	}
	r.rng = r.random("faults")
	if r.real, err = s.startReal(ctx, cfg); err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, r.real.close()) }()
	if err = errors.Join(r.live(ctx), s.crashes(), r.real.crashes()); err != nil {
		s.logs(cfg.Progress)
	} else {
		r.reader.table(ctx)
		err = r.check(ctx)
	}
	verdict := r.judge()
	if err != nil || r.report.Wrong() > 0 {
		err = errors.Join(err, r.keep(verdict))
	}
	return r.report, err
}

// live lets everybody live while the faults are made, and waits until all is calm
// again.
func (r *run) live(ctx context.Context) error {
	living, stop := context.WithCancel(ctx)
	defer stop()
	var lives sync.WaitGroup
	defer lives.Wait()
	defer stop()
	for n := range r.cfg.Servers {
		a := r.newAgent(n, r.passing(n))
		r.agents = append(r.agents, a)
		lives.Go(func() { a.live(living) })
	}
	for n := range r.cfg.Watchers {
		w := newWatcher(r.site, r.history, r.random(fmt.Sprint("watcher ", n)), n)
		r.watchers = append(r.watchers, w)
		lives.Go(func() { w.live(living) })
	}
	r.reader = newReader(r.site, r.history, r.random("reader"))
	lives.Go(func() { r.reader.work(living) })
	for name, work := range operators() {
		o := &operator{name: name, site: r.site, ledger: r.ledger, history: r.history, rng: r.random(name), calm: &r.calm}
		lives.Go(func() { work(o, living) })
	}
	r.clients = newClients(r)
	for _, c := range r.clients {
		lives.Go(func() { c.live(living) })
	}
	lives.Go(func() { r.real.watch(living) })
	lives.Go(func() { r.mortality.reap(living, r.ledger, r.random("deaths"), &r.calm) })
	if err := r.faults(ctx); err != nil {
		return err
	}
	return r.settle(ctx)
}

// passing is the role of a server that comes and goes all the time.
func (r *run) passing(n int) role {
	rng := r.random(fmt.Sprint("stay ", n))
	return role{
		id: fmt.Sprint(serverPrefix, n), far: isFar(n), address: fmt.Sprintf("10.0.%d.%d", n/250, n%250+1),
		stay: func() time.Duration { return time.Duration(rng.Int64N(int64(stayTime))) }, stays: r.calm.Load,
	}
}

// faults makes all faults.
func (r *run) faults(ctx context.Context) error {
	if _, err := r.accepted(ctx, 0); err != nil {
		return err
	}
	if err := r.real.follow(ctx, 1, r.real.routers...); err != nil {
		return err
	}
	if r.cfg.Unsafe {
		sleep(ctx, unsafeTime)
	}
	do := map[fault]func(context.Context) error{
		faultKill: r.kill, faultHandover: r.handOver, faultStop: r.stop, faultCrash: r.crash, faultCut: r.cut, faultOutage: r.outage,
		faultClock: r.setClock, faultOther: r.other, faultNode: r.node, faultHost: r.host, faultSlow: r.slow,
	}
	for i, f := range plan(r.cfg, r.rng) {
		sleep(ctx, time.Duration(r.rng.Int64N(int64(restTime))))
		if err := do[f](ctx); err != nil {
			return fmt.Errorf("fault %d, %s: %w", i+1, f, err)
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
	return r.replace(ctx, "was killed", &r.report.Failover, func(c *coordinator) error { c.proc.Kill(); return nil })
}

// handOver tells the leader to stop, and starts it again.
func (r *run) handOver(ctx context.Context) error {
	return r.replace(ctx, "was told to stop", &r.report.Handover, func(c *coordinator) error {
		c.proc.Expect()
		return c.proc.Signal(syscall.SIGTERM)
	})
}

func (r *run) replace(ctx context.Context, how string, took *Times, end func(*coordinator) error) error {
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
	r.say("%s of epoch %d %s; the first session after it took %s", c.id, epoch, how, at.Sub(begin).Round(time.Millisecond))
	select {
	case <-c.proc.Done():
	case <-time.After(patience):
		return fmt.Errorf("%s does not end", c.id)
	}
	return r.site.start(ctx, c)
}

// stop stops the leader until another one leads, and longer, and lets it go on.
func (r *run) stop(ctx context.Context) error {
	c, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	p, begin := r.past(c), time.Now()
	if err := c.proc.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	at, err := r.accepted(ctx, epoch)
	if err != nil {
		return err
	}
	r.report.Stopped = append(r.report.Stopped, at.Sub(begin))
	sleep(ctx, r.cfg.StopFor-time.Since(begin))
	if err := r.wake(ctx, p); err != nil {
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
	c.gates.shut()
	defer c.gates.open()
	if _, err := r.led(ctx, epoch); err != nil {
		return err
	}
	sleep(ctx, r.cfg.StopFor-time.Since(begin))
	c.gates.open()
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

// settle waits until everybody has an answer and the ring is consistent.
func (r *run) settle(ctx context.Context) error {
	r.calm.Store(true)
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the pool does not settle"))
	defer cancel()
	var last error
	for ctx.Err() == nil {
		if last = r.consistent(ctx); last == nil && r.ledger.settled() {
			return errors.Join(r.followed(ctx), r.watched(ctx))
		}
		sleep(ctx, 200*time.Millisecond)
	}
	return errors.Join(context.Cause(ctx), last)
}

// followed waits until the real agents and the routers are with the present
// leader.
func (r *run) followed(ctx context.Context) error {
	_, epoch, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	return r.real.follow(ctx, epoch, r.real.routers...)
}

// watched waits until the watchers, and the clients of the routers, have all that the
// table has now.
func (r *run) watched(ctx context.Context) error {
	r.reader.revisions.Store(nil)
	for ctx.Err() == nil {
		revisions := r.reader.revisions.Load()
		if revisions != nil && !slices.ContainsFunc(r.watchers, func(w *watcher) bool { return !w.has(*revisions) }) &&
			!slices.ContainsFunc(r.clients, func(c *client) bool { return !c.has(ctx, *revisions) }) {
			return nil
		}
		sleep(ctx, 20*time.Millisecond)
	}
	return errors.New("the watchers, or the routers' clients, do not get all changes")
}

func (r *run) consistent(ctx context.Context) error {
	c, _, err := r.site.leader(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*askTime)
	defer cancel()
	ring, err := c.client.CheckRing(ctx, &pb.CheckRingRequest{Pool: chaosPool})
	switch {
	case err != nil:
		return err
	case !ring.GetConsistent():
		return fmt.Errorf("the ring is not consistent: %v", ring.GetProblems())
	}
	return nil
}
