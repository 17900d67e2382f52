package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// RequestLife is how long the answer to a client's request id is kept.
const RequestLife = time.Hour

// PoolRequest is a client's request that a pool has answered.
type PoolRequest struct {
	Pool member.Pool
	member.Request
}

// Requests returns the requests of an id that are still kept, by pool, also of pools
// that were deleted. Ids are looked up and not loaded, for in an hour there may be a
// hundred thousand. What a COMMIT under way has written may be among them before it
// is durable.
func (s *Store) Requests(ctx context.Context, id string) ([]PoolRequest, error) {
	var found []PoolRequest
	err := s.read(ctx, func(x tx) error {
		found = nil
		return x.each(ctx, func(rows *sql.Rows) error {
			pool, r, err := scanRequest(rows)
			found = append(found, PoolRequest{pool, r})
			return err
			// The key begins with the pool, so it is asked for each one.
		}, "SELECT "+requestColumns+" FROM (SELECT name FROM pool UNION SELECT name FROM deleted_pool) known "+
			"JOIN request ON pool = name WHERE request_id = ? AND at >= ? ORDER BY pool",
			id, timestamp(time.Now().Add(-RequestLife)))
	})
	if err != nil {
		return nil, fmt.Errorf("read requests of id %s: %w", id, err)
	}
	return found, nil
}
