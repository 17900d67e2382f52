package server

import (
	"context"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// createFor makes a pool for an operator. It returns nil where nothing was to be
// changed.
func (p *pools) createFor(ctx context.Context, n newPool) (*host, error) {
	if n.call.RequestID != "" {
		if h, err := p.repeated(n); h != nil || err != nil {
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
		key := requestKey{n.call.RequestID, n.call.Hash}
		made := p.made[key]
		made.sure = true
		p.made[key] = made
		p.mu.Unlock()
	}
	return h, nil
}

// remember keeps the requests of a pool, one of which may have made it.
func (p *pools) remember(name member.Pool, requests []member.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range requests {
		p.made[requestKey{r.ID, r.Hash}] = madePool{pool: name, revision: r.Revision, at: r.At}
	}
}

// repeated returns the pool that an earlier call with the same request id has
// made, nil if there was none.
func (p *pools) repeated(n newPool) (*host, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, m := range p.made {
		switch {
		case time.Since(m.at) >= store.RequestLife:
			delete(p.made, key)
		case key.id == n.call.RequestID && key.hash == n.call.Hash:
			d, deleted := p.deletion(m.pool)
			if h := p.find(m.pool); h != nil && (!deleted || m.revision > d.Position.Revision) {
				return h, nil
			}
			if p.aside[m.pool] != nil {
				return nil, fmt.Errorf("create pool %s: %w", m.pool, member.ErrAlreadyExists)
			}
			return nil, fmt.Errorf("create pool %s: %w: it was deleted since", m.pool, member.ErrNotFound)
		case key.id == n.call.RequestID && (m.sure || m.pool == n.name):
			return nil, member.Invalid("request_id", "%q was used for another request", n.call.RequestID)
		}
	}
	return nil, nil
}
