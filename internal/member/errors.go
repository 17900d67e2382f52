package member

import (
	"errors"
	"fmt"
)

// The errors that components agree on. Each has one gRPC status; package rpc
// holds the only table. Wrap them as "verb noun: %w".
var (
	// ErrNotFound: there is no such server, pool or router.
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists: another live server, or a pool, has that name.
	ErrAlreadyExists = errors.New("already exists")
	// ErrInvalid: the request is malformed; see FieldError.
	ErrInvalid = errors.New("invalid")
	// ErrStale: expected_revision is not the present one, or an incarnation is
	// over.
	ErrStale = errors.New("stale")
	// ErrRefused: a safety rule says no; see RefusedError.
	ErrRefused = errors.New("refused by a safety rule")
	// ErrUnavailable: the store cannot be reached now; try again.
	ErrUnavailable = errors.New("unavailable")
	// ErrNotLeader: another coordinator leads; see NotLeaderError.
	ErrNotLeader = errors.New("not the leader")
	// ErrFenced: another leader has taken over; everything not committed is void.
	ErrFenced = errors.New("fenced")
	// ErrPermission: the peer's identity does not allow this.
	ErrPermission = errors.New("permission denied")
	// ErrCompacted: the history no longer reaches back that far.
	ErrCompacted = errors.New("compacted")
	// ErrAhead: the history does not reach that far. It is another one, or has lost
	// its end.
	ErrAhead = errors.New("the history ends before")
	// ErrExhausted: a limit is reached; try again later.
	ErrExhausted = errors.New("limit reached")
)

// FieldError says which field of a request, flag or file is wrong, and how.
// It is an ErrInvalid.
type FieldError struct {
	Field   string
	Problem string
}

func (e *FieldError) Error() string { return fmt.Sprintf("%s: %s", e.Field, e.Problem) }

// Unwrap returns ErrInvalid.
func (e *FieldError) Unwrap() error { return ErrInvalid }

// Invalid returns a FieldError.
func Invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// RefusedError names the safety rule that refused a request. It is an
// ErrRefused.
type RefusedError struct {
	Rule   string
	Reason string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("refused by %s: %s", e.Rule, e.Reason) }

// Unwrap returns ErrRefused.
func (e *RefusedError) Unwrap() error { return ErrRefused }

// NotLeaderError names the leader, if known. It is an ErrNotLeader.
type NotLeaderError struct {
	// Leader is the address the leader advertises, or "".
	Leader string
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "not the leader; no leader is known"
	}
	return "not the leader; the leader is " + e.Leader
}

// Unwrap returns ErrNotLeader.
func (e *NotLeaderError) Unwrap() error { return ErrNotLeader }

// RemovedError says that others have taken an incarnation out of its pool. It is
// an ErrStale.
type RemovedError struct {
	ID          ID
	Incarnation Incarnation
	// Cause is CauseUnspecified where it is not remembered.
	Cause Cause
}

func (e *RemovedError) Error() string {
	text := fmt.Sprintf("incarnation %d of %s was taken out of its pool", e.Incarnation, e.ID)
	if e.Cause != CauseUnspecified {
		text += " (" + e.Cause.String() + ")"
	}
	return text
}

// Unwrap returns ErrStale.
func (e *RemovedError) Unwrap() error { return ErrStale }
