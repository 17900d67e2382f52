package command

import (
	"context"
	"errors"

	"github.com/buddyring/buddyring/internal/member"
)

// The exit statuses. Scripts rely on them.
const (
	exitYes         = 0
	exitNo          = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitRefused     = 4
	exitDeadline    = 5
)

// noError is an answer that is no: everything worked, and the answer is
// written.
type noError struct{ text string }

func (e *noError) Error() string { return e.text }

// usageError is an error of how the program was called that shows only when a
// command has begun, such as a file that is not there.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

// exitCode is the status for the error of a command that has begun. Whatever
// the server said that has no status of its own, such as that a server is
// unknown, is no.
func exitCode(err error) int {
	var no *noError
	var usage *usageError
	switch {
	case err == nil:
		return exitYes
	case errors.As(err, &no):
		return exitNo
	case errors.Is(err, member.ErrRefused):
		return exitRefused
	case errors.Is(err, member.ErrInvalid), errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, member.ErrUnavailable), errors.Is(err, member.ErrNotLeader):
		return exitUnreachable
	case errors.Is(err, context.DeadlineExceeded):
		return exitDeadline
	}
	return exitNo
}
