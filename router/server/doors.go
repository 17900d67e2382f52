package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
	"github.com/buddyring/buddyring/router/dns"
	"github.com/buddyring/buddyring/router/dns/zone"
	"github.com/buddyring/buddyring/router/door"
	"github.com/buddyring/buddyring/router/web"
)

// Pool implements door.Pools.
func (p *pools) Pool(name member.Pool) (*door.State, error) {
	if name == "" {
		return nil, fmt.Errorf("pool %q: %w", name, member.ErrNotFound)
	}
	e, err := p.find(string(name))
	if err != nil {
		return nil, err
	}
	return e.state, nil
}

// Pools implements door.Pools.
func (p *pools) Pools() ([]*door.State, error) {
	if err := p.ready(); err != nil {
		return nil, fmt.Errorf("%w: %w", member.ErrUnavailable, err)
	}
	editions := p.editions()
	slices.SortFunc(editions, func(a, b *edition) int { return cmp.Compare(a.pool, b.pool) })
	states := make([]*door.State, len(editions))
	for i, e := range editions {
		states[i] = e.state
	}
	return states, nil
}

// dnsDoor is the DNS door where it is on.
type dnsDoor struct {
	server  *dns.Server
	address string
	deps    Deps
}

// newDNSDoor returns nil where the door is off.
func newDNSDoor(cfg Config, deps Deps, p door.Pools) (*dnsDoor, error) {
	if cfg.DNSListen == "" {
		return nil, nil
	}
	server, err := dns.New(dns.Config{Zone: cfg.DNSZone}, dns.Deps{Pools: p, Registry: deps.Registry, Logger: deps.Logger})
	if err != nil {
		return nil, err
	}
	return &dnsDoor{server: server, address: cfg.DNSListen, deps: deps}, nil
}

// run answers until ctx ends.
func (d *dnsDoor) run(ctx context.Context) error {
	streams, err := d.deps.listen(ctx, "dns", d.address)
	if err != nil {
		return err
	}
	open := d.deps.ListenPacket
	if open == nil {
		open = d.deps.Credentials.ListenPacket
	}
	packets, err := open(ctx, "dns-udp", samePort(d.address, streams.Addr()))
	if err != nil {
		return errors.Join(fmt.Errorf("listen for dns: %w", err), streams.Close())
	}
	d.deps.Logger.InfoContext(ctx, "dns door is open", "address", packets.LocalAddr().String())
	return d.server.Run(ctx, packets, streams)
}

// samePort is the address with the port that a listener on it has got, where it
// asked for any.
func samePort(address string, got net.Addr) string {
	host, _, err := net.SplitHostPort(address)
	tcp, ok := got.(*net.TCPAddr)
	if err != nil || !ok {
		return address
	}
	return net.JoinHostPort(host, fmt.Sprint(tcp.Port))
}

// webDoor is the HTTP door's own listener where there is one.
type webDoor struct {
	server    *observe.HTTP
	address   string
	listeners *listeners
	log       *slog.Logger
}

// newWebDoor returns the pages of the HTTP door, and its own listener or nil. The
// own listener is for the public: with TLS, no client certificate is needed.
func newWebDoor(cfg Config, deps Deps, p door.Pools, l *listeners) (map[string]http.Handler, *webDoor) {
	pages := web.New(web.Deps{Pools: p, Registry: deps.Registry})
	onMetricsPort := map[string]http.Handler{"/v1/": pages, "/sd/": pages}
	if cfg.WebListen == "" {
		return onMetricsPort, nil
	}
	return onMetricsPort, &webDoor{
		server: observe.NewServer(deps.Credentials.HTTPConfig(), pages, deps.Logger), address: cfg.WebListen,
		listeners: l, log: deps.Logger,
	}
}

// run answers until ctx ends.
func (d *webDoor) run(ctx context.Context) error {
	lis, err := d.listeners.open(ctx, "web", d.address)
	if err != nil {
		return err
	}
	d.log.InfoContext(ctx, "http door is open", "address", lis.Addr().String())
	return d.server.Serve(ctx, lis)
}

// settlers are those of the doors whose clients are not told of a change.
func (c Config) settlers() []settler {
	if c.DNSListen == "" {
		return nil
	}
	return []settler{expiry(zone.TTL)}
}

// expiry is how long an answer that was given before a change may be used after it.
type expiry time.Duration

// settle counts from the newest edition, so that it does not add to what the
// editions have waited before.
func (e expiry) settle(ctx context.Context, editions []*edition) error {
	var newest time.Time
	for _, edition := range editions {
		if edition.made.After(newest) {
			newest = edition.made
		}
	}
	timer := time.NewTimer(time.Until(newest.Add(time.Duration(e))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
