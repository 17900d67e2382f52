package server

import (
	"context"
	"slices"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// GetBrake tells where a pool stands between its brake and its floor.
func (a *adminService) GetBrake(ctx context.Context, req *pb.GetBrakeRequest) (*pb.GetBrakeResponse, error) {
	h, err := a.pools.pick(req.GetPool())
	if err != nil {
		return nil, err
	}
	var status pool.BrakeStatus
	var revision member.Revision
	err = h.view(ctx, func(m *pool.Machine) { status, revision = m.Brake(), m.Position().Revision })
	if err != nil {
		return nil, err
	}
	res := toBrake(status)
	res.Revision = uint64(revision)
	for _, id := range a.routers.keptOf(h.pool) {
		res.KeptByRouters = append(res.KeptByRouters, string(id))
	}
	return res, nil
}

func toBrake(s pool.BrakeStatus) *pb.GetBrakeResponse {
	res := &pb.GetBrakeResponse{Safety: toSafety(&s.Safety), Released: toReleased(s.Released)}
	for _, z := range s.Zones {
		res.Zones = append(res.Zones, &pb.BrakeZone{
			Zone: z.Zone, Members: toCount(z.Size), Suspects: toCount(z.Suspects), Limit: toCount(z.Limit),
		})
	}
	for _, stop := range s.Stops {
		res.Stops = append(res.Stops, &pb.BrakeStop{Rule: stop.Rule, Text: stop.Reason, Since: toTime(stop.Since)})
	}
	for _, held := range s.Held {
		res.Held = append(res.Held, &pb.HeldRemoval{
			ServerId: string(held.ID), Zone: held.Zone, Rack: held.Rack, SuspectSince: toTime(held.Since),
		})
	}
	return res
}

func toReleased(all []pool.ReleasedRemoval) []*pb.ReleasedRemoval {
	var out []*pb.ReleasedRemoval
	for _, r := range all {
		out = append(out, &pb.ReleasedRemoval{ServerId: string(r.ID), Until: toTime(r.Until)})
	}
	return out
}

// ReleaseBrake confirms that servers whose removal is held are gone.
func (a *adminService) ReleaseBrake(ctx context.Context, req *pb.ReleaseBrakeRequest) (*pb.ReleaseBrakeResponse, error) {
	o, err := a.order(ctx, req, req.ExpectedRevision)
	if err != nil {
		return nil, err
	}
	ids, err := parseIDs("server_ids", req.GetServerIds())
	if err != nil {
		return nil, err
	}
	kept := a.routers.keptOf(o.host.pool)
	res := &pb.ReleaseBrakeResponse{}
	command := func(c pool.Call) pool.Input { return pool.ReleaseBrake{Call: c, IDs: ids, Kept: kept} }
	err = o.give(ctx, command, func(m *pool.Machine, r pool.Reply) {
		res.Revision = uint64(r.Revision)
		status := m.Brake()
		if o.call.ValidateOnly {
			status.Released = wouldRelease(status.Held, ids)
		}
		res.Released = toReleased(status.Released)
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func wouldRelease(held []pool.HeldRemoval, ids []member.ID) []pool.ReleasedRemoval {
	var out []pool.ReleasedRemoval
	for _, s := range held {
		if len(ids) == 0 || slices.Contains(ids, s.ID) {
			out = append(out, pool.ReleasedRemoval{ID: s.ID})
		}
	}
	return out
}

// maxNamed bounds the servers that one request may name.
const maxNamed = 10_000

func parseIDs(field string, in []string) ([]member.ID, error) {
	if len(in) > maxNamed {
		return nil, member.Invalid(field, "has %d entries; at most %d are allowed", len(in), maxNamed)
	}
	var ids []member.ID
	for _, text := range in {
		id, err := member.ParseID(field, text)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
