package server

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// requestTime bounds the look for what was answered to a request id.
const requestTime = 3 * time.Second

// answers finds what was answered to request ids, by earlier leaders too. Those of the
// last hour are in the table, and nobody waits for a new leader to read them all.
type answers struct {
	table  Changes
	tenure *tenure
}

// to returns the requests of an id, by pool. A leader that may make nothing durable has
// no need to ask: it says so.
func (a answers) to(ctx context.Context, id string) ([]store.PoolRequest, error) {
	if err := a.tenure.check(time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	return a.table.Requests(ctx, id)
}

// of returns the request of an id that a pool has answered, nil if there is none.
func (a answers) of(ctx context.Context, name member.Pool, id string) (*member.Request, error) {
	if id == "" {
		return nil, nil
	}
	all, err := a.to(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("ask pool %s: %w", name, err)
	}
	i := slices.IndexFunc(all, func(r store.PoolRequest) bool { return r.Pool == name })
	if i < 0 {
		return nil, nil
	}
	return &all[i].Request, nil
}

func usedBefore(id string) error {
	return member.Invalid("request_id", "%q was used for another request", id)
}
