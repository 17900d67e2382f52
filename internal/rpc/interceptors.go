package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
)

// edge stands between gRPC and the handlers: it checks roles, survives panics,
// and turns errors into statuses.
type edge struct {
	log   *slog.Logger
	roles map[string][]Role
}

func (e *edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := e.admit(ctx, info.FullMethod); err != nil {
		return nil, ToStatus(err)
	}
	res, err := recovery.UnaryServerInterceptor()(ctx, req, info, next)
	if err != nil {
		return nil, e.status(ctx, info.FullMethod, err)
	}
	return res, nil
}

func (e *edge) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx := stream.Context()
	if err := e.admit(ctx, info.FullMethod); err != nil {
		return ToStatus(err)
	}
	if err := recovery.StreamServerInterceptor()(srv, stream, info, next); err != nil {
		return e.status(ctx, info.FullMethod, err)
	}
	return nil
}

func (e *edge) admit(ctx context.Context, method string) error {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	roles, ok := e.roles[service]
	if !ok {
		return nil
	}
	return RequireRole(ctx, roles...)
}

// status maps a handler's error. What the table does not know is logged under
// an id, and the id is all that the client sees of it.
func (e *edge) status(ctx context.Context, method string, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return ToStatus(fmt.Errorf("%w: the server is shutting down", member.ErrUnavailable))
	}
	if st, ok := toStatus(err); ok {
		return st.Err()
	}
	id := rand.Text()
	attrs := []slog.Attr{slog.String("method", method), slog.String("request_id", id)}
	if panicked, ok := errors.AsType[*recovery.PanicError](err); ok {
		attrs = append(attrs, slog.Any("panic", panicked.Panic), slog.String("stack", string(panicked.Stack)))
	} else {
		attrs = append(attrs, slog.Any("error", err))
	}
	e.log.LogAttrs(ctx, slog.LevelError, "request failed", attrs...)
	return status.Errorf(codes.Internal, "internal error; the server's log has it as request_id %s", id)
}

// metrics are those of all servers on one registry.
type metrics struct {
	counters *grpcprom.ServerMetrics
	latency  *prometheus.HistogramVec
}

func newMetrics(reg *prometheus.Registry) *metrics {
	m := &metrics{
		counters: grpcprom.NewServerMetrics(grpcprom.WithServerCounterOptions(grpcprom.WithNamespace("buddyring"))),
		latency: prometheus.NewHistogramVec(observe.Seconds("buddyring_grpc_server_handling_seconds",
			"Time from the start to the end of unary calls; streams are not in it.",
			.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5,
		), []string{"grpc_service", "grpc_method"}),
	}
	if reg == nil {
		return m
	}
	m.counters = registered(reg, m.counters)
	m.latency = registered(reg, m.latency)
	return m
}

// registered returns the collector that the registry has: c, or an equal one
// of an earlier server.
func registered[C prometheus.Collector](reg *prometheus.Registry, c C) C {
	err := reg.Register(c)
	if twin, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := twin.ExistingCollector.(C); ok {
			return existing
		}
	}
	return c
}

func (m *metrics) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	start := time.Now()
	res, err := next(ctx, req)
	service, method, _ := strings.Cut(strings.TrimPrefix(info.FullMethod, "/"), "/")
	m.latency.WithLabelValues(service, method).Observe(time.Since(start).Seconds())
	return res, err
}

// StaleHeader marks the answers of a standby, which shows what the table tells,
// with the age of that in seconds.
const StaleHeader = "buddyring-stale"

type staleKey struct{}

// NoteStale returns a context for unary calls, and what says afterwards whether
// any of them was answered by a standby.
func NoteStale(ctx context.Context) (context.Context, *atomic.Bool) {
	stale := new(atomic.Bool)
	return context.WithValue(ctx, staleKey{}, stale), stale
}

// clientUnary gives callers errors of the vocabulary.
func clientUnary( //nolint:revive // gRPC's signature
	ctx context.Context, method string, req, res any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	stale, ok := ctx.Value(staleKey{}).(*atomic.Bool)
	if !ok {
		return received(ctx, next(ctx, method, req, res, cc, opts...))
	}
	var header metadata.MD
	err := next(ctx, method, req, res, cc, append(opts, grpc.Header(&header))...)
	if len(header.Get(StaleHeader)) > 0 {
		stale.Store(true)
	}
	return received(ctx, err)
}

func clientStream( //nolint:revive // gRPC's signature
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer,
	opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s, err := next(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, received(ctx, err)
	}
	return &mappedStream{s}, nil
}

type mappedStream struct{ grpc.ClientStream }

func (s *mappedStream) SendMsg(m any) error { return received(s.Context(), s.ClientStream.SendMsg(m)) }

func (s *mappedStream) RecvMsg(m any) error { return received(s.Context(), s.ClientStream.RecvMsg(m)) }

func (s *mappedStream) CloseSend() error { return received(s.Context(), s.ClientStream.CloseSend()) }

// received maps a call's error. A cancellation that is not the caller's own is
// the server going away.
func received(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && status.Code(err) == codes.Canceled {
		return FromStatus(status.Error(codes.Unavailable, status.Convert(err).Message()))
	}
	return FromStatus(err)
}
