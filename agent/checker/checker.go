// Package checker runs one check of an agent's own service: a TCP connect, an
// HTTP request, a gRPC health request or a command. What the results come to is
// for others to decide.
package checker

import (
	"cmp"
	"context"
	"net"
	"net/url"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
)

// Check is one check. Use Parse.
type Check struct {
	name string
	run  func(ctx context.Context) error
}

// Parse reads tcp://HOST:PORT, http://… and https://…, grpc://HOST:PORT[/SERVICE]
// or exec:COMMAND. Errors name the field.
func Parse(field, s string) (Check, error) {
	if line, ok := strings.CutPrefix(s, "exec:"); ok {
		if strings.TrimSpace(line) == "" {
			return Check{}, member.Invalid(field, "%q has no command", s)
		}
		return Check{name: s, run: execute(line)}, nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" {
		return Check{}, member.Invalid(field, "%q is none of %s", s, forms)
	}
	c, address := Check{name: u.Redacted()}, u.Host
	switch {
	case u.Scheme == "tcp" && s == "tcp://"+u.Host:
		c.run = connect(address)
	case u.Scheme == "grpc" && u.User == nil && u.RawQuery == "" && u.Fragment == "":
		c.run = askHealth(address, strings.TrimPrefix(u.Path, "/"))
	case u.Scheme == "http" || u.Scheme == "https":
		address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80"))
		c.run = get(u)
	default:
		return Check{}, member.Invalid(field, "%q is none of %s", s, forms)
	}
	return c, member.CheckHostPort(field, address)
}

const forms = "tcp://HOST:PORT, http://HOST…, https://HOST…, grpc://HOST:PORT[/SERVICE], exec:COMMAND"

// String returns the check as it was written, but for a password.
func (c Check) String() string { return c.name }

// Run makes the check once. The error says how it failed; it is ctx's where it
// had no time left.
func (c Check) Run(ctx context.Context) error { return c.run(ctx) }
