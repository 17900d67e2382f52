package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// Limits of a pick.
const (
	maxPickCount   = 100
	maxPickExclude = 100
)

// service is RouterService. It answers from the pools' current editions.
type service struct {
	routerv1.UnimplementedRouterServiceServer

	pools    *pools
	audience *audience
	metrics  *metrics
	// closing is closed when the router shuts down.
	closing <-chan struct{}
	senders senders
}

// Resolve returns all servers that may get work.
func (s *service) Resolve(_ context.Context, req *routerv1.ResolveRequest) (*routerv1.ResolveResponse, error) {
	e, err := s.pools.find(req.GetPool())
	if err != nil {
		return nil, err
	}
	if err := checkEndpointName(req.GetEndpoint()); err != nil {
		return nil, err
	}
	return e.resolve(req.GetEndpoint(), time.Now())
}

// Pick chooses servers for one piece of work.
func (s *service) Pick(_ context.Context, req *routerv1.PickRequest) (*routerv1.PickResponse, error) {
	e, err := s.pools.find(req.GetPool())
	if err != nil {
		return nil, err
	}
	r, count, err := parsePick(req)
	if err != nil {
		return nil, err
	}
	choices := e.pick(&r, count)
	if len(choices) == 0 {
		return nil, e.nobody(&r)
	}
	return &routerv1.PickResponse{Pool: string(e.pool), Choices: choices, Freshness: e.freshness(time.Now())}, nil
}

// pick chooses, and counts the first choice as handed out: the others are
// alternatives to it.
func (e *edition) pick(r *view.Request, count int) []*routerv1.Choice {
	r.Loads = e.loads
	switch r.Policy {
	case view.RoundRobin:
		r.Turn = e.turns.Add(1) - 1
	case view.P2C, view.Random:
		r.Random = rand.Uint64() //nolint:gosec // load balancing is no secret
	}
	var chosen []view.Choice
	if count == 1 {
		if c, ok := e.view.Table().Pick(r); ok {
			chosen = []view.Choice{c}
		}
	} else {
		chosen = e.view.Table().PickN(nil, r, count)
	}
	if len(chosen) == 0 {
		e.metrics.pickedNone(r.Policy)
		return nil
	}
	e.loads.counts[chosen[0].Index].Add(1)
	e.metrics.picked(r.Policy, chosen[0].State)
	out := make([]*routerv1.Choice, len(chosen))
	for i, c := range chosen {
		out[i] = toChoice(c)
	}
	return out
}

// nobody says why there is no choice.
func (e *edition) nobody(r *view.Request) error {
	what := "has no server that may get work"
	switch {
	case len(e.view.Table().Entries()) == 0:
	case len(r.Exclude) > 0:
		what = "has no server that may get work and is not excluded"
	case r.Endpoint != "":
		what = fmt.Sprintf("has no server that may get work and has an endpoint %q", r.Endpoint)
	}
	return fmt.Errorf("%w: pool %q %s", member.ErrUnavailable, e.pool, what)
}

func parsePick(req *routerv1.PickRequest) (r view.Request, count int, err error) {
	switch req.GetPolicy() {
	case routerv1.Policy_POLICY_UNSPECIFIED, routerv1.Policy_POLICY_P2C:
		r.Policy = view.P2C
	case routerv1.Policy_POLICY_ROUND_ROBIN:
		r.Policy = view.RoundRobin
	case routerv1.Policy_POLICY_RANDOM:
		r.Policy = view.Random
	default:
		return r, 0, member.Invalid("policy", "%d is not known", req.GetPolicy())
	}
	if req.GetCount() > maxPickCount {
		return r, 0, member.Invalid("count", "%d is more than %d", req.GetCount(), maxPickCount)
	}
	if n := len(req.GetExclude()); n > maxPickExclude {
		return r, 0, member.Invalid("exclude", "has %d entries; at most %d are allowed", n, maxPickExclude)
	}
	for _, s := range req.GetExclude() {
		id, err := member.ParseID("exclude", s)
		if err != nil {
			return r, 0, err
		}
		r.Exclude = append(r.Exclude, id)
	}
	r.Endpoint = req.GetEndpoint()
	return r, max(1, int(req.GetCount())), checkEndpointName(r.Endpoint)
}

// checkEndpointName takes what a server may name an endpoint: the grammar of
// pools.
func checkEndpointName(name string) error {
	if name == "" {
		return nil
	}
	_, err := member.ParsePool("endpoint", name)
	return err
}

// closedError is what clients get while the router shuts down.
func closedError() error {
	return fmt.Errorf("%w: the router is shutting down", member.ErrUnavailable)
}
