package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/internal/member"
)

// edge stands between gRPC and the handlers: it counts calls, checks roles,
// survives panics, and turns errors into statuses. There is one interceptor for
// all that, since a stream keeps the stack that it needs as long as it lasts.
type edge struct {
	log   *slog.Logger
	roles map[string][]Role
	calls *calls
}

func (e *edge) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (res any, err error) {
	m, start := e.calls.of(info.FullMethod), time.Now()
	m.started.Inc()
	m.received.Inc()
	defer func() {
		if p := recover(); p != nil {
			res, err = nil, e.panicked(ctx, m, p)
		}
		if err == nil {
			m.sent.Inc()
		}
		m.end(err)
		m.latency.Observe(time.Since(start).Seconds())
	}()
	if err := e.admit(ctx, m); err != nil {
		return nil, ToStatus(err)
	}
	if res, err = next(ctx, req); err != nil {
		return nil, e.status(ctx, m, err)
	}
	return res, nil
}

func (e *edge) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	s := &countedStream{stream, e.calls.of(info.FullMethod)}
	s.method.started.Inc()
	defer func() {
		if p := recover(); p != nil {
			err = e.panicked(s.Context(), s.method, p)
		}
		s.method.end(err)
	}()
	if err := e.admit(s.Context(), s.method); err != nil {
		return ToStatus(err)
	}
	if err := next(srv, s); err != nil {
		return e.status(s.Context(), s.method, err)
	}
	return nil
}

// countedStream counts its messages.
type countedStream struct {
	grpc.ServerStream

	method *method
}

func (s *countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.method.sent.Inc()
	}
	return err
}

func (s *countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.method.received.Inc()
	}
	return err
}

func (e *edge) admit(ctx context.Context, m *method) error {
	roles, ok := e.roles[m.service]
	if !ok {
		return nil
	}
	return RequireRole(ctx, roles...)
}

// status maps a handler's error. What the table does not know is logged under
// an id, and the id is all that the client sees of it.
func (e *edge) status(ctx context.Context, m *method, err error) error {
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return ToStatus(fmt.Errorf("%w: the server is shutting down", member.ErrUnavailable))
	}
	if st, ok := toStatus(err); ok {
		return st.Err()
	}
	return e.internal(ctx, m, slog.Any("error", err))
}

// panicked is status of a handler that has panicked.
func (e *edge) panicked(ctx context.Context, m *method, p any) error {
	return e.internal(ctx, m, slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
}

func (e *edge) internal(ctx context.Context, m *method, why ...slog.Attr) error {
	id := rand.Text()
	attrs := []slog.Attr{slog.String("method", m.full), slog.String("request_id", id)}
	e.log.LogAttrs(ctx, slog.LevelError, "request failed", append(attrs, why...)...)
	return status.Errorf(codes.Internal, "internal error; the server's log has it as request_id %s", id)
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
