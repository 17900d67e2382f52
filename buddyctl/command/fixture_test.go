package command_test

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// busyAdmin is a coordinator with something to see in every list.
func busyAdmin() *fakeAdmin {
	return &fakeAdmin{
		pools: []*coordinatorv1.Pool{
			{
				Pool: "default", Epoch: 3, Revision: 42, ReferenceSize: 5, Members: 5, Active: 3, Suspect: 1,
				WarmingUp: new(false),
				Settings: &coordinatorv1.PoolSettings{
					Mode:          coordinatorv1.Mode_MODE_ENFORCE,
					ProbeInterval: durationpb.New(500 * time.Millisecond), StallTolerance: durationpb.New(500 * time.Millisecond),
					RemovalGrace: durationpb.New(0), HoldDown: durationpb.New(5 * time.Second), HoldDownMax: durationpb.New(5 * time.Minute),
					HoldDownLoss: durationpb.New(30 * time.Second), BrakeLeast: new(uint32(3)), BrakePercent: new(uint32(10)),
					BrakeRackPercent: new(uint32(25)), BrakeZonePercent: new(uint32(33)), BrakeWindow: durationpb.New(time.Minute),
					FloorPercent: new(uint32(50)), HeldPercent: new(uint32(10)),
				},
			},
			{Pool: "edge", Epoch: 3, Revision: 7, WarmingUp: new(true), BrakeEngaged: new(true), ServiceDown: 2, Settings: &coordinatorv1.PoolSettings{Mode: coordinatorv1.Mode_MODE_SHADOW}},
			{Pool: "game", Epoch: 3, Revision: 1, Settings: &coordinatorv1.PoolSettings{Mode: coordinatorv1.Mode_MODE_PAUSED}},
		},
		servers:  busyServers(),
		events:   busyEvents(),
		alarms:   busyAlarms(),
		intents:  busyIntents(),
		routers:  busyRouters(),
		sessions: busySessions(),
		ring:     busyRing(),
		check: &coordinatorv1.CheckRingResponse{
			Consistent: new(true), Members: 5, Acknowledged: 4, Revision: 42,
			Problems: []*coordinatorv1.RingProblem{{ServerId: "db-4", Kind: "agent_absent", Text: "db-4's agent has no session"}},
		},
		brake: &coordinatorv1.GetBrakeResponse{
			Safety: busySafety(false), Revision: 42,
			Zones: []*coordinatorv1.BrakeZone{{Zone: "a", Members: 6, Suspects: 1, Limit: 1}},
		},
		repair: &coordinatorv1.RepairRingResponse{Revision: 42},
		explain: &coordinatorv1.ExplainServerResponse{
			Summary:   "db-6 is not a member of pool default: it was removed as crashed.",
			Departure: &coordinatorv1.Departure{Incarnation: 9, Cause: coordinatorv1.Cause_CAUSE_CRASHED, LeftAt: ago(41 * time.Second), FlapScore: 1, HoldDown: durationpb.New(5 * time.Second)},
		},
	}
}

func busyIntents() []*coordinatorv1.Intent {
	return []*coordinatorv1.Intent{
		{Pool: "default", ServerId: "db-2", Wish: coordinatorv1.Wish_WISH_MAINTENANCE, Reason: "new disk", Actor: "operator/ada", SetAt: ago(10 * time.Minute), ExpiresAt: timestamppb.New(noon.Add(110 * time.Minute))},
		{Pool: "default", ServerId: "db-4", Wish: coordinatorv1.Wish_WISH_DRAIN, Actor: "operator/ada", SetAt: ago(41 * time.Second)},
		{Pool: "default", ServerId: "old-1", Wish: coordinatorv1.Wish_WISH_BANNED, Reason: "replaced by db-9", Actor: "operator/bob", SetAt: ago(72 * time.Hour)},
	}
}

func busySafety(engaged bool) *coordinatorv1.Safety {
	return &coordinatorv1.Safety{
		Members: 19, Suspects: 2, BrakeLimit: 7, BrakeEngaged: &engaged, Lost: 1, FloorLimit: 10, ReferenceSize: 20,
	}
}

