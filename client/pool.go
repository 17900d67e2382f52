package client

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// Pool is a pool as this program knows it. It is safe for concurrent use.
type Pool struct {
	cfg  Config
	name member.Pool
	// policy is cfg.Policy.
	policy view.Policy
	log    *slog.Logger
	disk   *disk

	state  atomic.Pointer[state]
	status atomic.Pointer[Status]
	turns  atomic.Uint64

	cancel context.CancelFunc
	// closed is closed by Close.
	closed  <-chan struct{}
	running sync.WaitGroup
}

// Open begins to follow a pool, until Close. It does not wait for a router: see
// Wait. What an earlier run has left in Config.StateDir is used from the first
// moment on.
func Open(cfg Config) (*Pool, error) {
	p, err := newPool(cfg)
	if err != nil {
		return nil, fmt.Errorf("open pool: %w", err)
	}
	p.state.Store(unknown(nil))
	p.restore()
	p.start()
	return p, nil
}

func newPool(cfg Config) (*Pool, error) {
	name, err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Pool{cfg: cfg, name: name, log: cfg.logger(name)}
	p.policy, _ = policyOf(cfg.Policy)
	p.status.Store(&Status{})
	if cfg.StateDir != "" {
		p.disk = newDisk(cfg.StateDir, name, p.log)
	}
	return p, nil
}

func (p *Pool) restore() {
	if p.disk == nil {
		return
	}
	if last, ok := p.disk.load(); ok {
		p.status.Store(&Status{Confirmed: last.confirmed})
		p.state.Store(p.state.Load().then(last.list))
	}
}

func (p *Pool) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.closed = cancel, ctx.Done()
	p.running.Go(func() { newFollower(p).run(ctx) })
	if p.disk != nil {
		p.running.Go(func() { p.disk.run(ctx, p.saved) })
	}
}

// Close ends what Open began, and returns when it has ended. Picks go on with
// what was known last.
func (p *Pool) Close() error {
	p.cancel()
	p.running.Wait()
	return nil
}

// Wait returns when something is known of the pool. When ctx ends before, the
// error says why nothing is.
func (p *Pool) Wait(ctx context.Context) error {
	for {
		s := p.state.Load()
		if s.list != nil {
			return nil
		}
		if err := p.changed(ctx, s); err != nil {
			return fmt.Errorf("%w: %w", err, p.refusal(s))
		}
	}
}

// ready returns when something is known of the pool, or with an error when all
// routers have been tried in vain.
func (p *Pool) ready(ctx context.Context) error {
	for {
		s := p.state.Load()
		if s.list != nil {
			return nil
		}
		if s.failure != nil {
			return p.refusal(s)
		}
		if err := p.changed(ctx, s); err != nil {
			return fmt.Errorf("%w: %w", err, p.refusal(s))
		}
	}
}

// changed returns when s is over, or with an error when ctx ends or the pool is
// closed.
func (p *Pool) changed(ctx context.Context, s *state) error {
	select {
	case <-s.superseded:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.closed:
		return ErrClosed
	}
}

// View returns the pool as it is known now. Without any knowledge it is empty.
func (p *Pool) View() View { return p.view(p.state.Load()) }

func (p *Pool) view(s *state) View {
	v := View{Pool: string(p.name), Servers: s.servers}
	if s.list != nil {
		v.StoreID = s.list.storeID
		v.Epoch, v.Revision = uint64(s.list.position.Epoch), uint64(s.list.position.Revision)
	}
	return v
}

// Watch yields the pool as it is, once something is known of it, and then
// whenever its servers have changed, until ctx ends or the pool is closed. Who is
// slow gets the newest view only.
func (p *Pool) Watch(ctx context.Context) iter.Seq[View] {
	return func(yield func(View) bool) {
		for {
			s := p.state.Load()
			if s.list != nil && !yield(p.view(s)) {
				return
			}
			if p.changed(ctx, s) != nil {
				return
			}
		}
	}
}

// Status says how old what is known may be.
func (p *Pool) Status() Status { return *p.status.Load() }

// The methods below are called by one goroutine only.

// known is the list in use; nil for none.
func (p *Pool) known() *list { return p.state.Load().list }

// use makes l the list in use.
func (p *Pool) use(l *list) {
	if p.known() == l {
		return
	}
	p.put(p.state.Load().then(l))
	if p.disk != nil {
		p.disk.dirty.set()
	}
}

// fail tells those who wait why nothing is known.
func (p *Pool) fail(err error) {
	if p.known() == nil {
		p.put(unknown(err))
	}
}

func (p *Pool) put(next *state) {
	last := p.state.Swap(next)
	if next.superseded != last.superseded {
		close(last.superseded)
	}
}

// follows notes that a router has just confirmed the list in use, with an age.
func (p *Pool) follows(router string, age time.Duration) {
	p.status.Store(&Status{Router: router, Confirmed: time.Now().Add(-age)})
}

// lost notes that no router is followed.
func (p *Pool) lost(err error) {
	p.status.Store(&Status{Confirmed: p.Status().Confirmed, Failure: err})
}

// saved is what belongs on disk now.
func (p *Pool) saved() (saved, bool) {
	l := p.known()
	return saved{pool: p.name, list: l, confirmed: p.Status().Confirmed}, l != nil
}
