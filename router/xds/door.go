package xds

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
)

// Config is what a door needs from its process. All are needed.
type Config struct {
	Registry *prometheus.Registry
	Logger   *slog.Logger
}

// Door serves the aggregated discovery service, state of the world. It is safe
// for concurrent use.
type Door struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer

	log       *slog.Logger
	metrics   *metrics
	publisher *publisher
	audience  *audience
	room      *room
	// opened is closed when answers may be given, closing when no more may.
	opened, closing chan struct{}
	// running are the goroutines of the streams.
	running sync.WaitGroup
}

// New returns a door that answers nobody until Run. Its metrics are on the
// registry from then on.
func New(cfg Config) *Door {
	d := &Door{
		log: cfg.Logger, publisher: newPublisher(), audience: newAudience(quota.Halves(maxStreams), quota.Halves(maxNamesInAll)),
		room: newRoom(maxUnanswered), opened: make(chan struct{}), closing: make(chan struct{}),
	}
	d.metrics = newMetrics(cfg.Registry, d.audience)
	return d
}

// Register adds the door to a server.
func (d *Door) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, d)
}

// Run publishes what current returns, at once and each time that changed is set,
// and answers clients from when it first says ready: what is unknown then does
// not exist. When ctx ends, all streams do. It is called once.
func (d *Door) Run(ctx context.Context, changed <-chan struct{}, current func() (pools []Pool, ready bool)) {
	defer close(d.closing)
	open := false
	for {
		pools, ready := current()
		if err := d.publisher.publish(pools); err != nil {
			d.log.ErrorContext(ctx, "not all is published to xDS clients, they keep what they have", "error", err)
		}
		d.audience.published(d.publisher.pools)
		if ready && !open {
			open = true
			close(d.opened)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Wait returns when all that streams have started has ended. It is called when
// their server has ended, so that there are no new ones.
func (d *Door) Wait() { d.running.Wait() }

// Settled returns when the states, by pool, or later ones have been published and
// every stream that has asked for them has confirmed or rejected them, or is
// gone; or when ctx ends. A client that is silent for 2 s is not waited for again
// until it has caught up. Only one goroutine may wait.
func (d *Door) Settled(ctx context.Context, seqs map[member.Pool]uint64) error {
	laggards, err := d.audience.await(ctx, seqs)
	d.metrics.laggards.Add(float64(laggards))
	return err
}

// StreamAggregatedResources serves one client.
func (d *Door) StreamAggregatedResources(raw discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	s := newStream(raw, d)
	if err := d.audience.join(s); err != nil {
		d.metrics.refuse(refusedStreams)
		return err
	}
	s.corner = d.room.enter(s.from)
	defer d.room.leave(s.from)
	defer d.audience.leave(s)
	ctx, cancel := context.WithCancel(raw.Context())
	defer cancel()
	s.giveUp = cancel
	if err := d.await(ctx); err != nil {
		return err
	}
	d.running.Go(func() {
		select {
		case <-d.closing:
			cancel()
		case <-ctx.Done():
		}
	})
	err := sotw.NewServer(ctx, d.mux(), nil, sotw.DeactivateLegacyWildcardForTypes(onlyByName())).StreamHandler(s, resource.AnyType)
	return cmp.Or(s.refused(), err, ended(ctx, raw.Context()))
}

// openTime is how long a client waits for the door to open: longer than a catch-up
// takes, shorter than gRPC's own 15 s, after which it takes silence for "does not
// exist" and asks no other router.
const openTime = 5 * time.Second

// await returns when the door is open, or is being closed. A client of a door that
// stays shut is sent to another router.
func (d *Door) await(ctx context.Context) error {
	limit := time.NewTimer(openTime)
	defer limit.Stop()
	select {
	case <-d.opened:
	case <-d.closing:
	case <-ctx.Done():
	case <-limit.C:
		return fmt.Errorf("%w: the router does not know all pools yet", member.ErrUnavailable)
	}
	return nil
}

// ended says why a stream is over that neither side has broken.
func ended(serving, client context.Context) error {
	if client.Err() == nil && serving.Err() != nil {
		return fmt.Errorf("%w: the router is shutting down", member.ErrUnavailable)
	}
	return client.Err()
}

// mux leads each type to its cache.
func (d *Door) mux() *cache.MuxCache {
	m := &cache.MuxCache{
		Classify: func(r *cache.Request) string { return r.GetTypeUrl() },
		Caches:   make(map[string]cache.Cache, len(d.publisher.caches)),
	}
	for url, c := range d.publisher.caches {
		m.Caches[url] = c
	}
	return m
}

// onlyByName are the types of which a client that names none gets none. Of
// clusters it gets all, as Envoy expects.
func onlyByName() []string {
	return []string{resource.EndpointType, resource.RouteType, resource.ListenerType}
}
