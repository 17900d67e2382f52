package client

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/balancer/base"
	"google.golang.org/grpc/balancer/endpointsharding"
	"google.golang.org/grpc/balancer/pickfirst"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// balancerName is the balancer's name in a service config.
const balancerName = "buddyring"

// gRPC takes balancers at no other time.
func init() { balancer.Register(balancerBuilder{}) } //nolint:gochecknoinits // see above

type balancerBuilder struct{}

// balancerConfig is the balancer's part of a service config.
type balancerConfig struct {
	serviceconfig.LoadBalancingConfig `json:"-"`

	Policy Policy `json:"policy,omitempty"`
}

func (balancerBuilder) Name() string { return balancerName }

func (balancerBuilder) ParseConfig(raw json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	cfg := &balancerConfig{}
	if err := json.Unmarshal(raw, cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", balancerName, err)
	}
	if _, ok := policyOf(cfg.Policy); !ok {
		return nil, fmt.Errorf("%s: %w", balancerName, member.Invalid("policy", "%q is none", cfg.Policy))
	}
	return cfg, nil
}

func (balancerBuilder) Build(cc balancer.ClientConn, opts balancer.BuildOptions) balancer.Balancer {
	b := &poolBalancer{ClientConn: cc}
	b.child = endpointsharding.NewBalancer(b, opts, balancer.Get(pickfirst.Name).Build, endpointsharding.Options{})
	return b
}

// poolBalancer keeps connections to all servers of a pool, suspects included, and
// picks among those that are connected as Pool.Pick does among all. gRPC's own
// endpointsharding and pick_first, under its round_robin too, do the connecting;
// it only gives them endpoints and makes a picker of what they report.
type poolBalancer struct {
	// ClientConn is what child reports to but for UpdateState.
	balancer.ClientConn
	child balancer.Balancer
	turns atomic.Uint64

	mu     sync.Mutex
	policy view.Policy
	from   *resolved
}

// target is what an endpoint's attributes say of it.
type target struct {
	entry view.Entry
	load  *counter
}

type targetKey struct{}

func (b *poolBalancer) UpdateClientConnState(ccs balancer.ClientConnState) error {
	r := resolvedIn(ccs.ResolverState)
	if r == nil {
		return fmt.Errorf("%w: the target is not %s:///POOL", balancer.ErrBadResolverState, scheme)
	}
	cfg, ok := ccs.BalancerConfig.(*balancerConfig)
	if !ok {
		return fmt.Errorf("%w: config of type %T", balancer.ErrBadResolverState, ccs.BalancerConfig)
	}
	b.mu.Lock()
	b.policy, _ = policyOf(cfg.Policy)
	b.from = r
	b.mu.Unlock()
	err := b.child.UpdateClientConnState(balancer.ClientConnState{
		// As gRPC's own balancers do, for its health checks.
		ResolverState: pickfirst.EnableHealthListener(resolver.State{Endpoints: r.all()}),
	})
	if len(r.all()) == 0 {
		// Nobody to connect to is an answer, not a failure of the resolver.
		return nil
	}
	return err
}

func (b *poolBalancer) ResolverError(err error) { b.child.ResolverError(err) }

func (b *poolBalancer) ExitIdle() { b.child.ExitIdle() }

func (b *poolBalancer) Close() { b.child.Close() }

// UpdateSubConnState is of an interface that gRPC has given up.
func (b *poolBalancer) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// UpdateState takes the connections as they are now. The best state of which any
// server is connected, or may still be, decides: calls wait for it rather than go
// to servers of the next.
func (b *poolBalancer) UpdateState(s balancer.State) {
	children := endpointsharding.ChildStatesFromPicker(s.Picker)
	b.mu.Lock()
	policy, from := b.policy, b.from
	b.mu.Unlock()
	switch best := bestOf(children); {
	case len(children) == 0 && from != nil:
		s.Picker = base.NewErrPicker(status.Error(codes.Unavailable, poolError(from.pool, ErrNoServer).Error()))
	case best == nil:
		// gRPC's picker tells the last error.
	case len(best.ready) == 0:
		s = balancer.State{ConnectivityState: connectivity.Connecting, Picker: base.NewErrPicker(balancer.ErrNoSubConnAvailable)}
	default:
		s = balancer.State{ConnectivityState: connectivity.Ready, Picker: newPicker(best.ready, &picker{policy: policy, from: from, turns: &b.turns})}
	}
	b.ClientConn.UpdateState(s)
}

// tier are the servers of one state that are not known to fail.
type tier struct {
	ready []endpointsharding.ChildState
}

// bestOf returns the first tier that there is; nil if all servers are known to
// fail.
func bestOf(children []endpointsharding.ChildState) *tier {
	tiers := map[view.State]*tier{}
	best := view.StateHeldBack
	for _, c := range children {
		t, ok := targetOf(c.Endpoint)
		if !ok || c.State.ConnectivityState == connectivity.TransientFailure {
			continue
		}
		at := tiers[t.entry.State]
		if at == nil {
			at = &tier{}
			tiers[t.entry.State] = at
		}
		if c.State.ConnectivityState == connectivity.Ready {
			at.ready = append(at.ready, c)
		}
		best = min(best, t.entry.State)
	}
	return tiers[best]
}

func targetOf(e resolver.Endpoint) (target, bool) {
	t, ok := e.Attributes.Value(targetKey{}).(target)
	return t, ok
}

func toEndpoint(address string, t target) resolver.Endpoint {
	return resolver.Endpoint{
		Addresses: []resolver.Address{{Addr: address}}, Attributes: attributes.New(targetKey{}, t),
	}
}

// picker picks among connected servers of one state. It is safe for concurrent
// use.
type picker struct {
	policy view.Policy
	from   *resolved
	turns  *atomic.Uint64
	table  *view.Table
	// connected are in the order of table.Entries.
	connected []connected
}

type connected struct {
	picker balancer.Picker
	load   *counter
	// done is made once for all calls.
	done func(balancer.DoneInfo)
}

// newPicker completes a picker for connected servers.
func newPicker(ready []endpointsharding.ChildState, p *picker) *picker {
	entries := make([]view.Entry, len(ready))
	for i, c := range ready {
		t, _ := targetOf(c.Endpoint)
		entries[i] = t.entry
	}
	p.table, p.connected = view.NewTable(entries), make([]connected, len(ready))
	for _, c := range ready {
		t, _ := targetOf(c.Endpoint)
		i, _ := p.table.Find(t.entry.Server.ID)
		p.connected[i] = connected{
			picker: c.State.Picker, load: t.load, done: func(balancer.DoneInfo) { t.load.add(-1) },
		}
	}
	return p
}

// Load is for view.Request.
func (p *picker) Load(i int) uint64 { return p.connected[i].load.load() }

// Pick chooses a connected server for a call.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	q := view.Request{Policy: p.policy, Zone: p.from.zone, Loads: p}
	if key, ok := info.Ctx.Value(keyOfCall{}).(string); ok {
		q.Policy, q.Key = view.Maglev, key
	}
	vary(&q, p.from.state.flight, p.turns)
	choice, ok := p.table.Pick(&q)
	if !ok {
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	c := &p.connected[choice.Index()]
	result, err := c.picker.Pick(info)
	if err != nil {
		return result, err
	}
	c.load.add(1)
	if inner := result.Done; inner != nil {
		result.Done = func(d balancer.DoneInfo) {
			c.done(d)
			inner(d)
		}
	} else {
		result.Done = c.done
	}
	return result, nil
}
