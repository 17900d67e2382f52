package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// pools are all that the router knows. Changes are made one at a time; those
// who answer clients take the current catalog without a lock. It is safe for
// concurrent use.
type pools struct {
	// run identifies this run of the router.
	run     string
	log     *slog.Logger
	metrics *metrics
	// slowStart is how long a server takes to get its whole weight.
	slowStart time.Duration

	current atomic.Pointer[catalog]
	// seen is closed when there is a whole state to serve for the first time: that of
	// an earlier run, or all pools.
	seen chan struct{}
	open sync.Once
	// replaced is set when there is another catalog, or it has become certain.
	replaced signal
	// certain is set when pools that are not in the catalog do not exist, for a
	// coordinator has confirmed them all; enough, when xDS clients are answered.
	certain, enough atomic.Bool

	mu    sync.Mutex
	books map[member.Pool]*book
	seq   uint64
	// storeID is the store of the last stream, or of the file; epoch the highest of
	// its leaders that is known.
	storeID string
	epoch   member.Epoch
	// interval is how often the coordinator sends bookmarks, and leader when it last
	// sent one, whatever pools it serves.
	interval time.Duration
	leader   *contact
	// soft is the newest mark applied.
	soft softPoint
}

type softPoint struct {
	epoch member.Epoch
	seq   uint64
}

// book is what is kept of one pool from edition to edition.
type book struct {
	// run is that of pools.
	run  string
	view *view.View
	// edition is nil while the pool is not known.
	edition *edition
	counts  pickCounts
	warmup  *view.Warmup
	turns   *atomic.Uint64
	contact *contact
	// leader is that of pools.
	leader  *contact
	metrics *poolMetrics
	// otherHistory says that the coordinator has found the view to be of another
	// history; the snapshot that follows begins it anew.
	otherHistory bool
}

// catalog is what clients are answered from.
type catalog struct {
	pools map[member.Pool]*edition
}

// standing is what the router has applied: what it resumes from and what it
// acknowledges.
type standing struct {
	storeID string
	soft    softPoint
	pools   []*edition
}

const defaultInterval = time.Second

var (
	errNoState = errors.New("the router has never seen any state")
	errNotAll  = errors.New("the router has not seen all pools yet")
)

func newPools(m *metrics, log *slog.Logger) *pools {
	return &pools{
		run: rand.Text(), log: log, metrics: m, seen: make(chan struct{}), replaced: newSignal(),
		books: map[member.Pool]*book{}, interval: defaultInterval, leader: newContact(time.Time{}),
	}
}

// find returns the current edition of a pool. The name may be empty where there
// is only one. That a pool does not exist is only said when that is certain.
func (p *pools) find(name string) (*edition, error) {
	c := p.current.Load()
	if c == nil {
		return nil, fmt.Errorf("%w: %w", member.ErrUnavailable, errNoState)
	}
	if e, ok := c.pools[member.Pool(name)]; ok {
		return e, nil
	}
	if name == "" {
		if err := p.ready(); err != nil {
			return nil, fmt.Errorf("%w: %w", member.ErrUnavailable, err)
		}
		return c.only()
	}
	pool, err := member.ParsePool("pool", name)
	if err != nil {
		return nil, err
	}
	if !p.certain.Load() {
		return nil, fmt.Errorf("pool %q: %w: %w", pool, member.ErrUnavailable, errNotAll)
	}
	return nil, fmt.Errorf("pool %q: %w", pool, member.ErrNotFound)
}

func (c *catalog) only() (*edition, error) {
	if len(c.pools) == 0 {
		return nil, fmt.Errorf("there is no pool: %w", member.ErrNotFound)
	}
	if len(c.pools) > 1 {
		return nil, member.Invalid("pool", "must be given, for there are %d pools", len(c.pools))
	}
	for _, e := range c.pools {
		return e, nil
	}
	return nil, member.ErrNotFound
}

// editions are the current ones, in no order.
func (p *pools) editions() []*edition {
	c := p.current.Load()
	if c == nil {
		return nil
	}
	all := make([]*edition, 0, len(c.pools))
	for _, e := range c.pools {
		all = append(all, e)
	}
	return all
}

