package rpc

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/internal/member"
)

// errorDomain is the domain of every ErrorInfo of this package.
const errorDomain = "buddyring"

// mapping is one line of the table: an error of the vocabulary and its form on
// the wire.
type mapping struct {
	err    error
	code   codes.Code
	reason string
	// retry is the hint to clients when the server gives none; 0 for none.
	retry time.Duration
}

// mappings is the table, in order of precedence on both sides. A status
// without our ErrorInfo, such as gRPC's own, means the first error of its code.
func mappings() []mapping {
	return []mapping{
		{member.ErrInvalid, codes.InvalidArgument, "INVALID", 0},
		{member.ErrPermission, codes.PermissionDenied, "PERMISSION", 0},
		{member.ErrNotFound, codes.NotFound, "NOT_FOUND", 0},
		{member.ErrAlreadyExists, codes.AlreadyExists, "ALREADY_EXISTS", 0},
		{member.ErrStale, codes.Aborted, "STALE", 0},
		{member.ErrRefused, codes.FailedPrecondition, "REFUSED", 0},
		{member.ErrCompacted, codes.OutOfRange, "COMPACTED", 0},
		{member.ErrAhead, codes.OutOfRange, "AHEAD", 0},
		{member.ErrExhausted, codes.ResourceExhausted, "EXHAUSTED", time.Second},
		{member.ErrUnavailable, codes.Unavailable, "UNAVAILABLE", time.Second},
		{member.ErrNotLeader, codes.Unavailable, "NOT_LEADER", 0},
		{member.ErrFenced, codes.Unavailable, "FENCED", 0},
		{context.Canceled, codes.Canceled, "CANCELED", 0},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE", 0},
	}
}

// maxMessageBytes keeps a status within the limit on headers.
const maxMessageBytes = 1024

// ToStatus turns an error of the vocabulary into the gRPC error that goes over
// the wire. Errors that already are gRPC's pass; unknown ones become INTERNAL
// without their text. FromStatus is the inverse.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	st, ok := toStatus(err)
	if !ok {
		return status.Error(codes.Internal, "internal error")
	}
	return st.Err()
}

// toStatus is false for unknown errors.
func toStatus(err error) (*status.Status, bool) {
	for _, m := range mappings() {
		if errors.Is(err, m.err) {
			return m.status(err), true
		}
	}
	type grpcError interface {
		error
		GRPCStatus() *status.Status
	}
	if own, ok := errors.AsType[grpcError](err); ok {
		return own.GRPCStatus(), true
	}
	return nil, false
}

func (m mapping) status(err error) *status.Status {
	info := &errdetails.ErrorInfo{Reason: m.reason, Domain: errorDomain, Metadata: map[string]string{}}
	details := []protoadapt.MessageV1{info}
	if field, ok := errors.AsType[*member.FieldError](err); ok {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: printable(field.Field), Description: printable(field.Problem)},
		}})
	}
	if refused, ok := errors.AsType[*member.RefusedError](err); ok {
		info.Metadata["rule"], info.Metadata["reason"] = printable(refused.Rule), printable(refused.Reason)
	}
	if leader, ok := errors.AsType[*member.NotLeaderError](err); ok {
		info.Metadata["leader"] = printable(leader.Leader)
	}
	if removed, ok := errors.AsType[*member.RemovedError](err); ok {
		info.Metadata["removed"] = string(removed.ID)
		info.Metadata["incarnation"] = strconv.FormatUint(uint64(removed.Incarnation), 10)
		info.Metadata["cause"] = removed.Cause.String()
	}
	retry, ok := RetryAfter(err)
	if !ok {
		retry = m.retry
	}
	if retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
	}
	st := status.New(m.code, printable(err.Error()))
	detailed, detailErr := st.WithDetails(details...)
	if detailErr != nil {
		// The code and the text say most of it; details of known types that are
		// valid UTF-8 always encode.
		return st
	}
	return detailed
}

