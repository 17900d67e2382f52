package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// target is a kind of process to reach.
type target struct {
	name, flag string
	role       rpc.Role
	addresses  []string
}

// askAdmin calls a coordinator's AdminService within the time-out.
func (a *app) askAdmin(ctx context.Context, call func(context.Context, coordinatorv1.AdminServiceClient) error) error {
	return a.limited(ctx, a.coordinators(), a.timeout, func(ctx context.Context, cc *grpc.ClientConn) error {
		return call(ctx, coordinatorv1.NewAdminServiceClient(cc))
	})
}

// askRouter calls a router's RouterService within the time-out.
func (a *app) askRouter(ctx context.Context, call func(context.Context, routerv1.RouterServiceClient) error) error {
	routers := target{name: "router", flag: "--router", role: rpc.RoleRouter, addresses: a.router}
	return a.limited(ctx, routers, a.timeout, func(ctx context.Context, cc *grpc.ClientConn) error {
		return call(ctx, routerv1.NewRouterServiceClient(cc))
	})
}

func (a *app) coordinators() target {
	return target{name: "coordinator", flag: "--admin", role: rpc.RoleCoordinator, addresses: a.admin}
}

// limited reaches a target within a time, which its addresses share.
func (a *app) limited(ctx context.Context, t target, end time.Duration, call func(context.Context, *grpc.ClientConn) error) error {
	ctx, cancel := context.WithTimeout(ctx, end)
	defer cancel()
	left := len(t.addresses)
	return a.reach(ctx, t, func(ctx context.Context, cc *grpc.ClientConn) error {
		deadline, _ := ctx.Deadline()
		share, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
		left = max(1, left-1)
		return call(share, cc)
	})
}

// reach calls the first address that answers and, for coordinators, leads. A
// call that another address might still answer is repeated there, so it must
// be repeatable. Where nobody leads, a standby's answer has to do.
func (a *app) reach(ctx context.Context, t target, call func(context.Context, *grpc.ClientConn) error) error {
	credentials, err := rpc.NewCredentials(a.security, a.logger())
	if err != nil {
		return &usageError{err}
	}
	cfg := rpc.DialConfig{Credentials: credentials, ServerRole: t.role, Logger: a.logger(), Dialer: a.Dialer}
	failed := &unreachableError{target: t}
	standby := ""
	for _, address := range t.addresses {
		cfg.Addresses = []string{address}
		stale, err := askOne(ctx, cfg, call)
		if wrongPort(err) {
			return fmt.Errorf("ask a %s at %s: %w; %s", t.name, address, err, hint(err.Error(), t))
		}
		if stale && err == nil {
			standby = address
			continue
		}
		if !elsewhere(err) {
			return err
		}
		failed.attempts = append(failed.attempts, attempt{address, err})
		if ctx.Err() != nil {
			break
		}
	}
	switch {
	case standby != "":
		if len(t.addresses) > 1 {
			// Others may have been asked since, and the standby may lead by now.
			cfg.Addresses = []string{standby}
			if stale, err := askOne(ctx, cfg, call); err != nil || !stale {
				return err
			}
		}
		a.standby = true
		a.complain("a standby answered, at " + standby + "; what only the leader knows is missing")
		return nil
	case len(failed.attempts) == 0:
		return member.Invalid(strings.TrimPrefix(t.flag, "--"), "at least one address is needed")
	}
	return failed
}

// askOne calls one address, and reports whether a standby has answered.
func askOne(
	ctx context.Context, cfg rpc.DialConfig, call func(context.Context, *grpc.ClientConn) error,
) (standby bool, err error) {
	conn, err := rpc.Dial(cfg)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }() // the call has ended
	noted, stale := rpc.NoteStale(ctx)
	err = call(noted, conn)
	return stale.Load(), err
}

// elsewhere reports whether another address might do better.
func elsewhere(err error) bool {
	return errors.Is(err, member.ErrUnavailable) || errors.Is(err, member.ErrNotLeader) ||
		errors.Is(err, context.DeadlineExceeded)
}

// wrongPort reports whether the address is another service's.
func wrongPort(err error) bool { return err != nil && strings.Contains(err.Error(), "unknown service") }

