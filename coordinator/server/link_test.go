package server_test

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/buddyring/buddyring/coordinator/server"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// link is one coordinator's way to a table that it shares with others. It can be
// cut.
type link struct {
	server.Store

	down atomic.Bool
	// lossy loses what is read, without an error.
	lossy atomic.Bool
	// tries counts what was to be made durable, whether it came through or not.
	tries atomic.Int64
}

func (l *link) broken() error {
	if l.down.Load() {
		return errDown
	}
	return nil
}

// lost is broken for what is read.
func (l *link) lost(ctx context.Context) error {
	if l.lossy.Load() {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", member.ErrUnavailable, ctx.Err())
	}
	return l.broken()
}

func (l *link) Lease(ctx context.Context) (member.Lease, error) {
	if err := l.lost(ctx); err != nil {
		return member.Lease{}, err
	}
	return l.Store.Lease(ctx)
}

func (l *link) Lead(ctx context.Context, c store.Claim) (store.Leadership, error) {
	if err := l.broken(); err != nil {
		return store.Leadership{}, err
	}
	return l.Store.Lead(ctx, c)
}

func (l *link) Renew(ctx context.Context, epoch member.Epoch) error {
	if err := l.broken(); err != nil {
		return err
	}
	return l.Store.Renew(ctx, epoch)
}

func (l *link) Release(ctx context.Context, epoch member.Epoch) error {
	if err := l.broken(); err != nil {
		return err
	}
	return l.Store.Release(ctx, epoch)
}

func (l *link) Requests(ctx context.Context, id string) ([]store.PoolRequest, error) {
	if err := l.broken(); err != nil {
		return nil, err
	}
	return l.Store.Requests(ctx, id)
}

func (l *link) LoadPools(ctx context.Context) ([]member.PoolState, error) {
	if err := l.lost(ctx); err != nil {
		return nil, err
	}
	return l.Store.LoadPools(ctx)
}

func (l *link) CreatePool(ctx context.Context, epoch member.Epoch, n store.NewPool) (member.PoolState, error) {
	l.tries.Add(1)
	if err := l.broken(); err != nil {
		return member.PoolState{}, err
	}
	return l.Store.CreatePool(ctx, epoch, n)
}

func (l *link) Commit(ctx context.Context, c member.Change) error {
	l.tries.Add(1)
	if err := l.broken(); err != nil {
		return err
	}
	return l.Store.Commit(ctx, c)
}

func (l *link) Settle(ctx context.Context, c member.Change) (bool, error) {
	l.tries.Add(1)
	if err := l.broken(); err != nil {
		return false, err
	}
	return l.Store.Settle(ctx, c)
}

func (l *link) PutRouter(ctx context.Context, epoch member.Epoch, r store.RouterRow) error {
	l.tries.Add(1)
	if err := l.broken(); err != nil {
		return err
	}
	return l.Store.PutRouter(ctx, epoch, r)
}
