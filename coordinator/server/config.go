package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
)

// Config is what an operator decides about a coordinator.
type Config struct {
	// ID names the coordinator in the lease. No other may have it.
	ID string
	// Instance names this run of it; a random name if empty. Predecessor is that
	// of an earlier run which is known to have ended, or "": what it held need not
	// be waited for.
	Instance, Predecessor string
	// Version is what it says about itself.
	Version string
	// Listen is HOST:PORT for agents and routers, AdminListen for operators,
	// HTTPListen for metrics and health.
	Listen, AdminListen, HTTPListen string
	// Advertise is HOST:PORT at which agents and routers reach it, as they and
	// other coordinators are told; "" to tell them nothing.
	Advertise string
	// Connections bound those of agents and routers; DefaultConnections where they are
	// 0. Operators and scrapers have quota.Few.
	Connections quota.Limits
	// AutoCreatePools lets a join make a pool.
	AutoCreatePools bool
	// AllowLocalAddresses lets servers have loopback and link-local addresses,
	// which is for trials on one host.
	AllowLocalAddresses bool
}

// Deps are what a coordinator needs from its process. All are needed but where
// said otherwise.
type Deps struct {
	// Store is open; whoever opened it closes it.
	Store       Store
	Credentials *rpc.Credentials
	Registry    *prometheus.Registry
	Logger      *slog.Logger
	// FreeBytes tells how much room the database's disk has; nil where that is
	// not this host's.
	FreeBytes func() (uint64, error)
	// Dialer tries a TCP connect to a server; nil for TCP.
	Dialer func(ctx context.Context, address string) (net.Conn, error)
	// PeerDialer opens a connection to another coordinator; nil for TCP.
	PeerDialer func(ctx context.Context, address string) (net.Conn, error)
	// Listen opens a listener by name, which is "agent", "admin" or "http"; nil
	// for Credentials.Listen.
	Listen func(ctx context.Context, name, address string) (net.Listener, error)
}

// DefaultConnections are the limits of connections of agents and routers. An agent's
// costs some 60 KiB, one that never says hello less, and for 10 s at most.
func DefaultConnections() quota.Limits { return quota.Limits{Total: 131_072, PerSource: 16_384} }

// Check says what is wrong with the configuration; its errors name the flag.
func (c Config) Check(credentials *rpc.Credentials) error {
	if _, err := member.ParseID("id", c.ID); err != nil {
		return err
	}
	if me := credentials.Identity(); credentials.TLS() && me.Role != rpc.RoleCoordinator {
		return member.Invalid("tls-cert", "it is for %s, not for a coordinator", me)
	}
	if c.Advertise != "" {
		if err := member.CheckHostPort("advertise", c.Advertise); err != nil {
			return err
		}
	}
	if err := c.Connections.Check(); err != nil {
		return err
	}
	for _, l := range []struct{ flag, address string }{
		{"listen", c.Listen}, {"admin-listen", c.AdminListen}, {"http-listen", c.HTTPListen},
	} {
		if err := credentials.CheckListen(l.flag, l.address); err != nil {
			return err
		}
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
