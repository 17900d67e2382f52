package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// How the client behaves.
const (
	clientInterval = 5 * time.Millisecond
	pickTimeout    = 500 * time.Millisecond
	callTimeout    = 250 * time.Millisecond
	// maxInFlight bounds the requests under way at once; beyond it the client
	// skips a beat.
	maxInFlight = 64
)

// client is somebody who needs the service: it asks the router for a server
// and calls it, 200 times a second, and never tries a request twice.
type client struct {
	router routerv1.RouterServiceClient
	// call makes a request at HOST:PORT.
	call func(ctx context.Context, address string) error

	mu       sync.Mutex
	requests []request
}

// run makes requests until ctx ends and returns when the last has ended.
func (c *client) run(ctx context.Context) {
	ticker := time.NewTicker(clientInterval)
	defer ticker.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxInFlight)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				// A request under way is finished: the end of the demo is no failure.
				c.once(context.WithoutCancel(ctx))
			})
		default:
		}
	}
}

func (c *client) once(ctx context.Context) {
	r := request{began: time.Now()}
	choice, err := c.pick(ctx)
	r.picked, r.err = time.Now(), err
	if err == nil {
		r.to = membership{choice.GetServerId(), choice.GetIncarnation()}
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		r.err = c.call(callCtx, choice.GetAddress())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
}

func (c *client) pick(ctx context.Context) (*routerv1.Choice, error) {
	ctx, cancel := context.WithTimeout(ctx, pickTimeout)
	defer cancel()
	resp, err := c.router.Pick(ctx, &routerv1.PickRequest{})
	if err != nil {
		return nil, fmt.Errorf("pick a server: %w", err)
	}
	if len(resp.GetChoices()) == 0 {
		return nil, errors.New("pick a server: the router named none")
	}
	return resp.GetChoices()[0], nil
}

// log returns the requests that have ended.
func (c *client) log() []request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clip(c.requests)
}
