package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// pools knows the host of every pool, and makes new ones. It is safe for
// concurrent use.
type pools struct {
	table Table
	lead  leadership
	// tenure says whether a pool may be made now.
	tenure *tenure
	bell   *bell
	// start runs the host of a pool; it fails once the coordinator stops.
	start func(member.PoolState) (*host, error)
	// autoCreate lets a join make a pool.
	autoCreate bool

	// making has a place for the one pool that is made, or taken out of those aside, at
	// a time.
	making chan struct{}
	mu     sync.Mutex
	// present is replaced as a whole, under mu.
	present atomic.Pointer[roster]
	// made are the request ids by which this leader has made pools.
	made map[string]member.Request
	// aside says of the pools that are in the table and not served why not.
	aside map[member.Pool]error
}

// roster is which pools there are, and were, at one moment: of a pool that was
// deleted and made again it has both, or neither. It must not be changed.
type roster struct {
	// all are the hosts by the names of their pools.
	all []*host
	// deleted are the pools that were deleted not long ago; deletions counts them.
	deleted   map[member.Pool]member.DeletedPool
	deletions int
}

func newPools(table Table, lead leadership, b *bell, autoCreate bool) *pools {
	p := &pools{
		table: table, lead: lead, bell: b, autoCreate: autoCreate,
		making: make(chan struct{}, 1), made: map[string]member.Request{},
		aside: map[member.Pool]error{},
	}
	p.present.Store(&roster{})
	return p
}

func (p *pools) answers() answers { return answers{p.table, p.tenure} }

// list returns the hosts by the names of their pools; it must not be changed.
func (p *pools) list() []*host { return p.present.Load().all }

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
func (p *pools) pick(name string) (*host, error) {
	if name == "" {
		all, others := p.list(), p.setAside()
		if n := len(all) + len(others); n != 1 {
			return nil, member.Invalid("pool", "must be named where there is more than one pool; there are %d", n)
		}
		for name, why := range others {
			return nil, notServed(name, why)
		}
		return all[0], nil
	}
	parsed, err := member.ParsePool("pool", name)
	if err != nil {
		return nil, err
	}
	if h := p.find(parsed); h != nil {
		return h, nil
	}
	if err := p.whyAside(parsed); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("find pool %s: %w", parsed, member.ErrNotFound)
}

// has reports whether the table has a pool, served or not.
func (p *pools) has(name member.Pool) bool { return p.find(name) != nil || p.whyAside(name) != nil }

// open starts the host of a pool as the table has it, or sets the pool aside
// where its rows make no sense. An error means that no pool can be served any
// more.
func (p *pools) open(state member.PoolState) error {
	err := state.Unreadable
	if err == nil {
		_, err = p.add(state)
	}
	if errors.Is(err, errTermOver) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.aside, state.Name)
	if err != nil {
		p.aside[state.Name] = err
	}
	return nil
}

// forget drops what is known of pools that are aside and no longer in the table.
func (p *pools) forget(gone func(member.Pool) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.aside, func(name member.Pool, _ error) bool { return gone(name) })
}

// setAside returns the pools that are not served, with why.
func (p *pools) setAside() map[member.Pool]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.aside)
}

// whyAside is what those are told who ask for a pool that is not served, or nil.
func (p *pools) whyAside(name member.Pool) error {
	p.mu.Lock()
	why := p.aside[name]
	p.mu.Unlock()
	if why == nil {
		return nil
	}
	return notServed(name, why)
}

func notServed(name member.Pool, why error) error {
	return rpc.WithRetry(fmt.Errorf("%w: pool %s is not served: the table has rows of it that make no sense: %w",
		member.ErrUnavailable, name, why), reopenEvery)
}

// add starts the host of a pool and lets everybody see it.
func (p *pools) add(state member.PoolState) (*host, error) {
	h, err := p.start(state)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	next := *p.present.Load()
	next.all = append(slices.Clone(next.all), h)
	slices.SortFunc(next.all, func(a, b *host) int { return cmp.Compare(a.pool, b.pool) })
	p.present.Store(&next)
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
	if err := p.whyAside(name); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if !p.autoCreate {
		return nil, fmt.Errorf("join pool %s: %w; create it first", name, member.ErrNotFound)
	}
	if d, ok := p.deletion(name); ok {
		return nil, fmt.Errorf("join pool %s: %w: it was deleted by %s at %s; create it first",
			name, member.ErrNotFound, d.Actor, d.At.UTC().Format(time.DateTime))
	}
	h, err := p.create(ctx, newPool{
		name: name, settings: member.DefaultSettings(), call: pool.Call{Actor: actorSelf, Reason: "a server asked to join it"},
	})
	if errors.Is(err, member.ErrAlreadyExists) {
		if h := p.find(name); h != nil {
			return h, nil
		}
	}
	return h, err
}