// attempt is an address and why it did not do.
type attempt struct {
	address string
	err     error
}

// unreachableError says which addresses were tried, and what to do.
type unreachableError struct {
	target   target
	attempts []attempt
}

func (e *unreachableError) Error() string {
	reasons, what := make([]string, len(e.attempts)), "cannot reach a "+e.target.name
	// silent are those of the reasons that are not the words of a coordinator or a
	// router, which may speak of its database's connections.
	var silent []string
	for i, a := range e.attempts {
		reasons[i] = a.address + ": " + reason(a.err)
		if answered(a.err) {
			what = "no " + e.target.name + " can do this now"
		} else {
			silent = append(silent, reasons[i])
		}
	}
	if last := e.Unwrap(); errors.Is(last, context.DeadlineExceeded) && !answered(last) {
		what = "no answer from a " + e.target.name
	}
	text := what + " at " + strings.Join(reasons, "; at ")
	if hint := hint(strings.Join(silent, "; "), e.target); hint != "" {
		text += "; " + hint
	}
	return text
}

// Unwrap returns the last attempt's error, which decides the exit status.
func (e *unreachableError) Unwrap() error { return e.attempts[len(e.attempts)-1].err }

// answered reports whether an error is a server's answer rather than a failure
// to reach it: servers add a hint when to try again, and know who leads.
func answered(err error) bool {
	_, hinted := rpc.RetryAfter(err)
	return hinted || errors.Is(err, member.ErrNotLeader)
}

// mayHaveHappened reports whether a call that failed may have reached a server
// that did not say what came of it.
func mayHaveHappened(err error) bool {
	var failed *unreachableError
	if !errors.As(err, &failed) {
		return false
	}
	return slices.ContainsFunc(failed.attempts, func(a attempt) bool {
		return !answered(a.err) && !strings.Contains(a.err.Error(), notConnected)
	})
}

// notConnected is how gRPC's errors of calls begin that were never sent.
const notConnected = "connection error: desc = "

// reason is the part of a transport's error that helps a person.
func reason(err error) string {
	text := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline exceeded"
	case answered(err):
		return text
	}
	for _, wrapping := range []string{
		notConnected, "Error while dialing: ", "authentication handshake failed: ", "dial tcp: ", "connect: ",
	} {
		if i := strings.LastIndex(text, wrapping); i >= 0 {
			text = text[i+len(wrapping):]
		}
	}
	return strings.ReplaceAll(strings.Trim(text, `"`), `\"`, `"`)
}

// hint is what to try, by what the error says.
func hint(text string, t target) string {
	for _, h := range []struct{ says, do string }{
		{"connection refused", "is it running? try " + t.flag + " HOST:PORT"},
		{"no such host", "is the name right? try " + t.flag + " HOST:PORT"},
		{"does not look like a TLS handshake", "it speaks plaintext: leave out --tls-cert, --tls-key and --tls-ca"},
		{"looked like an HTTP/1.1 header", "is this its port for " + strings.TrimPrefix(t.flag, "--") + "?"},
		{"tls: expired certificate", "--tls-cert has ended, or the clock is wrong here or there"},
		{"tls: unknown certificate authority", "was --tls-cert issued by its CA?"},
		{"certificate required", "give --tls-cert and --tls-key"},
		{"error reading server preface", "does it want TLS? give --tls-cert, --tls-key and --tls-ca"},
		{"unknown authority", "is --tls-ca the CA that issued its certificate?"},
		{"unknown service", "is this its port for " + strings.TrimPrefix(t.flag, "--") + "?"},
		{"deadline exceeded", "is it reachable from here? try " + t.flag + " HOST:PORT or a longer --timeout"},
	} {
		if strings.Contains(text, h.says) {
			return h.do
		}
	}
	return ""
}

// pages follows a list to its end.
func pages[T any](fetch func(token string) (items []T, next string, err error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		items, next, err := fetch(token)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		if next == token {
			return nil, fmt.Errorf("list: the server repeats the page %q for ever", token)
		}
		token = next
	}
}

// pageSize is the largest page.
const pageSize = 1000