// standing returns where the router stands.
func (p *pools) standing() standing {
	p.mu.Lock()
	defer p.mu.Unlock()
	return standing{storeID: p.storeID, soft: p.soft, pools: p.editions()}
}

// ready is an error until there is a whole state to serve.
func (p *pools) ready() error {
	select {
	case <-p.seen:
		return nil
	default:
	}
	if p.current.Load() == nil {
		return errNoState
	}
	return errNotAll
}

// see says that there is.
func (p *pools) see() { p.open.Do(func() { close(p.seen) }) }

// restore takes the views of an earlier run.
func (p *pools) restore(last state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.storeID = last.storeID
	for _, s := range last.pools {
		b := p.book(s.view.Pool())
		b.contact = newContact(s.confirmed)
		p.publish(b, s.view)
	}
	if len(last.pools) > 0 {
		p.see()
	}
}

// book returns the book of a pool, which is made if it is not there. It needs
// the lock, as do those below.
func (p *pools) book(name member.Pool) *book {
	b := p.books[name]
	if b == nil {
		b = &book{
			run: p.run, view: view.New(name), counts: newPickCounts(), turns: new(atomic.Uint64), warmup: view.NewWarmup(p.slowStart),
			contact: newContact(time.Time{}), leader: p.leader, metrics: p.metrics.pool(name),
		}
		p.books[name] = b
	}
	return b
}

// publish makes v the view of its pool, and an edition of it if clients can see
// the difference.
func (p *pools) publish(b *book, v *view.View) {
	before := b.view
	b.view = v
	if v.StoreID() == p.storeID {
		p.epoch = max(p.epoch, v.Epoch())
	}
	if !v.Known() || b.edition != nil && v.Table() == before.Table() &&
		v.Position() == before.Position() && v.ChangeID() == before.ChangeID() && v.StoreID() == before.StoreID() {
		return
	}
	if b.edition == nil || v.Table() != before.Table() {
		b.warmup = b.warmup.Follow(v.Table(), time.Now())
	}
	p.issue(b)
}

// issue makes an edition of a book.
func (p *pools) issue(b *book) {
	p.seq++
	old := b.edition
	b.edition = newEdition(b, p.seq)
	p.replace(b.view.Pool(), b.edition)
	if old != nil {
		close(old.superseded)
	}
}

// replace puts an edition into the catalog, or takes the pool out if nil.
func (p *pools) replace(name member.Pool, e *edition) {
	next := &catalog{pools: map[member.Pool]*edition{}}
	old := p.current.Load()
	if old != nil {
		maps.Copy(next.pools, old.pools)
	}
	if e == nil {
		delete(next.pools, name)
	} else {
		next.pools[name] = e
	}
	p.current.Store(next)
	p.replaced.set()
}

// remove forgets a pool.
func (p *pools) remove(name member.Pool) {
	b := p.books[name]
	if b == nil {
		return
	}
	delete(p.books, name)
	p.metrics.forget(name)
	if b.edition != nil {
		p.replace(name, nil)
		close(b.edition.superseded)
	}
}

// markPatience is how long marks hold that could not be renewed because no
// coordinator was there, once one is: as long as a new one.
const markPatience = 30 * time.Second

// expire drops the marks that have not been renewed, though a coordinator is there
// that could have. Without one, who was bad at the last is taken to be so still.
func (p *pools) expire(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, b := range p.books {
		if _, stale := b.contact.age(now); stale && b.view.Known() {
			p.publish(b, b.view.Postpone(now.Add(markPatience)))
			continue
		}
		p.publish(b, b.view.Expire(now))
		if _, marked := b.view.NextExpiry(); !marked && !b.view.Known() {
			p.remove(name)
		}
	}
}

// decay lets the picks of the past fade.
func (p *pools) decay() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.books {
		b.counts.decay()
	}
}

// warm gives servers that are new to work more of it as time goes by, and tells all
// clients.
func (p *pools) warm(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.books {
		if next := b.warmup.Advance(now); next != b.warmup {
			b.warmup = next
			p.issue(b)
		}
	}
}
