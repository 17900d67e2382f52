package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// vocabulary are the errors of package member, by name.
func vocabulary() map[string]error {
	return map[string]error{
		"ErrNotFound": member.ErrNotFound, "ErrAlreadyExists": member.ErrAlreadyExists,
		"ErrInvalid": member.ErrInvalid, "ErrStale": member.ErrStale, "ErrRefused": member.ErrRefused,
		"ErrUnavailable": member.ErrUnavailable, "ErrNotLeader": member.ErrNotLeader,
		"ErrFenced": member.ErrFenced, "ErrPermission": member.ErrPermission,
		"ErrCompacted": member.ErrCompacted, "ErrExhausted": member.ErrExhausted,
		"ErrAhead": member.ErrAhead,
	}
}

func TestVocabularyIsWhole(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../member/errors.go", nil, 0)
	must(t, err)
	var found []string
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Err") {
			found = append(found, spec.Names[0].Name)
		}
		return true
	})
	slices.Sort(found)
	if diff := cmp.Diff(found, slices.Sorted(maps.Keys(vocabulary()))); diff != "" {
		t.Errorf("errors of package member (-) and those tried over the wire (+): %s", diff)
	}
}

// overTheWire returns what a client gets when handlers return err.
func overTheWire(t *testing.T, cfg rpc.ServerConfig, err error) (unary, stream error) {
	t.Helper()
	client := pair(t, cfg, &service{
		pick:  func(context.Context) error { return err },
		watch: func(grpc.ServerStream) error { return err },
	})
	_, unary = client.Pick(soon(t), &routerv1.PickRequest{})
	watch, openErr := client.Watch(soon(t), &routerv1.WatchRequest{})
	must(t, openErr)
	return unary, ended(watch)
}

func TestSentinelsCrossTheWire(t *testing.T) {
	t.Parallel()
	for name, sentinel := range vocabulary() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := fmt.Errorf("do a thing: %w", sentinel)
			unary, stream := overTheWire(t, rpc.ServerConfig{}, sent)
			for _, got := range []error{unary, stream} {
				for other, err := range vocabulary() {
					if is := errors.Is(got, err); is != (other == name) {
						t.Errorf("errors.Is(%q, %s) = %v", got, other, is)
					}
				}
				if got.Error() != sent.Error() {
					t.Errorf("got %q, want %q", got, sent)
				}
			}
		})
	}
}

func TestErrorsWithFieldsCrossTheWire(t *testing.T) {
	t.Parallel()
	field := &member.FieldError{Field: "hello.spec.weight", Problem: "20000 is more than 10000"}
	refused := &member.RefusedError{Rule: "floor", Reason: "2 of 4 left"}
	leader := &member.NotLeaderError{Leader: "10.0.0.2:7400"}
	removed := &member.RemovedError{ID: "web-1", Incarnation: 7, Cause: member.CauseCrashed}
	forgotten := &member.RemovedError{ID: "web-1", Incarnation: 7}
	for _, sent := range []error{field, refused, leader, &member.NotLeaderError{}, removed, forgotten} {
		unary, stream := overTheWire(t, rpc.ServerConfig{}, fmt.Errorf("join server: %w", sent))
		for _, got := range []error{unary, stream} {
			switch want := sent.(type) { //nolint:errorlint // these are the very values
			case *member.FieldError:
				var e *member.FieldError
				if !errors.As(got, &e) || *e != *want {
					t.Errorf("got %#v, want %#v", got, want)
				}
			case *member.RefusedError:
				var e *member.RefusedError
				if !errors.As(got, &e) || *e != *want {
					t.Errorf("got %#v, want %#v", got, want)
				}
			case *member.RemovedError:
				var e *member.RemovedError
				if !errors.As(got, &e) || *e != *want || !errors.Is(got, member.ErrStale) {
					t.Errorf("got %#v, want %#v", got, want)
				}
			case *member.NotLeaderError:
				var e *member.NotLeaderError
				if !errors.As(got, &e) || *e != *want {
					t.Errorf("got %#v, want %#v", got, want)
				}
			}
		}
	}
}

