package xdsbench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// callLimit is how long one call may take.
const callLimit = 10 * time.Second

// Load is callers that call as fast as they can.
type Load struct {
	// OK and Failed count calls.
	OK, Failed atomic.Int64

	mu sync.Mutex
	// first is the first failure.
	first error
	stop  context.CancelFunc
	work  sync.WaitGroup
}

// StartLoad starts callers; each call takes as long as said at its server.
func StartLoad(ctx context.Context, conn *grpc.ClientConn, callers int, each time.Duration) *Load {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{stop: cancel}
	for range callers {
		l.work.Go(func() {
			for ctx.Err() == nil {
				l.call(context.WithoutCancel(ctx), conn, each)
			}
		})
	}
	return l
}

func (l *Load) call(ctx context.Context, conn *grpc.ClientConn, each time.Duration) {
	if err := Call(ctx, conn, each); err != nil {
		l.Failed.Add(1)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.first == nil {
			l.first = err
		}
		return
	}
	l.OK.Add(1)
}

// Stop ends the load, and returns how many calls failed and the first failure.
func (l *Load) Stop() (failed int64, first error) {
	l.stop()
	l.work.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Failed.Load(), l.first
}

// Call makes one call, which takes as long as said at its server.
func Call(ctx context.Context, conn *grpc.ClientConn, each time.Duration, options ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	req := &healthv1.HealthCheckRequest{}
	if each > 0 {
		req.Service = each.String()
	}
	if _, err := healthv1.NewHealthClient(conn).Check(ctx, req, options...); err != nil {
		return fmt.Errorf("call: %w", err)
	}
	return nil
}