// printable makes text fit for a status: short and valid UTF-8.
func printable(s string) string {
	if len(s) > maxMessageBytes {
		s = s[:maxMessageBytes] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// FromStatus turns the gRPC error of a call into an error of the vocabulary
// that says what the server said. Other errors, and io.EOF, pass unchanged.
func FromStatus(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	return fromStatus(st)
}

func fromStatus(st *status.Status) error {
	out := &remoteError{message: plain(st.Message())}
	var info *errdetails.ErrorInfo
	var request *errdetails.BadRequest
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain {
				info = d
			}
		case *errdetails.BadRequest:
			request = d
		case *errdetails.RetryInfo:
			out.retry = d.GetRetryDelay().AsDuration()
		}
	}
	out.cause = sentinel(st.Code(), info.GetReason())
	switch {
	case errors.Is(out.cause, member.ErrInvalid) && len(request.GetFieldViolations()) > 0:
		v := request.GetFieldViolations()[0]
		out.cause = &member.FieldError{Field: v.GetField(), Problem: v.GetDescription()}
	case errors.Is(out.cause, member.ErrRefused) && info.GetMetadata()["rule"] != "":
		out.cause = &member.RefusedError{Rule: info.GetMetadata()["rule"], Reason: info.GetMetadata()["reason"]}
	case errors.Is(out.cause, member.ErrNotLeader):
		out.cause = &member.NotLeaderError{Leader: info.GetMetadata()["leader"]}
	case errors.Is(out.cause, member.ErrStale):
		if removed := removedFrom(info.GetMetadata()); removed != nil {
			out.cause = removed
		}
	}
	return out
}

// removedFrom returns nil where no removal is told. It takes a cause of a later
// version for none.
func removedFrom(metadata map[string]string) *member.RemovedError {
	if metadata["removed"] == "" {
		return nil
	}
	e := &member.RemovedError{ID: member.ID(metadata["removed"])}
	if n, err := strconv.ParseUint(metadata["incarnation"], 10, 64); err == nil {
		e.Incarnation = member.Incarnation(n)
	}
	if cause, err := member.ParseCause(metadata["cause"]); err == nil {
		e.Cause = cause
	}
	return e
}

// plain takes away what gRPC wraps around the reason of a failed connection.
func plain(message string) string {
	const wrapper = "connection error: desc = "
	if _, quoted, ok := strings.Cut(message, wrapper); ok {
		if reason, err := strconv.Unquote(quoted); err == nil {
			message = strings.TrimPrefix(strings.TrimPrefix(reason, "transport: "), "Error while dialing: ")
		}
	}
	return message
}

func sentinel(code codes.Code, reason string) error {
	if code == codes.Unauthenticated {
		return member.ErrPermission
	}
	var byCode error
	for _, m := range mappings() {
		if m.code != code {
			continue
		}
		if m.reason == reason {
			return m.err
		}
		if byCode == nil {
			byCode = m.err
		}
	}
	return byCode
}

// remoteError is an error that came over the wire.
type remoteError struct {
	message string
	// cause is an error of the vocabulary, or nil for codes that have none.
	cause error
	retry time.Duration
}

func (e *remoteError) Error() string { return e.message }

func (e *remoteError) Unwrap() error { return e.cause }

func (e *remoteError) retryAfter() time.Duration { return e.retry }

// WithRetry wraps an error with a hint when to try again, which crosses the
// wire.
func WithRetry(err error, after time.Duration) error {
	return &retryError{error: err, after: after}
}

// RetryAfter returns the hint that WithRetry or the server gave.
func RetryAfter(err error) (time.Duration, bool) {
	type hinted interface {
		error
		retryAfter() time.Duration
	}
	if hint, ok := errors.AsType[hinted](err); ok && hint.retryAfter() > 0 {
		return hint.retryAfter(), true
	}
	return 0, false
}

type retryError struct {
	error

	after time.Duration
}

func (e *retryError) Unwrap() error { return e.error }

func (e *retryError) retryAfter() time.Duration { return e.after }
