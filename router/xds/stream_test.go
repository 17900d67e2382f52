package xds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/router/view"
)

// One source may have half of the places, and all together have them all.
func TestTooManyStreamsAreRefused(t *testing.T) {
	t.Parallel()
	a := newAudience(quota.Halves(4), quota.Limits{})
	one, two, three := source(1), source(2), source(3)
	streams := []*stream{{from: one}, {from: one}, {from: two}, {from: two}}
	refused := func(from netip.Prefix) {
		t.Helper()
		if err := a.join(&stream{from: from}); !errors.Is(err, member.ErrExhausted) {
			t.Errorf("one more from %s: %v", from, err)
		}
	}
	for _, s := range streams {
		if err := a.join(s); err != nil {
			t.Fatal(err)
		}
		if s == streams[1] {
			refused(one)
		}
	}
	refused(three)
	a.leave(streams[3])
	refused(one)
	if err := a.join(&stream{from: three}); err != nil {
		t.Error(err)
	}
}

func source(i byte) netip.Prefix { return quota.Source(netip.AddrFrom4([4]byte{192, 0, 2, i})) }

// All that clients have asked for is counted once, whatever they ask for next, and
// forgotten when their streams end, also what is under way then.
func TestTooManyNamesAreRefused(t *testing.T) {
	t.Parallel()
	d := New(Config{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	d.audience = newAudience(quota.Halves(100), quota.Halves(20))
	ask := func(s *stream, url string, names int) error {
		_, err := s.note(&discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: make([]string, names)}, false)
		return err
	}
	join := func(from byte) *stream {
		s := &stream{door: d, from: source(from), types: map[string]*subscription{}}
		if err := d.audience.join(s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	one, two, three := join(1), join(2), join(3)
	for i, step := range []struct {
		s     *stream
		url   string
		names int
		ok    bool
		held  int
	}{
		{one, resource.ListenerType, 6, true, 6},
		{one, resource.EndpointType, 4, true, 10},
		{one, resource.EndpointType, 5, false, 10},
		{one, resource.ListenerType, 3, true, 7},
		{one, resource.EndpointType, 7, true, 10},
		{two, resource.ListenerType, 10, true, 20},
		{three, resource.ListenerType, 1, false, 20},
		{two, resource.ListenerType, 9, true, 19},
		{three, resource.ListenerType, 1, true, 20},
	} {
		if err := ask(step.s, step.url, step.names); (err == nil) != step.ok || err != nil && !errors.Is(err, member.ErrExhausted) {
			t.Errorf("step %d: %v", i, err)
		}
		if held := d.audience.names.Held(); held != step.held {
			t.Errorf("step %d: %d names, want %d", i, held, step.held)
		}
	}
	for _, s := range []*stream{one, two, three} {
		d.audience.leave(s)
		if err := ask(s, resource.ClusterType, 5); err != nil {
			t.Error(err)
		}
	}
	if names, places := d.audience.names.Held(), d.audience.places.Held(); names != 0 || places != 0 {
		t.Errorf("%d names and %d streams are left", names, places)
	}
}

// A stream that asks for more than there is room for ends and says why, and its room
// is free again.
func TestAStreamThatAsksForTooMuchEnds(t *testing.T) {
	t.Parallel()
	d := New(Config{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	d.audience = newAudience(quota.Halves(100), quota.Halves(20))
	close(d.opened)
	ask := func(url string, names ...string) *discoveryv3.DiscoveryRequest {
		return &discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: names}
	}
	s := &script{ctx: t.Context(), requests: []*discoveryv3.DiscoveryRequest{
		ask(resource.ListenerType, "a", "b", "c", "d", "e", "f"), ask(resource.RouteType, "a", "b", "c", "d", "e"), ask(resource.ClusterType, "a"),
	}}
	if err := d.StreamAggregatedResources(s); !errors.Is(err, member.ErrExhausted) || len(s.requests) != 1 {
		t.Errorf("error %v, %d requests left", err, len(s.requests))
	}
	if names := d.audience.names.Held(); names != 0 {
		t.Errorf("%d names are left", names)
	}
	d.running.Wait()
}

// script is a stream whose client says what was written down for it.
type script struct {
	grpc.ServerStream
	ctx      context.Context //nolint:containedctx // it is a stream's
	requests []*discoveryv3.DiscoveryRequest
}

func (s *script) Context() context.Context { return s.ctx }

func (s *script) Recv() (*discoveryv3.DiscoveryRequest, error) {
	if len(s.requests) == 0 {
		return nil, io.EOF
	}
	next := s.requests[0]
	s.requests = s.requests[1:]
	return next, nil
}

func (s *script) Send(*discoveryv3.DiscoveryResponse) error { return nil }

// request is what a client may say, right or wrong.
func request() *rapid.Generator[*discoveryv3.DiscoveryRequest] {
	return rapid.Custom(func(t *rapid.T) *discoveryv3.DiscoveryRequest {
		r := &discoveryv3.DiscoveryRequest{
			TypeUrl: rapid.SampledFrom([]string{
				resource.ListenerType, resource.RouteType, resource.ClusterType, resource.EndpointType, resource.SecretType, "",
			}).Draw(t, "type"),
			ResourceNames: rapid.SliceOf(rapid.OneOf(
				rapid.SampledFrom([]string{"web", "web/http", "*", ""}), rapid.StringN(0, 200, 300),
			)).Draw(t, "names"),
			ResponseNonce: rapid.SampledFrom([]string{"", "1", "2", "x"}).Draw(t, "nonce"),
			VersionInfo:   rapid.SampledFrom([]string{"", "1", "abcdefgh.1", "abcdefgh.x"}).Draw(t, "version"),
		}
		if rapid.Bool().Draw(t, "rejects") {
			r.ErrorDetail = &status.Status{Message: rapid.String().Draw(t, "reason")}
		}
		if rapid.Bool().Draw(t, "node") {
			r.Node = &corev3.Node{Id: rapid.StringN(0, 300, 400).Draw(t, "id")}
		}
		return r
	})
}

// Whatever a client sends, its stream ends when it does, and is forgotten.
func TestAnyRequests(t *testing.T) {
	t.Parallel()
	d := New(Config{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	v, err := view.New("web").ApplySnapshot(view.Snapshot{StoreID: "store", Servers: []*view.Server{{
		ID: "a", Phase: member.PhaseActive, Weight: 1, Endpoints: []member.Endpoint{{Address: "10.0.0.1:80"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.Run(ctx, nil, func() ([]Pool, bool) { return []Pool{{Seq: 1, View: v, Table: v.Table()}}, true })
	}()
	rapid.Check(t, func(t *rapid.T) {
		s := &script{ctx: ctx, requests: rapid.SliceOf(request()).Draw(t, "requests")}
		_ = d.StreamAggregatedResources(s) //nolint:contextcheck // the stream has it
		if n, _ := d.audience.count(); n+d.audience.places.Held()+d.audience.names.Held() > 0 {
			t.Errorf("%d streams are left in %d places, with %d names", n, d.audience.places.Held(), d.audience.names.Held())
		}
		if !d.room.all.TryAcquire(maxUnanswered) {
			t.Error("what the stream was sent is counted still")
		}
		d.room.all.Release(maxUnanswered)
		if err := d.Settled(ctx, map[member.Pool]uint64{"web": 1}); err != nil {
			t.Error(err)
		}
	})
	cancel()
	<-ended
}