// heldBrake is a pool whose removals are held.
func heldBrake() *coordinatorv1.GetBrakeResponse {
	return &coordinatorv1.GetBrakeResponse{
		Safety: busySafety(true), Revision: 42,
		Zones: []*coordinatorv1.BrakeZone{{Zone: "a", Members: 7, Suspects: 4, Limit: 2}},
		Stops: []*coordinatorv1.BrakeStop{{
			Rule: "zone_brake", Since: ago(95 * time.Second),
			Text: "4 of 7 servers of zone a are suspect or were removed within 1 min, and the brake allows 2",
		}},
		Held: []*coordinatorv1.HeldRemoval{
			{ServerId: "db-1", Zone: "a", Rack: "r1", SuspectSince: ago(95 * time.Second)},
			{ServerId: "db-2", Zone: "a", SuspectSince: ago(94 * time.Second)},
		},
		Released:      []*coordinatorv1.ReleasedRemoval{{ServerId: "db-3", Until: timestamppb.New(noon.Add(42 * time.Second))}},
		KeptByRouters: []string{"db-8", "db-9"},
	}
}

func busyServers() []*coordinatorv1.Server {
	server := func(id, first, second string, phase coordinatorv1.Phase) *coordinatorv1.Server {
		return &coordinatorv1.Server{
			ServerId: id, Pool: "default", Phase: phase, Incarnation: 7, FirstBuddy: first, SecondBuddy: second,
			Suspect: new(false), JoinedAt: ago(26 * time.Hour), PhaseSince: ago(26 * time.Hour), AgentConnected: new(true),
			Intent: coordinatorv1.Wish_WISH_ACTIVE,
			Spec: &coordinatorv1.ServerSpec{
				ProbeAddresses: []string{"10.0.0.1", "2001:db8::1"}, Probe: "icmp",
				Endpoints: []*coordinatorv1.Endpoint{{Name: "http", Address: "10.0.0.1:8080", Protocol: "http"}},
				Zone:      "a", Rack: "r1", Weight: new(uint32(100)), Labels: map[string]string{"os": "debian", "gen": "7"},
			},
		}
	}
	servers := []*coordinatorv1.Server{
		server("db-1", "db-2", "db-5", coordinatorv1.Phase_PHASE_ACTIVE),
		server("db-2", "db-3", "db-1", coordinatorv1.Phase_PHASE_ACTIVE),
		server("db-3", "db-4", "db-2", coordinatorv1.Phase_PHASE_JOINING),
		server("db-4", "db-5", "db-3", coordinatorv1.Phase_PHASE_ACTIVE),
		server("db-5", "db-1", "db-4", coordinatorv1.Phase_PHASE_HELD),
	}
	servers[1].Intent = coordinatorv1.Wish_WISH_MAINTENANCE
	servers[2].WaitingFor = "a first good probe by db-4, db-2"
	servers[2].PhaseSince, servers[2].JoinedAt = ago(2*time.Second), ago(2*time.Second)
	servers[3].Suspect, servers[3].AgentConnected = new(true), new(false)
	servers[4].PhaseSince, servers[4].HeldUntil = ago(3*time.Second), timestamppb.New(noon.Add(7*time.Second))
	servers[4].Spec.Weight = new(uint32(0))
	servers[0].ServiceText = "http://127.0.0.1:8080/health: 503"
	return servers
}

func busyEvents() []*coordinatorv1.Event {
	event := func(revision uint64, seq uint32, age time.Duration, kind, server, text string) *coordinatorv1.Event {
		return &coordinatorv1.Event{
			Pool: "default", Revision: revision, Seq: seq, Epoch: 3, At: ago(age), Kind: kind, ServerId: server, Actor: "coordinator", Text: text,
		}
	}
	events := []*coordinatorv1.Event{
		event(42, 1, 3*time.Second, "held", "db-5", "db-5 is back between db-4 and db-1 and is held until 12:00:07.000"),
		event(42, 0, 3*time.Second, "joined", "db-5", "db-5 is back"),
		event(41, 0, 41*time.Second, "removed", "db-5", "db-5 was removed as crashed: all 4 observers that could judge miss it"),
		event(40, 0, 26*time.Hour, "pool_updated", "", "the settings of pool default were updated: tuned"),
		event(39, 0, 27*time.Hour, "joined", "db-4", "db-4 joined between db-3 and db-5"),
	}
	events[2].Cause = coordinatorv1.Cause_CAUSE_CRASHED
	events[3].Actor = "spiffe://example.org/buddyring/admin/ann"
	return events
}

