package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// Limits of a pick.
const (
	maxPickCount   = 100
	maxPickExclude = 100
	maxKeyBytes    = 1024
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

// serviceDesc is that of RouterService, with unary handlers that answer with what
// is encoded already.
func serviceDesc() *grpc.ServiceDesc {
	desc := routerv1.RouterService_ServiceDesc
	desc.Methods = []grpc.MethodDesc{
		method("Resolve", (*service).resolve),
		method("Pick", (*service).pick),
	}
	return &desc
}

// method returns a unary method as protoc-gen-go-grpc would.
func method[Req any](name string, handle func(*service, *Req) (*rpc.Encoded, error)) grpc.MethodDesc {
	full := "/" + routerv1.RouterService_ServiceDesc.ServiceName + "/" + name
	return grpc.MethodDesc{MethodName: name, Handler: func(
		srv any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor,
	) (any, error) {
		req := new(Req)
		if err := decode(req); err != nil {
			return nil, err
		}
		s := srv.(*service) //nolint:forcetypeassert // registered with this description
		return around(ctx, req, &grpc.UnaryServerInfo{Server: s, FullMethod: full}, func(context.Context, any) (any, error) {
			return handle(s, req)
		})
	}}
}

// resolve returns all servers that may get work.
func (s *service) resolve(req *routerv1.ResolveRequest) (*rpc.Encoded, error) {
	e, err := s.pools.find(req.GetPool())
	if err != nil {
		return nil, err
	}
	if err := checkEndpointName(req.GetEndpoint()); err != nil {
		return nil, err
	}
	if err := checkZone(req.GetZone()); err != nil {
		return nil, err
	}
	return e.resolve(question{req.GetEndpoint(), req.GetZone()}, time.Now())
}

// pick chooses servers for one piece of work.
func (s *service) pick(req *routerv1.PickRequest) (*rpc.Encoded, error) {
	e, err := s.pools.find(req.GetPool())
	if err != nil {
		return nil, err
	}
	r, count, err := parsePick(req)
	if err != nil {
		return nil, err
	}
	var room [1]view.Choice
	chosen := e.pick(room[:0], &r, count)
	if len(chosen) == 0 {
		return nil, e.nobody(&r)
	}
	return rpc.NewEncoded(e.encodeChoices(chosen, time.Now())), nil
}

// pick chooses, and counts the first choice as handed out: the others are
// alternatives to it. The choices are appended to dst.
func (e *edition) pick(dst []view.Choice, r *view.Request, count int) []view.Choice {
	r.Loads = e.loads
	switch r.Policy {
	case view.RoundRobin:
		r.Turn = e.turns.Add(1) - 1
	case view.Maglev:
		r.TotalLoad = e.loads.Total()
	case view.P2C, view.Random:
		r.Random = rand.Uint64() //nolint:gosec // load balancing is no secret
	}
	if count > 1 {
		dst = e.table.PickN(dst, r, count)
	} else if c, ok := e.table.Pick(r); ok {
		dst = append(dst, c)
	}
	if len(dst) == 0 {
		e.metrics.pickedNone(r.Policy)
		return nil
	}
	e.loads.add(dst[0].Index())
	e.metrics.picked(r.Policy, dst[0].State())
	return dst
}

// encodeChoices encodes the answer to a Pick.
func (e *edition) encodeChoices(chosen []view.Choice, now time.Time) []byte {
	const room = 32 // for all but the strings
	size := len(e.pool) + len(e.head) + freshnessRoom
	for i := range chosen {
		size += len(chosen[i].Server().ID) + len(chosen[i].Address()) + room
	}
	b := appendString(make([]byte, 0, size), 1, string(e.pool))
	for i := range chosen {
		b = appendMessage(b, 2, func(b []byte) []byte { return appendChoice(b, chosen[i]) })
	}
	return e.appendFreshness(b, 3, now)
}

// nobody says why there is no choice.
func (e *edition) nobody(r *view.Request) error {
	what := "has no server that may get work"
	switch {
	case len(e.table.Entries()) == 0:
	case len(r.Exclude) > 0:
		what = "has no server that may get work and is not excluded"
	case r.Endpoint != "":
		what = fmt.Sprintf("has no server that may get work and has an endpoint %q", r.Endpoint)
	}
	return fmt.Errorf("%w: pool %q %s", member.ErrUnavailable, e.pool, what)
}

func parsePick(req *routerv1.PickRequest) (r view.Request, count int, err error) {
	if r.Policy, err = parsePolicy(req); err != nil {
		return r, 0, err
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
	r.Endpoint, r.Zone, r.Key = req.GetEndpoint(), req.GetZone(), req.GetKey()
	if err := checkZone(r.Zone); err != nil {
		return r, 0, err
	}
	return r, max(1, int(req.GetCount())), checkEndpointName(r.Endpoint)
}

// parsePolicy says how to choose, which depends on whether there is a key.
func parsePolicy(req *routerv1.PickRequest) (view.Policy, error) {
	if n := len(req.GetKey()); n > maxKeyBytes {
		return 0, member.Invalid("key", "has %d bytes; at most %d are allowed", n, maxKeyBytes)
	}
	policy := view.P2C
	switch req.GetPolicy() {
	case routerv1.Policy_POLICY_UNSPECIFIED:
		if req.GetKey() != "" {
			policy = view.Maglev
		}
	case routerv1.Policy_POLICY_P2C:
	case routerv1.Policy_POLICY_ROUND_ROBIN:
		policy = view.RoundRobin
	case routerv1.Policy_POLICY_RANDOM:
		policy = view.Random
	case routerv1.Policy_POLICY_MAGLEV:
		policy = view.Maglev
	default:
		return 0, member.Invalid("policy", "%d is not known", req.GetPolicy())
	}
	switch keyed := req.GetKey() != ""; {
	case policy == view.Maglev && !keyed:
		return 0, member.Invalid("key", "is needed to choose by maglev")
	case policy != view.Maglev && keyed:
		return 0, member.Invalid("key", "is for maglev, not for %s", policy)
	}
	return policy, nil
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

// checkZone takes what a server may call its zone.
func checkZone(name string) error {
	if name == "" {
		return nil
	}
	_, err := member.ParseID("zone", name)
	return err
}

// closedError is what clients get while the router shuts down.
func closedError() error {
	return fmt.Errorf("%w: the router is shutting down", member.ErrUnavailable)
}
