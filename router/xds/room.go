package xds

import (
	"context"
	"net/netip"
	"sync"

	"golang.org/x/sync/semaphore"
)

// maxUnanswered is how many bytes of responses all clients may have been sent and
// not answered, half of them of one source. gRPC keeps a response until its client
// has read it, however long that takes.
const maxUnanswered = 256 << 20

// room bounds what is under way to clients. Who finds none waits for those of its
// own source first, so that one source cannot keep the others waiting. It is safe
// for concurrent use.
type room struct {
	all  *semaphore.Weighted
	half int64

	mu sync.Mutex
	by map[netip.Prefix]*corner
}

// corner is the room of one source, for as long as it has streams.
type corner struct {
	*semaphore.Weighted
	streams int
}

func newRoom(size int64) *room {
	return &room{all: semaphore.NewWeighted(size), half: size / 2, by: map[netip.Prefix]*corner{}}
}

// enter is called when a stream of a source begins, leave when it has ended and
// holds nothing.
func (r *room) enter(from netip.Prefix) *corner {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.by[from]
	if c == nil {
		c = &corner{Weighted: semaphore.NewWeighted(r.half)}
		r.by[from] = c
	}
	c.streams++
	return c
}

func (r *room) leave(from netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.by[from]; c.streams > 1 {
		c.streams--
	} else {
		delete(r.by, from)
	}
}

// take waits until a source may have n bytes more and returns how many give has to
// give back: what is more than all that a source may have goes alone.
func (r *room) take(ctx context.Context, c *corner, n int) (taken int64, err error) {
	taken = min(int64(n), r.half)
	if err := c.Acquire(ctx, taken); err != nil {
		return 0, err
	}
	if err := r.all.Acquire(ctx, taken); err != nil {
		c.Release(taken)
		return 0, err
	}
	return taken, nil
}

func (r *room) give(c *corner, n int64) {
	c.Release(n)
	r.all.Release(n)
}
