package server

import (
	"context"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// ReplaceServer puts a member into the place of another.
func (a *adminService) ReplaceServer(ctx context.Context, req *pb.ReplaceServerRequest) (*pb.ReplaceServerResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	wanted, err := parseReplace(req)
	if err != nil {
		return nil, err
	}
	res := &pb.ReplaceServerResponse{}
	command := func(c pool.Call) pool.Input {
		wanted.Call = c
		return wanted
	}
	err = o.give(ctx, command, func(m *pool.Machine, r pool.Reply) {
		res.Revision = uint64(r.Revision)
		if status, ok := m.Server(wanted.By); ok {
			res.Server = toServer(o.host.pool, status)
		}
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func parseReplace(req *pb.ReplaceServerRequest) (pool.ReplaceServer, error) {
	wanted := pool.ReplaceServer{Incarnation: member.Incarnation(req.GetIncarnation()), Force: req.GetForce()}
	var err error
	if wanted.ID, err = member.ParseID("server_id", req.GetServerId()); err != nil {
		return wanted, err
	}
	wanted.By, err = member.ParseID("replacement_id", req.GetReplacementId())
	return wanted, err
}
