package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

const (
	// drainTime is how long routers may take to confirm a drain unless the caller
	// says so; drainMost is the longest that a caller may.
	drainTime = 10 * time.Second
	drainMost = 10 * time.Minute
	// drainMemory is how long a router that went without a word is waited for: its
	// clients may still get its last list.
	drainMemory = 10 * time.Minute
	// drainGoodbye is how long one that said goodbye is waited for while another is
	// connected. Those of its clients that follow it alone keep its last list until
	// it is back: a restart takes less.
	drainGoodbye = time.Minute
)

// drainedAt is what a router is to have confirmed: that it has a revision of a pool,
// and does not keep a server as a last resort.
type drainedAt struct {
	pool     member.Pool
	id       member.ID
	revision member.Revision
}

// awaited is that, and until when.
type awaited struct {
	drainedAt
	until time.Time
}

// await returns when every router has confirmed, or those that have not when the
// time is over. It fails when stop or ctx ends before.
func (r *routers) await(ctx context.Context, w awaited, stop *ending) ([]pool.Lag, error) {
	limit := time.NewTimer(time.Until(w.until))
	defer limit.Stop()
	for {
		news := r.heard.next()
		lags := r.lagging(w.drainedAt, time.Now())
		if len(lags) == 0 {
			return nil, nil
		}
		select {
		case <-news:
		case <-limit.C:
			return r.lagging(w.drainedAt, time.Now()), nil
		case <-stop.done():
			return nil, stop.reason()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// lagging lists the routers, by id, whose list may still be in use and that have
// not confirmed: those that are connected, and those that went not long ago.
func (r *routers) lagging(want drainedAt, now time.Time) []pool.Lag {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lags []pool.Lag
	memory := drainMemory
	for _, k := range r.by {
		if k.streams > 0 && wants(k.pools, want.pool) {
			memory = drainGoodbye
		}
	}
	for id, k := range r.by {
		applied := k.applied[want.pool].Revision
		done := applied >= want.revision && !k.keeps(want.pool, want.id)
		if !done && wants(k.pools, want.pool) && k.mayBeHeard(now, memory) {
			lags = append(lags, pool.Lag{Router: id, Seen: k.lastSeen, Connected: k.streams > 0, Applied: applied})
		}
	}
	slices.SortFunc(lags, func(a, b pool.Lag) int { return cmp.Compare(a.Router, b.Router) })
	return lags
}

// mayBeHeard reports whether the router's list may still be in use: it is
// connected, said goodbye within the time given, or went without a word within
// drainMemory. The row of one that has not been seen by this leader may be behind
// by routerRefresh.
func (k *router) mayBeHeard(now time.Time, goodbye time.Duration) bool {
	switch {
	case k.streams > 0:
		return true
	case k.goodbye:
		return now.Sub(k.goneAt) < goodbye
	}
	return now.Sub(k.goneAt) < drainMemory && now.Sub(k.lastSeen) < drainMemory+routerRefresh
}

// awaitRouters tells the machine when the routers have confirmed that a member
// that leaves gets no new work.
func (h *host) awaitRouters(ctx context.Context, e pool.AwaitRouters) {
	lags, err := h.routers.await(ctx, awaited{drainedAt{h.pool, e.ID, e.Revision}, e.Until}, h.over)
	if err != nil {
		return // the machine is gone, too
	}
	h.metrics.drained("leave", lags)
	h.tell(pool.Drained{ID: e.ID, Incarnation: e.Incarnation, Revision: e.Revision, Missing: lags})
}

// DrainServer sets the wish that a member gets no new work, and waits for the
// routers, as long as there is the pool.
func (a *adminService) DrainServer(ctx context.Context, req *pb.DrainServerRequest) (*pb.DrainServerResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	wanted, timeout, err := parseDrain(req)
	if err != nil {
		return nil, err
	}
	var revision member.Revision
	command := func(c pool.Call) pool.Input {
		wanted.Call = c
		return wanted
	}
	if err := o.give(ctx, command, func(_ *pool.Machine, r pool.Reply) { revision = r.Revision }); err != nil {
		return nil, err
	}
	h, res := o.host, &pb.DrainServerResponse{Revision: uint64(revision)}
	if o.call.ValidateOnly {
		lags := slices.DeleteFunc(a.routers.lagging(drainedAt{h.pool, wanted.ID, revision + 1}, time.Now()), func(l pool.Lag) bool { return l.Connected })
		res.Missing = toLags(lags)
	} else {
		lags, err := a.routers.await(ctx, awaited{drainedAt{h.pool, wanted.ID, revision}, time.Now().Add(timeout)}, h.over)
		if errors.Is(err, member.ErrNotFound) {
			return nil, fmt.Errorf("drain %s: %w", wanted.ID, err)
		}
		if err != nil {
			return nil, fmt.Errorf("drain %s: it is to drain since revision %d, and who has confirmed that is not known; "+
				"repeat the request with the same request_id: %w", wanted.ID, revision, err)
		}
		a.members.metrics.drained("operator", lags)
		res.State, res.Missing = toDrainState(lags), toLags(lags)
	}
	res.Server, err = serverOf(ctx, h, wanted.ID)
	return res, err
}

// serverOf returns a member, nil for a stranger.
func serverOf(ctx context.Context, h *host, id member.ID) (server *pb.Server, err error) {
	err = h.view(ctx, func(m *pool.Machine) {
		if status, ok := m.Server(id); ok {
			server = toServer(h.pool, status)
		}
	})
	if err != nil {
		return nil, err
	}
	return server, nil
}

// ResumeServer ends the wish of DrainServer.
func (a *adminService) ResumeServer(ctx context.Context, req *pb.ResumeServerRequest) (*pb.ResumeServerResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	id, err := member.ParseID("server_id", req.GetServerId())
	if err != nil {
		return nil, err
	}
	res := &pb.ResumeServerResponse{}
	command := func(c pool.Call) pool.Input { return pool.ResumeServer{Call: c, ID: id} }
	err = o.give(ctx, command, func(m *pool.Machine, r pool.Reply) {
		res.Revision = uint64(r.Revision)
		if status, ok := m.Server(id); ok {
			res.Server = toServer(o.host.pool, status)
		}
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// lagsOf lists the pools of which a router has not confirmed the newest revision.
// One that has said goodbye is behind of nothing.
func (a *adminService) lagsOf(r routerInfo) []*pb.RouterLag {
	if r.goodbye {
		return nil
	}
	var lags []*pb.RouterLag
	for _, h := range a.pools.list() {
		head := h.history.head().Revision
		i := slices.IndexFunc(r.applied, func(p placed) bool { return p.pool == h.pool })
		var applied member.Revision
		if i >= 0 {
			applied = r.applied[i].Revision
		}
		if applied >= head || !wants(r.pools, h.pool) {
			continue
		}
		lags = append(lags, &pb.RouterLag{
			Pool: string(h.pool), Revisions: uint64(head - applied), Since: toTime(h.history.committedAt(applied + 1)),
		})
	}
	return lags
}

func parseDrain(req *pb.DrainServerRequest) (pool.DrainServer, time.Duration, error) {
	id, err := member.ParseID("server_id", req.GetServerId())
	if err != nil {
		return pool.DrainServer{}, 0, err
	}
	timeout, err := parseDrainTime("timeout", req.GetTimeout())
	if req.GetTimeout() == nil {
		timeout = drainTime
	}
	return pool.DrainServer{ID: id, Incarnation: member.Incarnation(req.GetIncarnation()), Force: req.GetForce()}, timeout, err
}

func parseDrainTime(field string, in *durationpb.Duration) (time.Duration, error) {
	d, err := parseDuration(field, in)
	if err == nil && d > drainMost {
		return 0, member.Invalid(field, "%s is more than %s", d, drainMost)
	}
	return d, err
}

func toDrainState(lags []pool.Lag) pb.DrainState {
	if len(lags) > 0 {
		return pb.DrainState_DRAIN_STATE_PARTIAL
	}
	return pb.DrainState_DRAIN_STATE_SAFE
}

func toLags(lags []pool.Lag) []*pb.LaggingRouter {
	out := make([]*pb.LaggingRouter, len(lags))
	for i, l := range lags {
		out[i] = &pb.LaggingRouter{
			RouterId: string(l.Router), LastSeen: toTime(l.Seen), Connected: &l.Connected, AppliedRevision: uint64(l.Applied),
		}
	}
	return out
}
