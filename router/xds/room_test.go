package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// One source may have half of the room, and waits for its own; so does who finds
// nothing left.
func TestRoomIsSharedOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(10)
		one, two, three := r.enter(source(1)), r.enter(source(2)), r.enter(source(3))
		take := func(c *corner, n int) (took bool) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			taken, err := r.take(ctx, c, n)
			if err == nil && taken != int64(min(n, 5)) {
				t.Errorf("took %d of %d", taken, n)
			}
			return err == nil
		}
		for i, step := range []struct {
			give, take *corner
			n          int
			ok         bool
		}{
			{nil, one, 3, true},
			{nil, one, 3, false},
			{nil, two, 100, true},
			{nil, three, 3, false},
			{nil, three, 2, true},
			{one, three, 3, true},
			{nil, one, 1, false},
		} {
			if step.give != nil {
				time.AfterFunc(time.Second/2, func() { r.give(step.give, 3) })
			}
			if ok := take(step.take, step.n); ok != step.ok {
				t.Errorf("step %d: %v", i, ok)
			}
		}
		for i := range byte(3) {
			r.leave(source(i + 1))
		}
		if len(r.by) > 0 {
			t.Errorf("%d sources are left", len(r.by))
		}
	})
}

// talk is a stream whose client talks with the test.
type talk struct {
	grpc.ServerStream
	ctx       context.Context //nolint:containedctx // it is a stream's
	requests  chan *discoveryv3.DiscoveryRequest
	responses chan *discoveryv3.DiscoveryResponse
	ended     chan error
}

func (c *talk) Context() context.Context { return c.ctx }

func (c *talk) Recv() (*discoveryv3.DiscoveryRequest, error) {
	select {
	case r := <-c.requests:
		return r, nil
	case <-c.ctx.Done():
		return nil, io.EOF
	}
}

func (c *talk) Send(r *discoveryv3.DiscoveryResponse) error {
	c.responses <- r
	return nil
}

// answer confirms the response that the client has got.
func (c *talk) answer() {
	r := <-c.responses
	c.requests <- &discoveryv3.DiscoveryRequest{
		TypeUrl: r.GetTypeUrl(), ResourceNames: []string{"web"}, VersionInfo: r.GetVersionInfo(), ResponseNonce: r.GetNonce(),
	}
}

// inRoom runs a test with clients that have asked for the assignment of a pool, each
// of which takes two thirds of the room for one source.
func inRoom(t *testing.T, test func(t *testing.T, d *Door, client func() *talk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := New(Config{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
		servers := make([]*view.Server, 100)
		for i := range servers {
			servers[i] = &view.Server{
				ID: member.ID(fmt.Sprintf("s%d", i)), Phase: member.PhaseActive, Weight: 1,
				Endpoints: []member.Endpoint{{Address: fmt.Sprintf("10.0.0.%d:80", i+1)}},
			}
		}
		v, err := view.New("web").ApplySnapshot(view.Snapshot{StoreID: "store", Servers: servers})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		pools := func() ([]Pool, bool) { return []Pool{{Seq: 1, View: v, Table: v.Table()}}, true }
		go d.Run(ctx, nil, pools)
		synctest.Wait()
		size := int64(len(d.publisher.pools["web"].names["web"].encoded[resource.EndpointType]))
		d.room = newRoom(3 * size)
		test(t, d, func() *talk {
			c := &talk{
				ctx: ctx, requests: make(chan *discoveryv3.DiscoveryRequest),
				responses: make(chan *discoveryv3.DiscoveryResponse, 10), ended: make(chan error, 1),
			}
			go func() { c.ended <- d.StreamAggregatedResources(c) }() //nolint:contextcheck // the stream has it
			c.requests <- &discoveryv3.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"web"}}
			synctest.Wait()
			return c
		})
		cancel()
		synctest.Wait()
		if !d.room.all.TryAcquire(3*size) || len(d.room.by) > 0 {
			t.Errorf("room is left to streams that have ended, and to %d sources", len(d.room.by))
		}
	})
}

func TestAResponseWaitsForRoom(t *testing.T) {
	t.Parallel()
	inRoom(t, func(t *testing.T, _ *Door, client func() *talk) {
		first, second := client(), client()
		if len(first.responses) != 1 || len(second.responses) != 0 {
			t.Fatalf("%d and %d responses", len(first.responses), len(second.responses))
		}
		time.Sleep(sendLimit / 2)
		first.answer()
		synctest.Wait()
		if len(second.responses) != 1 {
			t.Error("no response when there is room")
		}
	})
}

func TestWhoFindsNoRoomIsDropped(t *testing.T) {
	t.Parallel()
	inRoom(t, func(t *testing.T, _ *Door, client func() *talk) {
		first, second := client(), client()
		asked := time.Now()
		if err := <-second.ended; !errors.Is(err, member.ErrExhausted) || time.Since(asked) != sendLimit {
			t.Errorf("after %v: %v", time.Since(asked), err)
		}
		if err := <-first.ended; !errors.Is(err, member.ErrExhausted) || time.Since(asked) != answerLimit {
			t.Errorf("who does not answer, after %v: %v", time.Since(asked), err)
		}
		third := client()
		if len(third.responses) != 1 {
			t.Error("no response though all room is free")
		}
		third.answer()
		time.Sleep(2 * answerLimit)
		if len(third.ended) > 0 {
			t.Errorf("a client that has answered is dropped: %v", <-third.ended)
		}
	})
}
