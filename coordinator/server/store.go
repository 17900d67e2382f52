package server

import (
	"context"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// Store is what the coordinator needs of the durable table. *store.Store is one;
// its comments are the contract.
type Store interface {
	Lease
	Table
	EventTable
	RouterTable
	Upkeep
	// Kind is store.KindSQLite or store.KindMySQL.
	Kind() string
}

// Upkeep keeps the table small and backed up.
type Upkeep interface {
	Backups
	// Prune removes what need not be kept of a pool's past.
	Prune(ctx context.Context, pool member.Pool, r store.Retention) (int64, error)
}

// Lease says who leads, and who could.
type Lease interface {
	Lease(ctx context.Context) (member.Lease, error)
	Lead(ctx context.Context, c store.Claim) (store.Leadership, error)
	Renew(ctx context.Context, epoch member.Epoch) error
	Release(ctx context.Context, epoch member.Epoch) error
	PutCoordinator(ctx context.Context, c member.Coordinator) error
	Coordinators(ctx context.Context, since time.Time) ([]member.Coordinator, error)
}

// Table holds the pools.
type Table interface {
	Changes
	LoadPools(ctx context.Context) ([]member.PoolState, error)
	CreatePool(ctx context.Context, epoch member.Epoch, n store.NewPool) (member.PoolState, error)
	Servers(ctx context.Context, pool member.Pool) (store.ServerRows, error)
	DeletedPools(ctx context.Context) ([]member.DeletedPool, error)
}

// Changes makes changes of pools durable, and tells which requests they have answered.
type Changes interface {
	Commit(ctx context.Context, change member.Change) error
	Settle(ctx context.Context, change member.Change) (isIn bool, err error)
	Requests(ctx context.Context, id string) ([]store.PoolRequest, error)
}

// EventTable holds the pools' past.
type EventTable interface {
	Events(ctx context.Context, q store.EventQuery) ([]member.Event, error)
	EventsFrom(ctx context.Context, pool member.Pool, from member.Revision, limit int) ([]member.Event, error)
}

// RouterTable holds the routers' rows.
type RouterTable interface {
	PutRouter(ctx context.Context, epoch member.Epoch, r store.RouterRow) error
	Routers(ctx context.Context) ([]store.RouterRow, error)
	DropRouter(ctx context.Context, epoch member.Epoch, id string) error
	ForgetRouters(ctx context.Context, epoch member.Epoch, since time.Time) (int64, error)
}

// leadership is what this coordinator has won, and where it is reached.
type leadership struct {
	epoch   member.Epoch
	storeID string
	// addresses are those that agents are told.
	addresses func() []string
}