func busyAlarms() []*coordinatorv1.Alarm {
	return []*coordinatorv1.Alarm{
		{
			Name: "AGENT_DOWN", Pool: "default", Subject: "db-4", Since: ago(90 * time.Second),
			Text: "db-4 has no agent stream", Runbook: "docs/runbook.md#agent_down",
		},
		{
			Name: "AGENT_DOWN", Pool: "default", Subject: "db-2", Since: ago(95 * time.Second),
			Text: "db-2 has no agent stream", Runbook: "docs/runbook.md#agent_down",
		},
		{
			Name: "STORE_FAILING", Since: ago(2 * time.Minute), Text: "the database cannot be reached",
			Runbook: "docs/runbook.md#store_failing",
		},
	}
}

func busyRouters() []*coordinatorv1.Router {
	return []*coordinatorv1.Router{
		{RouterId: "edge-1", LastSeen: ago(0), Connected: new(true), Version: "v0.1.0", Applied: []*coordinatorv1.Position{{Pool: "default", Epoch: 3, Revision: 42}, {Pool: "edge", Epoch: 3, Revision: 7}}},
		{RouterId: "edge-2", LastSeen: ago(4 * time.Minute), Connected: new(false), Version: "v0.1.0"},
		{RouterId: "edge-3", LastSeen: ago(time.Second), Connected: new(true), Version: "v0.1.0", Lags: []*coordinatorv1.RouterLag{{Pool: "default", Revisions: 2, Since: ago(3 * time.Second)}, {Pool: "edge", Revisions: 7}}, Held: []*coordinatorv1.HeldByRouter{{Pool: "default", ServerId: "db-9"}}},
	}
}

func busySessions() []*coordinatorv1.AgentSession {
	session := func(id string, acknowledged uint64, self uint32, subjects ...*coordinatorv1.SessionSubject) *coordinatorv1.AgentSession {
		return &coordinatorv1.AgentSession{
			ServerId: id, Incarnation: 7, Peer: "10.0.0.1:51234", Version: "v0.1.0", Since: ago(26 * time.Hour), LastHeard: ago(2 * time.Second),
			AcknowledgedSeq: acknowledged, AssignedSeq: 12, SelfScore: self, Subjects: subjects,
		}
	}
	return []*coordinatorv1.AgentSession{
		session("db-1", 12, 0,
			&coordinatorv1.SessionSubject{ServerId: "db-2", Sight: "up", Rtt: durationpb.New(310 * time.Microsecond)},
			&coordinatorv1.SessionSubject{ServerId: "db-5", Sight: "up", Rtt: durationpb.New(12 * time.Millisecond), LostOfTen: 1}),
		session("db-2", 11, 2, &coordinatorv1.SessionSubject{ServerId: "db-3", Sight: "cannot_judge", LostOfTen: 10}),
		session("db-3", 12, 0),
	}
}

func busyRing() *coordinatorv1.GetRingResponse {
	ring := &coordinatorv1.GetRingResponse{Revision: 42, Epoch: 3}
	for _, s := range busyServers() {
		ring.Members = append(ring.Members, &coordinatorv1.RingMember{
			ServerId: s.GetServerId(), FirstBuddy: s.GetFirstBuddy(), SecondBuddy: s.GetSecondBuddy(), Phase: s.GetPhase(),
			Suspect: s.Suspect, Zone: s.GetSpec().GetZone(), Rack: s.GetSpec().GetRack(),
		})
	}
	ring.Members[2].TemporaryWatchers = []string{"db-1"}
	return ring
}

func busyRouter() *fakeRouter {
	server := func(id, address string, state routerv1.State) *routerv1.Server {
		return &routerv1.Server{
			ServerId: id, Incarnation: 7, State: state, Zone: "a", Weight: new(uint32(100)),
			Endpoints: []*routerv1.Endpoint{{Name: "http", Address: address, Protocol: "http"}},
		}
	}
	return &fakeRouter{servers: []*routerv1.Server{
		server("db-1", "10.0.0.1:8080", routerv1.State_STATE_ACTIVE),
		server("db-2", "10.0.0.2:8080", routerv1.State_STATE_ACTIVE),
		server("db-4", "10.0.0.4:8080", routerv1.State_STATE_SUSPECT),
	}}
}
