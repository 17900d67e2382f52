package xds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

func TestTooManyStreamsAreRefused(t *testing.T) {
	t.Parallel()
	a := newAudience(1)
	first, second := &stream{}, &stream{}
	if err := a.join(first); err != nil {
		t.Fatal(err)
	}
	if err := a.join(second); !errors.Is(err, member.ErrExhausted) {
		t.Errorf("error %v", err)
	}
	a.leave(first)
	if err := a.join(second); err != nil {
		t.Error(err)
	}
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
		if n, _ := d.audience.count(); n > 0 {
			t.Errorf("%d streams are left", n)
		}
		if err := d.Settled(ctx, map[member.Pool]uint64{"web": 1}); err != nil {
			t.Error(err)
		}
	})
	cancel()
	<-ended
}
