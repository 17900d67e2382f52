package client

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// Policy is how to choose among servers of the same state. All policies honour
// weights.
type Policy string

// The policies. P2C, the default, takes the one with less work in flight of two
// that are drawn at random.
const (
	DefaultPolicy Policy = ""
	P2C           Policy = "p2c"
	RoundRobin    Policy = "round_robin"
	Random        Policy = "random"
)

// policyOf returns the policy that a name stands for.
func policyOf(p Policy) (view.Policy, bool) {
	switch p {
	case DefaultPolicy, P2C:
		return view.P2C, true
	case RoundRobin:
		return view.RoundRobin, true
	case Random:
		return view.Random, true
	}
	return 0, false
}

// Request says what to choose. The zero Request asks for any server.
type Request struct {
	// Policy is that of Config where it is empty.
	Policy Policy
	// Key, where there is one, takes the place of the policy: work with the same
	// key goes to the same server, in every program and through every router, as
	// long as that server is there (Maglev). While it has more than 1.5 times its
	// share of the work, the key gives way to another one.
	Key string
	// Endpoint is the name of the endpoint to use; that of Config where it is
	// empty.
	Endpoint string
	// Exclude are ids of servers not to choose, as in a retry.
	Exclude []string
}

// Choice is a chosen server. Done must be called once when the work on it has
// ended.
type Choice struct {
	// Server must not be changed.
	Server *Server
	// Address is HOST:PORT of the endpoint asked for.
	Address string

	load *counter
}

// Done says that the work has ended, however it did. P2C goes by the work that
// has not.
func (c Choice) Done() {
	if c.load != nil {
		c.load.add(-1)
	}
}

// Pick chooses a server. It does not wait, and does not allocate but for
// Exclude and for what the first key of a view needs. ErrUnknown means that no router has been reached yet, ErrNoServer
// that nobody may get this work.
func (p *Pool) Pick(r Request) (Choice, error) {
	policy, ok := p.policyFor(&r)
	if !ok {
		return Choice{}, member.Invalid("Policy", "%q is none", r.Policy)
	}
	if r.Endpoint == "" {
		r.Endpoint = p.cfg.Endpoint
	}
	s := p.state.Load()
	q := view.Request{
		Policy: policy, Endpoint: r.Endpoint, Exclude: toIDs(r.Exclude), Zone: p.cfg.Zone, Key: r.Key, Loads: s.loads,
	}
	vary(&q, s.flight, &p.turns)
	c, ok := s.table.Pick(&q)
	if !ok {
		return Choice{}, p.refusal(s)
	}
	load := (*s.loads)[c.Index()]
	load.add(1)
	return Choice{Server: &s.servers[c.Index()], Address: c.Address(), load: load}, nil
}

func (p *Pool) policyFor(r *Request) (view.Policy, bool) {
	switch {
	case r.Key != "":
		return view.Maglev, true
	case r.Policy != DefaultPolicy:
		return policyOf(r.Policy)
	default:
		return p.policy, true
	}
}

// vary sets what differs from pick to pick, as far as the policy needs it.
func vary(q *view.Request, f *flight, turns *atomic.Uint64) {
	q.Random = rand.Uint64() //nolint:gosec // no secret
	switch q.Policy {
	case view.RoundRobin:
		q.Turn = turns.Add(1) - 1
	case view.Maglev:
		q.TotalLoad = f.total()
	case view.P2C, view.Random:
	}
}

func toIDs(names []string) []member.ID {
	if len(names) == 0 {
		return nil
	}
	ids := make([]member.ID, len(names))
	for i, name := range names {
		ids[i] = member.ID(name)
	}
	return ids
}

// refusal says why a state has no server to offer.
func (p *Pool) refusal(s *state) error {
	switch {
	case s.list != nil:
		return poolError(p.name, ErrNoServer)
	case s.failure != nil:
		return poolError(p.name, fmt.Errorf("%w: %w", ErrUnknown, s.failure))
	default:
		return poolError(p.name, ErrUnknown)
	}
}