// createTime bounds the making of a pool.
const createTime = 10 * time.Second

// newPool is a pool to be made, and who asks for it.
type newPool struct {
	name     member.Pool
	settings member.Settings
	call     pool.Call
}

// actorSelf is the actor of what the coordinator does by itself.
const actorSelf = "coordinator"

// create makes a pool. It returns ErrAlreadyExists if there is one.
func (p *pools) create(ctx context.Context, n newPool) (*host, error) {
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	release, err := p.alone(ctx)
	if err != nil {
		return nil, fmt.Errorf("create pool %s: %w", n.name, err)
	}
	defer release()
	if p.has(n.name) {
		return p.madeMeanwhile(ctx, n)
	}
	if len(p.list()) >= maxPools {
		return nil, fmt.Errorf("create pool %s: %w: there are %d pools", n.name, member.ErrExhausted, maxPools)
	}
	if err := p.tenure.check(time.Now()); err != nil {
		return nil, fmt.Errorf("create pool %s: %w", n.name, err)
	}
	state, err := p.table.CreatePool(ctx, p.lead.epoch, n.row(time.Now()))
	if errors.Is(err, member.ErrAlreadyExists) {
		return p.takeOver(ctx, n)
	}
	if err != nil {
		return nil, err
	}
	return p.add(state)
}

// alone waits until nobody else makes a pool, and keeps others from it until the
// release.
func (p *pools) alone(ctx context.Context) (release func(), err error) {
	select {
	case p.making <- struct{}{}:
		return func() { <-p.making }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: others are being made", member.ErrUnavailable)
	}
}

// takeOver starts a pool that an earlier attempt has made without our hearing of
// it. It is ErrAlreadyExists unless that attempt was of the same request. Without
// such a pool it is the request id that exists, of an earlier pool of that name.
func (p *pools) takeOver(ctx context.Context, n newPool) (*host, error) {
	state, err := p.load(ctx, n.name)
	if errors.Is(err, member.ErrNotFound) {
		return nil, usedBefore(n.call.RequestID)
	}
	if err != nil {
		return nil, err
	}
	if e := state.Position.Epoch; e != p.lead.epoch {
		return nil, fmt.Errorf("take over pool %s: it is of epoch %d and not %d: %w", n.name, e, p.lead.epoch, member.ErrFenced)
	}
	h, err := p.add(state)
	if err != nil {
		return nil, err
	}
	r, err := p.answers().of(ctx, n.name, n.call.RequestID)
	if err == nil && (r == nil || r.Hash != n.call.Hash) {
		err = member.ErrAlreadyExists
	}
	if err != nil {
		return nil, fmt.Errorf("create pool %s: %w", n.name, err)
	}
	return h, nil
}

func (p *pools) load(ctx context.Context, name member.Pool) (member.PoolState, error) {
	state, err := p.stored(ctx, name)
	if err == nil && state.Unreadable != nil {
		err = fmt.Errorf("%w: %w", member.ErrUnavailable, state.Unreadable)
	}
	if err != nil {
		return member.PoolState{}, fmt.Errorf("load pool %s: %w", name, err)
	}
	return state, nil
}

// stored returns a pool as the table has it, readable or not.
func (p *pools) stored(ctx context.Context, name member.Pool) (member.PoolState, error) {
	states, err := p.table.LoadPools(ctx)
	if err != nil {
		return member.PoolState{}, err
	}
	i := slices.IndexFunc(states, func(s member.PoolState) bool { return s.Name == name })
	if i < 0 {
		return member.PoolState{}, member.ErrNotFound
	}
	return states[i], nil
}

// row is what the table gets of it, all in one transaction.
func (n newPool) row(now time.Time) store.NewPool {
	text := fmt.Sprintf("pool %s was created", n.name)
	if n.call.Reason != "" {
		text += ": " + n.call.Reason
	}
	row := store.NewPool{
		Name: n.name, Settings: n.settings,
		Events: []member.Event{{At: now, Kind: member.EventPoolCreated, Actor: n.call.Actor, Text: text}},
	}
	if n.call.RequestID != "" {
		row.Requests = []member.Request{{ID: n.call.RequestID, Hash: n.call.Hash, At: now}}
	}
	return row
}
