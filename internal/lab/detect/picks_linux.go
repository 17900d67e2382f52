package detect

import (
	"context"
	"sync"
	"time"

	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// pickEvery is how often each router is asked for servers.
const pickEvery = 2 * time.Millisecond

// picks remembers when routers named which membership last.
type picks struct {
	// count is how many servers are asked for at once: enough that a server that
	// is not avoided is named every few milliseconds, and at most half of the
	// pool, so that one that is avoided is never needed.
	count uint32
	mu    sync.Mutex
	named map[membership]time.Time
}

type membership struct {
	server      string
	incarnation uint64
}

func newPicks(servers int) *picks {
	return &picks{count: uint32(min(servers/2, 25)), named: make(map[membership]time.Time)}
}

// pick asks a router for servers until ctx ends.
func (p *picks) pick(ctx context.Context, router routerv1.RouterServiceClient) error {
	ticker := time.NewTicker(pickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		answer, err := router.Pick(ctx, &routerv1.PickRequest{Policy: routerv1.Policy_POLICY_RANDOM, Count: p.count})
		if err != nil {
			continue // it is asked again; what counts is whom it names
		}
		now := time.Now()
		p.mu.Lock()
		for _, c := range answer.GetChoices() {
			p.named[membership{c.GetServerId(), c.GetIncarnation()}] = now
		}
		p.mu.Unlock()
	}
}

// last returns when a membership was last named, or the zero time.
func (p *picks) last(server string, incarnation uint64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.named[membership{server, incarnation}]
}
