package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// ListServers lists the members of a pool by id.
func (a *adminService) ListServers(ctx context.Context, req *pb.ListServersRequest) (*pb.ListServersResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	match, err := parseServerFilter(req)
	if err != nil {
		return nil, err
	}
	p, err := parsePage(req)
	if err != nil {
		return nil, err
	}
	var all []pool.ServerStatus
	var revision member.Revision
	err = h.view(ctx, func(m *pool.Machine) { all, revision = m.Servers(), m.Position().Revision })
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s pool.ServerStatus) bool { return !match(s) })
	servers, next := cut(all, p, func(s pool.ServerStatus) string { return string(s.Server.ID) })
	res := &pb.ListServersResponse{NextPageToken: next, Revision: uint64(revision)}
	for _, s := range servers {
		res.Servers = append(res.Servers, toServer(h.pool, s))
	}
	return res, nil
}

func parseServerFilter(req *pb.ListServersRequest) (func(pool.ServerStatus) bool, error) {
	phases, err := parsePhases("phases", req.GetPhases())
	if err != nil {
		return nil, err
	}
	zone, labels, suspect := req.GetZone(), req.GetLabels(), req.Suspect
	return func(s pool.ServerStatus) bool {
		spec := s.Server.Spec
		for k, v := range labels {
			if has, ok := spec.Labels[k]; !ok || has != v {
				return false
			}
		}
		return (len(phases) == 0 || slices.Contains(phases, s.Server.Phase)) &&
			(zone == "" || spec.Zone == zone) && (suspect == nil || *suspect == s.Suspect)
	}, nil
}

// GetServer returns one member.
func (a *adminService) GetServer(ctx context.Context, req *pb.GetServerRequest) (*pb.GetServerResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	id, err := member.ParseID("server_id", req.GetServerId())
	if err != nil {
		return nil, err
	}
	var status pool.ServerStatus
	var found bool
	var revision member.Revision
	err = h.view(ctx, func(m *pool.Machine) {
		status, found = m.Server(id)
		revision = m.Position().Revision
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fmt.Errorf("find server %s in pool %s: %w", id, h.pool, member.ErrNotFound)
	}
	return &pb.GetServerResponse{Server: toServer(h.pool, status), Revision: uint64(revision)}, nil
}

// UpdateServer changes what a member says about itself.
func (a *adminService) UpdateServer(ctx context.Context, req *pb.UpdateServerRequest) (*pb.UpdateServerResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	id, err := member.ParseID("server_id", req.GetServerId())
	if err != nil {
		return nil, err
	}
	edit, err := parseSpecEdit(req.GetSpec(), req.GetUpdateMask(), a.allowLocal)
	if err != nil {
		return nil, err
	}
	res := &pb.UpdateServerResponse{}
	command := func(c pool.Call) pool.Input { return pool.UpdateServer{Call: c, ID: id, Edit: edit} }
	err = o.give(ctx, command, func(m *pool.Machine, r pool.Reply) {
		res.Revision = uint64(r.Revision)
		// A repeated request may find that the member has left since.
		if status, ok := m.Server(id); ok {
			if o.call.ValidateOnly {
				status.Server.Spec = preview(edit, status.Server.Spec)
			}
			res.Server = toServer(o.host.pool, status)
		}
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// RemoveServer takes a member out.
func (a *adminService) RemoveServer(ctx context.Context, req *pb.RemoveServerRequest) (*pb.RemoveServerResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	id, err := member.ParseID("server_id", req.GetServerId())
	if err != nil {
		return nil, err
	}
	res := &pb.RemoveServerResponse{}
	command := func(c pool.Call) pool.Input {
		return pool.RemoveServer{Call: c, ID: id, Incarnation: member.Incarnation(req.GetIncarnation())}
	}
	err = o.give(ctx, command, func(_ *pool.Machine, r pool.Reply) { res.Revision = uint64(r.Revision) })
	if err != nil {
		return nil, err
	}
	return res, nil
}
