package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// turns say which servers are away: those whose command has begun and that are not
// back. They are held by who looks whether its turn has come.
type turns struct {
	mu   sync.Mutex
	away map[string]bool
	// over is set when no more servers are to leave.
	over bool
}

var errTurnsOver = errors.New("another server has failed meanwhile")

func (t *turns) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}

// comeBack says that a server is away no longer.
func (t *turns) comeBack(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.away, id)
}

// awaitTurn returns when no neighbour of a drained server is away, which is away from
// then on. The ring may have changed since the server was chosen: those who have left
// come back in other places. A server whose turn does not come is resumed.
func (r *rolling) awaitTurn(ctx context.Context, id string) error {
	limit := time.Now().Add(r.back)
	for {
		mayLeave, err := r.tryLeave(ctx, id)
		if mayLeave {
			return nil
		}
		if err == nil || elsewhere(err) && time.Now().Before(limit) {
			select {
			case <-time.After(lookEvery):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		// Also when the walk was told to end meanwhile.
		_, failed := r.resume(context.WithoutCancel(ctx), &coordinatorv1.ResumeServerRequest{
			Pool: r.pool, ServerId: id, Reason: r.reason, RequestId: rand.Text(),
		})
		return errors.Join(fmt.Errorf("wait for the neighbours of %s: %w; it was not restarted, and resumed", id, err), failed)
	}
}

func (r *rolling) tryLeave(ctx context.Context, id string) (bool, error) {
	r.turns.mu.Lock()
	defer r.turns.mu.Unlock()
	if r.turns.over {
		return false, errTurnsOver
	}
	beside, err := r.beside(ctx, r.turns.away)
	if err != nil || beside[id] {
		return false, err
	}
	r.turns.away[id] = true
	return true, nil
}
