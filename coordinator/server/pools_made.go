package server

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// createFor makes a pool for an operator. It returns nil where nothing was to be
// changed.
func (p *pools) createFor(ctx context.Context, n newPool) (*host, error) {
	if n.call.RequestID != "" {
		if h, err := p.repeated(ctx, n); h != nil || err != nil {
			return h, err
		}
	}
	if n.call.ValidateOnly {
		if p.has(n.name) {
			return nil, fmt.Errorf("create pool %s: %w", n.name, member.ErrAlreadyExists)
		}
		return nil, nil
	}
	h, err := p.create(ctx, n)
	if err != nil {
		return nil, err
	}
	if n.call.RequestID != "" {
		p.mu.Lock()
		p.made[n.call.RequestID] = member.Request{ID: n.call.RequestID, Hash: n.call.Hash, At: time.Now()}
		p.mu.Unlock()
	}
	return h, nil
}

// repeated returns the pool that an earlier call with the same request id has
// made, nil if there was none.
func (p *pools) repeated(ctx context.Context, n newPool) (*host, error) {
	rows, err := p.answers().to(ctx, n.call.RequestID)
	if err != nil {
		return nil, fmt.Errorf("create pool %s: %w", n.name, err)
	}
	for _, r := range rows {
		if r.Hash == n.call.Hash {
			return p.madeBy(r)
		}
	}
	for _, r := range rows {
		if r.Pool == n.name {
			return nil, usedBefore(n.call.RequestID)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.made, func(_ string, r member.Request) bool { return time.Since(r.At) >= store.RequestLife })
	if r, made := p.made[n.call.RequestID]; made && r.Hash != n.call.Hash {
		return nil, usedBefore(n.call.RequestID)
	}
	return nil, nil
}

// madeMeanwhile answers for a pool that there is: the call that has made it may be the
// same one, sent again while it was under way.
func (p *pools) madeMeanwhile(ctx context.Context, n newPool) (*host, error) {
	if n.call.RequestID != "" {
		if h, err := p.repeated(ctx, n); h != nil || err != nil {
			return h, err
		}
	}
	return nil, fmt.Errorf("create pool %s: %w", n.name, member.ErrAlreadyExists)
}

// madeBy returns the pool that a request has made, nil while it is not served yet: then
// the maker has had no answer, or waits for it.
func (p *pools) madeBy(r store.PoolRequest) (*host, error) {
	if d, deleted := p.deletion(r.Pool); deleted && r.Revision <= d.Position.Revision {
		return nil, fmt.Errorf("create pool %s: %w: it was deleted since", r.Pool, member.ErrNotFound)
	}
	if p.whyAside(r.Pool) != nil {
		return nil, fmt.Errorf("create pool %s: %w", r.Pool, member.ErrAlreadyExists)
	}
	return p.find(r.Pool), nil
}
