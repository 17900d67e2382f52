package server

import (
	"fmt"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/rpc"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// maxPools bounds the pools of one coordinator.
const maxPools = 1000

// subscribing is a SubscribeHello that was parsed.
type subscribing struct {
	router  member.ID
	version string
	run     string
	storeID string
	resume  map[member.Pool]point
	// pools is nil for all.
	pools map[member.Pool]bool
}

func parseSubscribe(in *pb.SubscribeHello, from peerInfo) (subscribing, error) {
	var s subscribing
	id, err := member.ParseID("hello.router_id", in.GetRouterId())
	if err != nil {
		return s, err
	}
	if from.secured && (from.identity.Role != rpc.RoleRouter || from.identity.Name != string(id)) {
		return s, fmt.Errorf("%w: the certificate is for %q and may not speak for router %s",
			member.ErrPermission, from.identity.String(), id)
	}
	s.router = id
	if s.version, err = parseText("hello.version", in.GetVersion(), maxTokenBytes); err != nil {
		return s, err
	}
	if s.run, err = parseText("hello.run", in.GetRun(), maxTokenBytes); err != nil {
		return s, err
	}
	if s.storeID, err = parseText("hello.store_id", in.GetStoreId(), maxTokenBytes); err != nil {
		return s, err
	}
	resume, err := parsePositions("hello.resume", in.GetResume())
	if err != nil {
		return s, err
	}
	s.resume = make(map[member.Pool]point, len(resume))
	for _, p := range resume {
		s.resume[p.pool] = p.point
	}
	s.pools, err = parsePoolNames("hello.pools", in.GetPools())
	return s, err
}

func parsePoolNames(field string, names []string) (map[member.Pool]bool, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if len(names) > maxPools {
		return nil, member.Invalid(field, "has %d entries; at most %d are allowed", len(names), maxPools)
	}
	pools := make(map[member.Pool]bool, len(names))
	for _, n := range names {
		name, err := member.ParsePool(field, n)
		if err != nil {
			return nil, err
		}
		pools[name] = true
	}
	return pools, nil
}

// parsePositions parses positions, of which a pool may have one.
func parsePositions(field string, in []*pb.Position) ([]placed, error) {
	if len(in) > maxPools {
		return nil, member.Invalid(field, "has %d entries; at most %d are allowed", len(in), maxPools)
	}
	seen := make(map[member.Pool]bool, len(in))
	positions := make([]placed, 0, len(in))
	for _, p := range in {
		name, err := member.ParsePool(field+".pool", p.GetPool())
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, member.Invalid(field+".pool", "%q is there twice", name)
		}
		seen[name] = true
		changeID, err := parseText(field+".change_id", p.GetChangeId(), maxTokenBytes)
		if err != nil {
			return nil, err
		}
		positions = append(positions, placed{name, point{member.Position{
			Epoch: member.Epoch(p.GetEpoch()), Revision: member.Revision(p.GetRevision()),
		}, changeID}})
	}
	return positions, nil
}

func parseAck(in *pb.Ack) (ack, error) {
	applied, err := parsePositions("ack.applied", in.GetApplied())
	if err != nil {
		return ack{}, err
	}
	out := ack{applied: applied}
	for _, s := range in.GetHeld() {
		name, err := member.ParsePool("ack.held.pool", s.GetPool())
		if err != nil {
			return ack{}, err
		}
		id, err := member.ParseID("ack.held.server_id", s.GetServerId())
		if err != nil {
			return ack{}, err
		}
		if s.GetIncarnation() == 0 {
			return ack{}, member.Invalid("ack.held.incarnation", "must be set")
		}
		out.held = append(out.held, heldServer{name, id})
	}
	return out, nil
}
