package server

import (
	"context"
	"fmt"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// DeletePool ends a pool.
func (a *adminService) DeletePool(ctx context.Context, req *pb.DeletePoolRequest) (*pb.DeletePoolResponse, error) {
	name, err := member.ParsePool("pool", req.GetPool())
	if err != nil {
		return nil, err
	}
	call, err := parseCall(req, req.ExpectedRevision, peerOf(ctx))
	if err != nil {
		return nil, err
	}
	if d, done, err := a.pools.deletedBy(name, call); done || err != nil {
		return &pb.DeletePoolResponse{Revision: uint64(d.Position.Revision)}, err
	}
	if name == member.DefaultPool {
		return nil, &member.RefusedError{Rule: "default_pool", Reason: fmt.Sprintf("pool %s always exists", name)}
	}
	if a.pools.whyAside(name) != nil {
		revision, err := a.term.deleteAside(ctx, removal{name, call, req.GetForce()})
		if err != nil {
			return nil, err
		}
		return &pb.DeletePoolResponse{Revision: uint64(revision)}, nil
	}
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	res := &pb.DeletePoolResponse{}
	command := func(c pool.Call) pool.Input { return pool.DeletePool{Call: c, Force: req.GetForce()} }
	err = o.give(ctx, command, func(m *pool.Machine, r pool.Reply) {
		servers := toCount(m.Status().Members)
		res.Revision, res.Servers = uint64(r.Revision), &servers
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}
