// Package daemon is the agent of one server: it holds the session with the
// coordinator, keeps the buddy list on disk, has the servers on it probed, and
// speaks for its own server.
//
// It never decides that a server is down: it reports what it sees, and answers
// what it is asked. Without a coordinator it goes on watching.
package daemon

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/agent/prober"
	"github.com/buddyring/buddyring/internal/member"
)

// Config is what an agent is told.
type Config struct {
	Pool member.Pool
	ID   member.ID
	// Spec is what the server says about itself. Without probe addresses they are
	// found by Deps.Route.
	Spec member.Spec
	// Coordinators are HOST:PORT, at least one, in order of preference.
	Coordinators []string
	// DrainTimeout is how long routers may take, at a leave, to confirm that they
	// send the server nothing more; 0 to leave at once, however many others are
	// away.
	DrainTimeout time.Duration
	// Checks are of the server's service; their names are different.
	Checks []Check
	// BootID identifies the boot of the host.
	BootID string
	// Version is the program's.
	Version string
}

// Conn is a connection to one coordinator.
type Conn interface {
	grpc.ClientConnInterface
	io.Closer
}

// Deps is what an agent works with.
type Deps struct {
	// Dial returns a connection to the coordinator at an address, which is
	// resolved anew each time; errors of calls are those of package member.
	Dial func(address string) (Conn, error)
	// Route returns this host's addresses on the way to a coordinator, at most
	// one per family, or none where it cannot tell.
	Route func(ctx context.Context, address string) []netip.Addr
	// Prober sends probes; Loopback is a probe of this host itself.
	Prober   Prober
	Loopback prober.Target
	Store    Store
	// OnRemoved is called when others have taken the server out of its pool,
	// before it joins again: at most once for an incarnation, unless the store
	// failed. It should end soon after ctx; the agent waits no longer. It returns
	// what to log. It may be nil.
	OnRemoved func(ctx context.Context, r Removal) (output string, err error)
	Registry  *prometheus.Registry
	Logger    *slog.Logger
}

// identity is who the agent is.
type identity struct {
	pool               member.Pool
	server             member.ID
	bootID, instanceID string
	version            string
}

// Daemon is an agent. Use New.
type Daemon struct {
	cfg     Config
	deps    Deps
	id      identity
	log     *slog.Logger
	metrics *metrics
	keeper  *keeper
	watcher *watcher
	checkup *checkup

	// present is the spec to say hello with.
	present atomic.Pointer[member.Spec]
	respec  chan struct{}
	// floor is the lowest epoch whose messages are taken.
	floor   atomic.Uint64
	leaving *leaving
	link    *link
	// standing is what a coordinator has said last.
	standing atomic.Pointer[standing]
	// complaint is the connect loop's own.
	complaint complaint
}

// New returns an agent that does nothing until Run.
func New(cfg Config, deps Deps) (*Daemon, error) {
	if len(cfg.Coordinators) == 0 {
		return nil, member.Invalid("coordinator", "at least one is needed")
	}
	m := newMetrics(deps.Registry)
	d := &Daemon{
		cfg: cfg, deps: deps, log: deps.Logger, metrics: m,
		id: identity{
			pool: cfg.Pool, server: cfg.ID, bootID: cfg.BootID, instanceID: rand.Text(), version: cfg.Version,
		},
		keeper:  newKeeper(deps.Store, deps.Logger, m),
		watcher: newWatcher(deps.Prober, deps.Loopback, deps.Logger, m),
		checkup: newCheckup(deps.Logger, m, cfg.Checks),
		respec:  make(chan struct{}, 1),
		leaving: newLeaving(),
		link:    newLink(m),
	}
	d.present.Store(&cfg.Spec)
	d.standing.Store(&standing{})
	return d, nil
}

