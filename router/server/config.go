package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
)

// Config is what an operator decides about a router.
type Config struct {
	// ID names the router to the coordinator. With TLS it is the name in the
	// certificate.
	ID string
	// Listen and HTTPListen are HOST:PORT.
	Listen, HTTPListen string
	// Coordinators are HOST:PORT, at least one, tried in order and in turn.
	Coordinators []string
	// StateDir is where the last good views are kept; it is made if it is not
	// there. No other router may use it. A router that cannot write to it serves
	// all the same.
	StateDir string
	// SlowStart is how long a server that is new to work takes to get its whole
	// weight from Pick; none when 0, at most an hour.
	SlowStart time.Duration
	// Version is what the router tells the coordinator about itself.
	Version string
}

// Deps are what a router needs from its process. All are needed but where said
// otherwise.
type Deps struct {
	Credentials *rpc.Credentials
	Registry    *prometheus.Registry
	Logger      *slog.Logger
	// Dialer opens a transport connection to a coordinator; nil for TCP.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// Listen opens a listener by name, which is "grpc" or "http"; nil for
	// Credentials.Listen.
	Listen func(ctx context.Context, name, address string) (net.Listener, error)
}

// Check says what is wrong with the configuration; its errors name the flag.
func (c Config) Check(credentials *rpc.Credentials) error {
	if _, err := member.ParseID("id", c.ID); err != nil {
		return err
	}
	if me := credentials.Identity(); credentials.TLS() && (me.Role != rpc.RoleRouter || me.Name != c.ID) {
		return member.Invalid("tls-cert", "it is for %s, not for the router %s", me, c.ID)
	}
	if len(c.Coordinators) == 0 {
		return member.Invalid("coordinator", "at least one HOST:PORT is needed")
	}
	for _, address := range c.Coordinators {
		if err := member.CheckHostPort("coordinator", address); err != nil {
			return err
		}
	}
	for _, l := range []struct{ flag, address string }{{"listen", c.Listen}, {"http-listen", c.HTTPListen}} {
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			return member.Invalid(l.flag, "%q is not HOST:PORT", l.address)
		}
	}
	if c.StateDir == "" {
		return member.Invalid("state-dir", "must not be empty")
	}
	if c.SlowStart < 0 || c.SlowStart > time.Hour {
		return member.Invalid("slow-start", "%v is not between 0 and 1h", c.SlowStart)
	}
	return nil
}

func (d Deps) listen(ctx context.Context, name, address string) (net.Listener, error) {
	open := d.Listen
	if open == nil {
		open = d.Credentials.Listen
	}
	lis, err := open(ctx, name, address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", name, err)
	}
	return lis, nil
}
