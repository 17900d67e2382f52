package server

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// The enums of the contract have the numbers of the vocabulary.

func toPhase(p member.Phase) pb.Phase { return pb.Phase(p) }

func toCause(c member.Cause) pb.Cause { return pb.Cause(c) }

func toWish(w member.Wish) pb.Wish { return pb.Wish(w) }

func toMode(m member.Mode) pb.Mode { return pb.Mode(m) }

// toTime leaves the zero time unset.
func toTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// toOptionalDuration leaves zero unset.
func toOptionalDuration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func toAddresses(addrs []netip.Addr) []string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return texts
}

func toSpec(s member.Spec) *pb.ServerSpec {
	endpoints := make([]*pb.Endpoint, len(s.Endpoints))
	for i, e := range s.Endpoints {
		endpoints[i] = &pb.Endpoint{Name: e.Name, Address: e.Address, Protocol: e.Protocol}
	}
	weight := s.Weight // a pointer to the field would keep all of s
	return &pb.ServerSpec{
		ProbeAddresses: toAddresses(s.ProbeAddresses),
		Probe:          s.Probe.String(),
		Endpoints:      endpoints,
		Zone:           s.Zone,
		Rack:           s.Rack,
		Weight:         &weight,
		Labels:         s.Labels,
	}
}

// isSpec reports whether a message is toSpec of s.
func isSpec(m *pb.ServerSpec, s member.Spec) bool {
	return m.GetZone() == s.Zone && m.GetRack() == s.Rack && m.GetWeight() == s.Weight && m.GetProbe() == s.Probe.String() &&
		maps.Equal(m.GetLabels(), s.Labels) &&
		slices.EqualFunc(m.GetProbeAddresses(), s.ProbeAddresses, func(text string, a netip.Addr) bool { return text == a.String() }) &&
		slices.EqualFunc(m.GetEndpoints(), s.Endpoints, func(e *pb.Endpoint, o member.Endpoint) bool {
			return e.GetName() == o.Name && e.GetAddress() == o.Address && e.GetProtocol() == o.Protocol
		})
}

// toRow is a row of the table as routers see it: without soft state.
func toRow(name member.Pool, s member.Server, wish member.Wish) *pb.Server {
	return toRowWith(toSpec(s.Spec), name, s, wish)
}

// toRowWith is toRow with a spec that is made already.
func toRowWith(spec *pb.ServerSpec, name member.Pool, s member.Server, wish member.Wish) *pb.Server {
	if wish == member.WishUnspecified {
		wish = member.WishActive
	}
	return &pb.Server{
		ServerId:    string(s.ID),
		Pool:        string(name),
		Spec:        spec,
		Phase:       toPhase(s.Phase),
		Incarnation: uint64(s.Incarnation),
		FirstBuddy:  string(s.First),
		SecondBuddy: string(s.Second),
		JoinedAt:    toTime(s.JoinedAt),
		PhaseSince:  toTime(s.Since),
		HeldUntil:   toTime(s.HeldUntil),
		Intent:      toWish(wish),
	}
}

// toServer is a row with the soft state around it, as operators see it.
func toServer(name member.Pool, s pool.ServerStatus) *pb.Server {
	row := toRow(name, s.Server, s.Wish)
	row.Suspect, row.AgentConnected, row.WaitingFor, row.ServiceText = &s.Suspect, &s.Connected, s.WaitingFor, s.ServiceText
	return row
}

func toPool(name member.Pool, s pool.Status) *pb.Pool {
	return &pb.Pool{
		Pool:          string(name),
		Epoch:         uint64(s.Position.Epoch),
		Revision:      uint64(s.Position.Revision),
		Settings:      toSettings(s.Settings),
		ReferenceSize: toCount(s.ReferenceSize),
		Members:       toCount(s.Members),
		Active:        toCount(s.Active),
		Suspect:       toCount(s.Suspect),
		WarmingUp:     &s.WarmingUp,
		BrakeEngaged:  &s.Braked,
		ServiceDown:   toCount(s.ServiceDown),
	}
}

// toSafety leaves nil unset.
func toSafety(s *member.Safety) *pb.Safety {
	if s == nil {
		return nil
	}
	return &pb.Safety{
		Members:       toCount(s.Members),
		Suspects:      toCount(s.Suspects),
		BrakeLimit:    toCount(s.BrakeLimit),
		BrakeEngaged:  &s.Engaged,
		Lost:          toCount(s.Lost),
		FloorLimit:    toCount(s.FloorLimit),
		ReferenceSize: toCount(s.ReferenceSize),
	}
}

// toCount is for sizes and counts, which are never negative.
func toCount(n int) uint32 { return uint32(max(n, 0)) }