// Run watches whom the store says, joins the pool and serves the coordinator
// until ctx ends or Leave has succeeded; then it returns nil. Ending ctx leaves
// the server in the pool.
func (d *Daemon) Run(ctx context.Context) error {
	d.remember()
	d.link.down(time.Now(), errNotYet)
	endKeeper := d.startKeeper(ctx)
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		d.watcher.run(ctx)
		return nil
	})
	work.Go(func() error {
		d.checkup.run(ctx, d.cfg.Checks)
		return nil
	})
	work.Go(func() error {
		if a := d.keeper.get().Assignment; len(a.Subjects) > 0 {
			d.watcher.assign(ctx, a)
		}
		return d.stayConnected(ctx)
	})
	err := work.Wait()
	d.watcher.probes.Wait()
	endKeeper()
	d.leaving.end(err)
	if errors.Is(err, errLeft) {
		return nil
	}
	return err
}

// startKeeper has changes of the state saved until the function that it returns
// is called, which saves the last ones. A disk that does not answer keeps the
// agent from ending for diskTime only.
func (d *Daemon) startKeeper(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.keeper.run(ctx)
		d.keeper.save()
	}()
	return func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(diskTime):
			d.log.Warn("the state directory does not answer, leaving it behind", "file", d.deps.Store.Path())
		}
	}
}

// remember takes the state of an earlier run, unless it is another server's.
func (d *Daemon) remember() {
	d.keeper.load()
	s := d.keeper.get()
	if s.ID != "" && (s.Pool != d.cfg.Pool || s.ID != d.cfg.ID) {
		d.log.Warn("saved state is another server's, starting without it", "file", d.deps.Store.Path(),
			"saved_pool", s.Pool, "saved_id", s.ID)
		s = State{}
		d.keeper.update(func(st *State) { *st = s }, nil)
	}
	d.floor.Store(uint64(s.Epoch))
	d.log.Info("agent starts", "pool", d.cfg.Pool, "server_id", d.cfg.ID, "incarnation", s.Incarnation,
		"subjects", len(s.Assignment.Subjects), "version", d.cfg.Version)
}

// Update says something new about the server; a running session is resumed with
// it.
func (d *Daemon) Update(spec member.Spec) {
	if d.present.Swap(&spec).Equal(spec) {
		return
	}
	select {
	case d.respec <- struct{}{}:
	default:
	}
}

// Recheck replaces the checks of the server's service while Run runs, or until
// ctx ends. Those that stay keep what is known of them.
func (d *Daemon) Recheck(ctx context.Context, checks []Check) { d.checkup.assign(ctx, checks) }

// Leave reports that the server shuts down and waits until it has left the pool
// or ctx ends. After it has left, Run returns.
func (d *Daemon) Leave(ctx context.Context, reason string) error {
	d.leaving.ask(reason, time.Now().Add(d.cfg.DrainTimeout))
	select {
	case <-d.leaving.over:
		return d.leaving.outcome()
	case <-ctx.Done():
	}
	select {
	case <-d.leaving.over: // both: ctx may have ended because of it
		return d.leaving.outcome()
	default:
	}
	if text := d.leaving.refusal(); text != "" {
		refused := &member.RefusedError{Rule: "coordinator", Reason: text}
		return fmt.Errorf("leave pool: %w; the agent ends anyway, and its server stays in the pool", refused)
	}
	return fmt.Errorf("leave pool: %w: %w", ctx.Err(), cmp.Or(d.link.trouble(), errNoResult))
}

// stand notes what an operator wants of the server, and says so when it is new.
func (d *Daemon) stand(now standing) {
	if last := d.standing.Swap(&now); *last == now {
		return
	}
	d.metrics.stand(now)
	if now.drained {
		d.log.Warn("the server is drained: it gets no new work until an operator resumes it", "actor", now.actor, "reason", now.reason)
		return
	}
	d.log.Info("the server is not drained any more")
}

// Says is what people should know of an agent that is in service, "" for nothing.
func (d *Daemon) Says() string { return d.standing.Load().text() }

// Ready says why the agent is not in service, or nil. It does not block.
func (d *Daemon) Ready() error {
	err := d.link.trouble()
	if err == nil {
		return nil
	}
	return fmt.Errorf("no session for %v, still watching %d servers: %w",
		d.link.since(time.Now()).Round(time.Second), len(d.watcher.sees().views), err)
}

var (
	errNotYet   = errors.New("no coordinator has accepted it yet")
	errNoResult = errors.New("the coordinator has not said yet how it went")
)
