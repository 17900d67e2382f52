package server

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	"github.com/buddyring/buddyring/router/view"
)

// parseSnapshot turns a snapshot of a store into the view's terms.
func parseSnapshot(storeID string, in *pb.Snapshot) (member.Pool, view.Snapshot, error) {
	pool, position, err := parsePosition(in.GetPosition())
	if err != nil {
		return "", view.Snapshot{}, err
	}
	servers, err := parseServers(in.GetServers())
	if err != nil {
		return "", view.Snapshot{}, fmt.Errorf("pool %q: %w", pool, err)
	}
	return pool, view.Snapshot{
		StoreID: storeID, Position: position, ChangeID: in.GetPosition().GetChangeId(), Servers: servers,
	}, nil
}

func parseDelta(in *pb.Delta) (member.Pool, view.Delta, error) {
	pool, position, err := parsePosition(in.GetPosition())
	if err != nil {
		return "", view.Delta{}, err
	}
	put, err := parseServers(in.GetPut())
	if err != nil {
		return "", view.Delta{}, fmt.Errorf("pool %q: %w", pool, err)
	}
	d := view.Delta{
		From: member.Revision(in.GetFromRevision()), To: position, ChangeID: in.GetPosition().GetChangeId(), Put: put,
		MassChangeConfirmed: in.GetMassChangeConfirmed(),
	}
	for _, r := range in.GetRemoved() {
		d.Removed = append(d.Removed, member.Removal{
			ID: member.ID(r.GetServerId()), Incarnation: member.Incarnation(r.GetIncarnation()), Cause: parseCause(r.GetCause()),
		})
	}
	return pool, d, nil
}

func parsePosition(in *pb.Position) (member.Pool, member.Position, error) {
	pool, err := member.ParsePool("position.pool", in.GetPool())
	if err != nil {
		return "", member.Position{}, err
	}
	return pool, member.Position{Epoch: member.Epoch(in.GetEpoch()), Revision: member.Revision(in.GetRevision())}, nil
}

func parseServers(in []*pb.Server) ([]*view.Server, error) {
	out := make([]*view.Server, len(in))
	for i, s := range in {
		server := parseServer(s)
		if err := checkServer(server); err != nil {
			return nil, fmt.Errorf("server %q: %w", s.GetServerId(), err)
		}
		out[i] = server
	}
	return out, nil
}

func parseServer(in *pb.Server) *view.Server {
	spec := in.GetSpec()
	s := &view.Server{
		ID: member.ID(in.GetServerId()), Incarnation: member.Incarnation(in.GetIncarnation()),
		Phase: parsePhase(in.GetPhase()), Zone: spec.GetZone(), Weight: member.DefaultWeight, Labels: spec.GetLabels(),
	}
	if spec != nil && spec.Weight != nil {
		s.Weight = spec.GetWeight()
	}
	for _, e := range spec.GetEndpoints() {
		s.Endpoints = append(s.Endpoints, member.Endpoint{Name: e.GetName(), Address: e.GetAddress(), Protocol: e.GetProtocol()})
	}
	return s
}

// checkServer refuses what would break the picks or send clients nowhere. What
// only matters to people the coordinator has checked.
func checkServer(s *view.Server) error {
	if _, err := member.ParseID("server_id", string(s.ID)); err != nil {
		return err
	}
	if s.Weight > member.MaxWeight {
		return member.Invalid("weight", "%d is more than %d", s.Weight, member.MaxWeight)
	}
	if len(s.Endpoints) > member.MaxEndpoints {
		return member.Invalid("endpoints", "has %d entries; at most %d are allowed", len(s.Endpoints), member.MaxEndpoints)
	}
	names := map[string]bool{}
	for _, e := range s.Endpoints {
		if names[e.Name] {
			return member.Invalid("endpoints.name", "%q is there twice", e.Name)
		}
		names[e.Name] = true
		if err := member.CheckHostPort("endpoints.address", e.Address); err != nil {
			return err
		}
	}
	return nil
}

// parsePhase maps phases of a newer coordinator to one that gets no work.
func parsePhase(p pb.Phase) member.Phase {
	switch p {
	case pb.Phase_PHASE_JOINING:
		return member.PhaseJoining
	case pb.Phase_PHASE_ACTIVE:
		return member.PhaseActive
	case pb.Phase_PHASE_SERVICE_DOWN:
		return member.PhaseServiceDown
	case pb.Phase_PHASE_DRAINING:
		return member.PhaseDraining
	case pb.Phase_PHASE_HELD:
		return member.PhaseHeld
	case pb.Phase_PHASE_UNSPECIFIED:
	}
	return member.PhaseUnspecified
}

// parseCause maps causes of a newer coordinator to a verdict: on those the
// router is careful.
func parseCause(c pb.Cause) member.Cause {
	switch c {
	case pb.Cause_CAUSE_SHUTDOWN:
		return member.CauseShutdown
	case pb.Cause_CAUSE_OPERATOR:
		return member.CauseOperator
	case pb.Cause_CAUSE_LOSSY:
		return member.CauseLossy
	case pb.Cause_CAUSE_UNREACHABLE:
		return member.CauseUnreachable
	case pb.Cause_CAUSE_CRASHED, pb.Cause_CAUSE_UNSPECIFIED:
	}
	return member.CauseCrashed
}

// parseMarks returns the marks by pool, in order.
func parseMarks(in *pb.SoftMarks) (map[member.Pool][]member.Mark, error) {
	out := map[member.Pool][]member.Mark{}
	for _, m := range in.GetMarks() {
		pool, err := member.ParsePool("marks.pool", m.GetPool())
		if err != nil {
			return nil, err
		}
		out[pool] = append(out[pool], member.Mark{
			ID: member.ID(m.GetServerId()), Incarnation: member.Incarnation(m.GetIncarnation()), Suspect: m.GetSuspect(),
			ServiceDown: m.GetServiceDown(),
			Epoch:       member.Epoch(in.GetEpoch()), Seq: m.GetSoftSeq(), TTL: max(0, m.GetTtl().AsDuration()),
		})
	}
	return out, nil
}

// Bounds of the interval that a coordinator may announce for bookmarks.
const (
	minInterval = 100 * time.Millisecond
	maxInterval = 30 * time.Second
)

// parseInterval is the default where none is announced.
func parseInterval(in *pb.StreamStart) time.Duration {
	if in.GetBookmarkInterval() == nil {
		return defaultInterval
	}
	return min(maxInterval, max(minInterval, in.GetBookmarkInterval().AsDuration()))
}