func toPosition(name member.Pool, p member.Position) *pb.Position {
	return &pb.Position{Pool: string(name), Epoch: uint64(p.Epoch), Revision: uint64(p.Revision)}
}

func (p point) toProto(name member.Pool) *pb.Position {
	out := toPosition(name, p.Position)
	out.ChangeId = p.changeID
	return out
}

func toIntent(name member.Pool, i member.Intent) *pb.Intent {
	return &pb.Intent{
		Pool:      string(name),
		ServerId:  string(i.ID),
		Wish:      toWish(i.Wish),
		Reason:    i.Reason,
		Actor:     i.Actor,
		SetAt:     toTime(i.SetAt),
		ExpiresAt: toTime(i.ExpiresAt),
	}
}

func toEvent(name member.Pool, e member.Event) *pb.Event {
	out := &pb.Event{
		Pool:        string(name),
		Revision:    uint64(e.Revision),
		Seq:         toCount(e.Seq),
		Epoch:       uint64(e.Epoch),
		At:          toTime(e.At),
		Kind:        string(e.Kind),
		ServerId:    string(e.ID),
		Incarnation: uint64(e.Incarnation),
		Cause:       toCause(e.Cause),
		Actor:       e.Actor,
		Text:        e.Text,
	}
	if e.Explanation != nil {
		out.Explanation = toExplanation(*e.Explanation, e.Revision)
	}
	return out
}

func toExplanation(x member.Explanation, revision member.Revision) *pb.Explanation {
	timeline := make([]*pb.Moment, len(x.Timeline))
	for i, m := range x.Timeline {
		timeline[i] = toMoment(m)
	}
	rows := make([]*pb.RowChange, len(x.Rows))
	for i, r := range x.Rows {
		rows[i] = &pb.RowChange{ServerId: string(r.ID), Before: toBuddies(r.Before), After: toBuddies(r.After)}
	}
	return &pb.Explanation{
		ServerId:    string(x.ID),
		Incarnation: uint64(x.Incarnation),
		Verdict:     x.Verdict,
		Rule:        x.Rule,
		Text:        x.Text,
		Started:     toTime(x.Started),
		Decided:     toTime(x.Decided),
		Timeline:    timeline,
		Rows:        rows,
		Revision:    uint64(revision),

		SafetyBefore: toSafety(x.Before),
		SafetyAfter:  toSafety(x.After),
	}
}

func toMoment(m member.Moment) *pb.Moment {
	return &pb.Moment{
		At:     durationpb.New(m.At),
		Kind:   m.Kind,
		Round:  m.Round,
		Who:    m.Who,
		Role:   m.Role,
		Result: m.Result,
		Sent:   toCount(m.Sent),
		Lost:   toCount(m.Lost),
		Rtt:    toOptionalDuration(m.RTT),
		Age:    toOptionalDuration(m.Age),
		Text:   m.Text,
	}
}

func toBuddies(b *member.Buddies) *pb.Buddies {
	if b == nil {
		return nil
	}
	return &pb.Buddies{FirstBuddy: string(b.First), SecondBuddy: string(b.Second)}
}

func toAlarm(a member.Alarm) *pb.Alarm {
	return &pb.Alarm{
		Name:    a.Name,
		Pool:    string(a.Pool),
		Subject: a.Subject,
		Since:   toTime(a.Since),
		Text:    a.Text,
		Runbook: runbook(a.Name),
	}
}

func toSubject(s pool.Subject) *pb.Subject {
	return &pb.Subject{
		ServerId:       string(s.ID),
		Incarnation:    uint64(s.Incarnation),
		ProbeAddresses: toAddresses(s.Addresses),
		Probe:          s.Probe.String(),
		Role:           toRole(s.Role),
		PhaseOffset:    durationpb.New(s.PhaseOffset),
	}
}

// toRole leaves the role of a witness unsaid: it watches for one question only.
func toRole(r pool.Role) pb.Role {
	switch r {
	case pool.RoleFirst:
		return pb.Role_ROLE_FIRST_BUDDY
	case pool.RoleSecond:
		return pb.Role_ROLE_SECOND_BUDDY
	case pool.RoleTemporary:
		return pb.Role_ROLE_TEMPORARY
	case pool.RoleWitness:
	}
	return pb.Role_ROLE_UNSPECIFIED
}

func toAssignment(a pool.Assignment) *pb.Assignment {
	subjects := make([]*pb.Subject, len(a.Subjects))
	for i, s := range a.Subjects {
		subjects[i] = toSubject(s)
	}
	return &pb.Assignment{
		Revision:      uint64(a.Revision),
		Seq:           a.Seq,
		Subjects:      subjects,
		ProbeInterval: durationpb.New(a.Interval),
	}
}
