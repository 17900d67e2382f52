package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/buddyring/buddyring/internal/member"
)

const scheme = "buddyring"

// DialOption makes a connection of gRPC understand buddyring:///POOL, and
// buddyring:///POOL?endpoint=NAME: calls go to the servers of the pool, as
// [Pool.Pick] would choose them among those that are connected.
//
// The pool is followed from the first call on. Mistakes in the configuration, and
// a pool that no router knows, fail calls with UNAVAILABLE and the reason, unless
// they wait for ready.
func DialOption(cfg Config) grpc.DialOption {
	return grpc.WithResolvers(&resolverBuilder{cfg: cfg, last: map[string]ended{}})
}

// WithKey returns a context whose calls go to the server of a key, as with
// [Request].Key, where the balancer is that of this package.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfCall{}, key)
}

type keyOfCall struct{}

// resolverBuilder makes the resolvers of the connections that share a
// DialOption.
type resolverBuilder struct {
	cfg Config

	mu sync.Mutex
	// last is what resolvers knew that have ended, by pool: gRPC ends the resolver
	// of a connection that nobody uses, and makes another one for its next call.
	// Routers may be lost by then.
	last map[string]ended
}

type ended struct {
	state  *state
	status *Status
}

func (b *resolverBuilder) Scheme() string { return scheme }

func (b *resolverBuilder) Build(t resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	cfg := b.cfg
	cfg.Pool = t.Endpoint()
	if name := t.URL.Query().Get("endpoint"); name != "" {
		cfg.Endpoint = name
	}
	pool, err := newPool(cfg)
	if err != nil {
		return nil, fmt.Errorf("follow pool: %w", err)
	}
	service, err := cfg.serviceConfig()
	if err != nil {
		return nil, fmt.Errorf("follow pool: %w", err)
	}
	parsed := cc.ParseServiceConfig(service)
	if parsed.Err != nil {
		return nil, fmt.Errorf("follow pool: ServiceConfig: %w", parsed.Err)
	}
	b.begin(pool)
	ctx, cancel := context.WithCancel(context.Background())
	r := &poolResolver{builder: b, pool: pool, cc: cc, service: parsed, cancel: cancel}
	r.running.Go(func() { r.run(ctx) })
	return r, nil
}

// serviceConfig is this package's own balancer unless the configuration has
// another.
func (c *Config) serviceConfig() (string, error) {
	if c.ServiceConfig != "" {
		return c.ServiceConfig, nil
	}
	service := map[string]any{"loadBalancingConfig": []any{map[string]any{balancerName: balancerConfig{Policy: c.Policy}}}}
	text, err := json.Marshal(service)
	if err != nil {
		return "", fmt.Errorf("encode service config: %w", err)
	}
	return string(text), nil
}

// begin starts a pool with what is known of it.
func (b *resolverBuilder) begin(p *Pool) {
	b.mu.Lock()
	last, ok := b.last[string(p.name)]
	b.mu.Unlock()
	if ok {
		// Pools may begin with the same state; each closes its own channel.
		s := *last.state
		s.superseded = make(chan struct{})
		p.state.Store(&s)
		p.status.Store(last.status)
	} else {
		p.state.Store(unknown(nil))
		p.restore()
	}
	p.start()
}

// end ends a pool and keeps what is known of it.
func (b *resolverBuilder) end(p *Pool) {
	p.cancel()
	p.running.Wait()
	if s := p.state.Load(); s.list != nil {
		b.mu.Lock()
		b.last[string(p.name)] = ended{state: s, status: p.status.Load()}
		b.mu.Unlock()
	}
}

// poolResolver tells one connection of gRPC what a pool is.
type poolResolver struct {
	builder *resolverBuilder
	pool    *Pool
	cc      resolver.ClientConn
	service *serviceconfig.ParseResult

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// ResolveNow has nothing to do: routers tell what has changed.
func (r *poolResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close returns when nothing runs any more.
func (r *poolResolver) Close() {
	r.cancel()
	r.running.Wait()
	r.builder.end(r.pool)
}

func (r *poolResolver) run(ctx context.Context) {
	for ctx.Err() == nil {
		s := r.pool.state.Load()
		switch {
		case s.list != nil:
			r.tell(s)
		case s.failure != nil:
			// As text: gRPC takes the status of a router within it for that of the call.
			r.cc.ReportError(errors.New(r.pool.refusal(s).Error()))
		}
		select {
		case <-s.superseded:
		case <-ctx.Done():
		}
	}
}

// tell hands gRPC the servers. Balancers of gRPC take all that they are given for
// equal, so they get those of the best state only. This package's own takes the
// whole pool from the attributes.
func (r *poolResolver) tell(s *state) {
	all := &resolved{state: s, pool: r.pool.name, endpoint: r.pool.cfg.Endpoint, zone: r.pool.cfg.Zone}
	// What gRPC thinks of it changes nothing: it is how the pool is.
	_ = r.cc.UpdateState(resolver.State{
		Endpoints:     all.best(),
		ServiceConfig: r.service,
		Attributes:    attributes.New(resolvedKey{}, all),
	})
}

// resolved is a state of a pool as a resolver hands it to a balancer.
type resolved struct {
	state          *state
	pool           member.Pool
	endpoint, zone string
}

type resolvedKey struct{}

// resolvedIn returns what a resolver of this package has put there, or nil.
func resolvedIn(s resolver.State) *resolved {
	r, _ := s.Attributes.Value(resolvedKey{}).(*resolved)
	return r
}

// all are the endpoints of all servers, in order of preference.
func (r *resolved) all() []resolver.Endpoint {
	entries := r.state.table.Entries()
	out := make([]resolver.Endpoint, 0, len(entries))
	for i, e := range entries {
		if address, ok := addressOf(e.Server.Endpoints, r.endpoint); ok && e.Server.Weight > 0 {
			out = append(out, toEndpoint(address, target{entry: e, load: (*r.state.loads)[i]}))
		}
	}
	return out
}

// best are the endpoints of the servers of the best state that has any.
func (r *resolved) best() []resolver.Endpoint {
	all := r.all()
	for i, e := range all {
		first, _ := targetOf(all[0])
		if this, _ := targetOf(e); this.entry.State != first.entry.State {
			return all[:i]
		}
	}
	return all
}

// addressOf returns the address of the endpoint of a name, or of the first one.
func addressOf(endpoints []member.Endpoint, name string) (string, bool) {
	for _, e := range endpoints {
		if name == "" || e.Name == name {
			return e.Address, true
		}
	}
	return "", false
}
