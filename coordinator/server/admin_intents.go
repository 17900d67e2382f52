package server

import (
	"context"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// SetIntent sets the operator's wish for an id.
func (a *adminService) SetIntent(ctx context.Context, req *pb.SetIntentRequest) (*pb.SetIntentResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	wanted, err := parseIntent(req)
	if err != nil {
		return nil, err
	}
	res := &pb.SetIntentResponse{}
	command := func(c pool.Call) pool.Input {
		wanted.Call = c
		return wanted
	}
	err = o.give(ctx, command, func(m *pool.Machine, r pool.Reply) {
		res.Revision = uint64(r.Revision)
		intent := member.Intent{ID: wanted.ID, Wish: member.WishActive}
		for _, i := range m.Intents() {
			if i.ID == wanted.ID {
				intent = i
			}
		}
		if o.call.ValidateOnly {
			intent = member.Intent{ID: wanted.ID, Wish: wanted.Wish, Reason: o.call.Reason, Actor: o.call.Actor}
		}
		res.Intent = toIntent(o.host.pool, intent)
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// ListIntents lists the operators' wishes by id.
func (a *adminService) ListIntents(ctx context.Context, req *pb.ListIntentsRequest) (*pb.ListIntentsResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	p, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	var all []member.Intent
	var revision member.Revision
	err = h.view(ctx, func(m *pool.Machine) { all, revision = m.Intents(), m.Position().Revision })
	if err != nil {
		return nil, err
	}
	intents, next := cut(all, p, func(i member.Intent) string { return string(i.ID) })
	res := &pb.ListIntentsResponse{NextPageToken: next, Revision: uint64(revision)}
	for _, i := range intents {
		res.Intents = append(res.Intents, toIntent(h.pool, i))
	}
	return res, nil
}
