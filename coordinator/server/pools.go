package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// pools knows the host of every pool, and makes new ones. It is safe for
// concurrent use.
type pools struct {
	table Table
	lead  leadership
	bell  *bell
	// start runs the host of a pool; it fails once the coordinator stops.
	start func(member.PoolState) (*host, error)
	// autoCreate lets a join make a pool.
	autoCreate bool

	// making has a place for the one pool that is made at a time.
	making chan struct{}
	mu     sync.Mutex
	// all is replaced as a whole; it is sorted by name.
	all atomic.Pointer[[]*host]
	// made are the answers to request ids of CreatePool.
	made map[string]madePool
}

// madePool is the answer to a CreatePool with a request id.
type madePool struct {
	hash string
	pool member.Pool
	at   time.Time
}

func newPools(table Table, lead leadership, b *bell, autoCreate bool) *pools {
	p := &pools{
		table: table, lead: lead, bell: b, autoCreate: autoCreate,
		making: make(chan struct{}, 1), made: map[string]madePool{},
	}
	p.all.Store(&[]*host{})
	return p
}

// list returns the hosts by the names of their pools; it must not be changed.
func (p *pools) list() []*host { return *p.all.Load() }

// find returns the host of a pool, or nil.
func (p *pools) find(name member.Pool) *host {
	all := p.list()
	i, ok := slices.BinarySearchFunc(all, name, func(h *host, n member.Pool) int { return cmp.Compare(h.pool, n) })
	if !ok {
		return nil
	}
	return all[i]
}

// pick returns the pool that a request names, or the only one if it names none.
func (p *pools) pick(field, name string) (*host, error) {
	if name == "" {
		if all := p.list(); len(all) == 1 {
			return all[0], nil
		}
		return nil, member.Invalid(field, "must be named where there is more than one pool; there are %d", len(p.list()))
	}
	parsed, err := member.ParsePool(field, name)
	if err != nil {
		return nil, err
	}
	if h := p.find(parsed); h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("find pool %s: %w", parsed, member.ErrNotFound)
}

// add starts the host of a pool and lets everybody see it.
func (p *pools) add(state member.PoolState) (*host, error) {
	h, err := p.start(state)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	all := append(slices.Clone(p.list()), h)
	slices.SortFunc(all, func(a, b *host) int { return cmp.Compare(a.pool, b.pool) })
	p.all.Store(&all)
	p.mu.Unlock()
	p.bell.ring()
	return h, nil
}

// forJoin returns the host of the pool that an agent wants to join, and makes
// the pool where that is allowed.
func (p *pools) forJoin(ctx context.Context, name member.Pool) (*host, error) {
	if h := p.find(name); h != nil {
		return h, nil
	}
	if !p.autoCreate {
		return nil, fmt.Errorf("join pool %s: %w; create it first", name, member.ErrNotFound)
	}
	h, err := p.create(ctx, name, member.DefaultSettings(), "coordinator", "a server asked to join it")
	if errors.Is(err, member.ErrAlreadyExists) {
		if h := p.find(name); h != nil {
			return h, nil
		}
	}
	return h, err
}

// createTime bounds the making of a pool.
const createTime = 10 * time.Second

// create makes a pool. It returns ErrAlreadyExists if there is one.
func (p *pools) create(
	ctx context.Context, name member.Pool, settings member.Settings, actor, reason string,
) (*host, error) {
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	select {
	case p.making <- struct{}{}:
		defer func() { <-p.making }()
	case <-ctx.Done():
		return nil, fmt.Errorf("create pool %s: %w: others are being made", name, member.ErrUnavailable)
	}
	if p.find(name) != nil {
		return nil, fmt.Errorf("create pool %s: %w", name, member.ErrAlreadyExists)
	}
	if len(p.list()) >= maxPools {
		return nil, fmt.Errorf("create pool %s: %w: there are %d pools", name, member.ErrExhausted, maxPools)
	}
	state, err := p.table.CreatePool(ctx, p.lead.epoch, name, settings, createdEvent(name, actor, reason))
	if errors.Is(err, member.ErrAlreadyExists) {
		// An earlier attempt went through without our hearing of it.
		state, err = p.load(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	return p.add(state)
}

func (p *pools) load(ctx context.Context, name member.Pool) (member.PoolState, error) {
	states, err := p.table.LoadPools(ctx)
	if err != nil {
		return member.PoolState{}, err
	}
	for _, s := range states {
		if s.Name == name {
			return s, nil
		}
	}
	return member.PoolState{}, fmt.Errorf("load pool %s: %w", name, member.ErrNotFound)
}

func createdEvent(name member.Pool, actor, reason string) member.Event {
	text := fmt.Sprintf("pool %s was created", name)
	if reason != "" {
		text += ": " + reason
	}
	return member.Event{At: time.Now(), Kind: member.EventPoolCreated, Actor: actor, Text: text}
}

// createFor makes a pool for an operator. It returns nil where nothing was to be
// changed.
func (p *pools) createFor(
	ctx context.Context, name member.Pool, settings member.Settings, call pool.Call,
) (*host, error) {
	if call.RequestID != "" {
		if h, err := p.repeated(call); h != nil || err != nil {
			return h, err
		}
	}
	if call.ValidateOnly {
		if p.find(name) != nil {
			return nil, fmt.Errorf("create pool %s: %w", name, member.ErrAlreadyExists)
		}
		return nil, nil
	}
	h, err := p.create(ctx, name, settings, call.Actor, call.Reason)
	if err != nil {
		return nil, err
	}
	if call.RequestID != "" {
		p.mu.Lock()
		p.made[call.RequestID] = madePool{hash: call.Hash, pool: name, at: time.Now()}
		p.mu.Unlock()
	}
	return h, nil
}

// requestLife is how long the answer to a request id is kept.
const requestLife = time.Hour

// repeated returns the pool that an earlier call with the same request id has
// made, nil if there was none.
func (p *pools) repeated(call pool.Call) (*host, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, m := range p.made {
		if time.Since(m.at) >= requestLife {
			delete(p.made, id)
		}
	}
	m, ok := p.made[call.RequestID]
	switch {
	case !ok:
		return nil, nil
	case m.hash != call.Hash:
		return nil, member.Invalid("request_id", "%q was used for another request", call.RequestID)
	}
	return p.find(m.pool), nil
}
