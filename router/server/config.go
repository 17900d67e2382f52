package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/internal/rpc"
	"github.com/buddyring/buddyring/router/dns/zone"
)

// Config is what an operator decides about a router.
type Config struct {
	// ID names the router to the coordinator. With TLS it is the name in the
	// certificate.
	ID string
	// Listen and HTTPListen are HOST:PORT.
	Listen, HTTPListen string
	// WebListen is the HOST:PORT of a listener for the HTTP door alone, apart from
	// metrics; "" opens none.
	WebListen string
	// DNSListen is the HOST:PORT of the DNS door, UDP and TCP; "" leaves it off.
	DNSListen string
	// DNSZone is the domain below which the DNS door answers.
	DNSZone string
	// Coordinators are HOST:PORT, at least one, tried in order and in turn.
	Coordinators []string
	// StateDir is where the last good views are kept; it is made if it is not
	// there. No other router may use it. A router that cannot write to it serves
	// all the same.
	StateDir string
	// Connections bound those of each listener but the DNS door's, which has limits of
	// its own; DefaultConnections where they are 0.
	Connections quota.Limits
	// SlowStart is how long a server that is new to work takes to get its whole
	// weight; none when 0, at most an hour.
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
	// Listen opens a listener by name, which is "grpc", "http", "web" or "dns"; nil
	// for Credentials.Listen.
	Listen func(ctx context.Context, name, address string) (net.Listener, error)
	// ListenPacket opens the socket of the DNS door, which is "dns-udp"; nil for
	// Credentials.ListenPacket.
	ListenPacket func(ctx context.Context, name, address string) (net.PacketConn, error)
}

// DefaultConnections are the limits of connections to one listener.
func DefaultConnections() quota.Limits { return quota.Halves(32_768) }

// off stands for a listener that is not wanted.
const off = "127.0.0.1:0"

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
	for _, l := range []struct{ flag, address string }{
		{"listen", c.Listen},
		{"http-listen", c.HTTPListen},
		{"dns-listen", cmp.Or(c.DNSListen, off)},
		{"web-listen", cmp.Or(c.WebListen, off)},
	} {
		if err := credentials.CheckListen(l.flag, l.address); err != nil {
			return err
		}
	}
	if c.DNSListen != "" {
		if err := zone.CheckOrigin("dns-zone", c.DNSZone); err != nil {
			return err
		}
	}
	if err := c.Connections.Check(); err != nil {
		return err
	}
	if c.StateDir == "" {
		return member.Invalid("state-dir", "must not be empty")
	}
	if c.SlowStart < 0 || c.SlowStart > time.Hour {
		return member.Invalid("slow-start", "%v is not between 0 and 1h", c.SlowStart)
	}
	return nil
}

// listeners opens listeners that have limits.
type listeners struct {
	deps   Deps
	guard  *quota.Guard
	limits quota.Limits
}

func newListeners(cfg Config, deps Deps) *listeners {
	guard, listening := quota.NewGuard(deps.Registry, deps.Logger), 2
	if cfg.WebListen != "" {
		listening++
	}
	return &listeners{deps, guard, guard.Share(cfg.Connections.Or(DefaultConnections()), listening)}
}

func (l *listeners) open(ctx context.Context, name, address string) (net.Listener, error) {
	lis, err := l.deps.listen(ctx, name, address)
	if err != nil {
		return nil, err
	}
	return l.guard.Listener(lis, name, l.limits), nil
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