func TestRetryHintCrossesTheWire(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		sent, is error
		want     time.Duration
	}{
		{
			rpc.WithRetry(fmt.Errorf("commit: %w", member.ErrUnavailable), 1500*time.Millisecond),
			member.ErrUnavailable, 1500 * time.Millisecond,
		},
		{member.ErrUnavailable, member.ErrUnavailable, time.Second},
		{member.ErrExhausted, member.ErrExhausted, time.Second},
		{member.ErrNotFound, member.ErrNotFound, 0},
	} {
		got, _ := overTheWire(t, rpc.ServerConfig{}, tt.sent)
		after, ok := rpc.RetryAfter(got)
		if after != tt.want || ok != (tt.want > 0) {
			t.Errorf("%v: RetryAfter = %v, %v, want %v", tt.sent, after, ok, tt.want)
		}
		if !errors.Is(got, tt.is) {
			t.Errorf("got %v, want %v", got, tt.is)
		}
	}
}

// lockedBuffer is a buffer that a logger and a test share.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestUnknownErrorIsToldByIDOnly(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return errors.New("secret DSN") },
		"panic": func(context.Context) error { panic("secret DSN") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &lockedBuffer{}
			client := pair(t, rpc.ServerConfig{Logger: slog.New(slog.NewJSONHandler(log, nil))}, &service{pick: handler})
			_, err := client.Pick(soon(t), &routerv1.PickRequest{})
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Fatalf("the client sees %v", err)
			}
			id := regexp.MustCompile(`request_id (\w{20,})$`).FindStringSubmatch(err.Error())
			if id == nil {
				t.Fatalf("no request id in %q", err)
			}
			for _, want := range []string{`"level":"ERROR"`, `"request_id":"` + id[1] + `"`, "secret DSN"} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("%s is not in the log: %s", want, log)
				}
			}
		})
	}
}

func TestServersCancellationIsNotTheClients(t *testing.T) {
	t.Parallel()
	unary, stream := overTheWire(t, rpc.ServerConfig{}, fmt.Errorf("wait: %w", context.Canceled))
	for _, got := range []error{unary, stream} {
		if !errors.Is(got, member.ErrUnavailable) || errors.Is(got, context.Canceled) {
			t.Errorf("got %v", got)
		}
	}
}

func TestOwnCancellationAndDeadline(t *testing.T) {
	t.Parallel()
	client := pair(t, rpc.ServerConfig{}, &service{pick: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Pick(canceled, &routerv1.PickRequest{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := client.Pick(short, &routerv1.PickRequest{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestGarbageInErrorsStillCrosses(t *testing.T) {
	t.Parallel()
	sent := member.Invalid("server_id", "%s", "\xff"+strings.Repeat("x", 1<<20))
	unary, _ := overTheWire(t, rpc.ServerConfig{}, sent)
	var field *member.FieldError
	if !errors.As(unary, &field) || field.Field != "server_id" {
		t.Fatalf("got %T", unary)
	}
	if len(field.Problem) > 2048 || len(unary.Error()) > 2048 {
		t.Errorf("a text of %d bytes came through", len(field.Problem))
	}
}

func TestFromStatus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   error
		is   error
		text string
	}{
		{status.Error(codes.Unauthenticated, "who"), member.ErrPermission, "who"},
		{status.Error(codes.Unimplemented, "unknown method"), nil, "unknown method"},
		{status.Error(codes.Unavailable, "no"), member.ErrUnavailable, "no"},
		{
			status.Error(codes.Unavailable, `last connection error: connection error: desc = `+
				`"transport: Error while dialing: dial tcp [::1]:7400: connect: connection refused"`),
			member.ErrUnavailable, "dial tcp [::1]:7400: connect: connection refused",
		},
		{
			status.Error(codes.Unavailable, `connection error: desc = `+
				`"transport: authentication handshake failed: verify server: no \"x\""`),
			member.ErrUnavailable, `authentication handshake failed: verify server: no "x"`,
		},
		{status.Error(codes.ResourceExhausted, "message too large"), member.ErrExhausted, "message too large"},
	} {
		got := rpc.FromStatus(tt.in)
		if tt.is != nil && !errors.Is(got, tt.is) {
			t.Errorf("%v is not %v", got, tt.is)
		}
		if diff := cmp.Diff(tt.text, got.Error()); diff != "" {
			t.Error(diff)
		}
	}
	if rpc.FromStatus(nil) != nil || rpc.ToStatus(nil) != nil {
		t.Error("nil became an error")
	}
}

func TestToStatusHidesTheUnknown(t *testing.T) {
	t.Parallel()
	st := status.Convert(rpc.ToStatus(errors.New("secret")))
	if st.Code() != codes.Internal || strings.Contains(st.Message(), "secret") {
		t.Errorf("got %v", st)
	}
}
