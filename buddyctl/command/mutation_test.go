package command_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestMutations(t *testing.T) {
	t.Parallel()
	common := []string{"--pool", "edge", "--request-id", "r-1", "--reason", "why not"}
	revised := append([]string{"--expected-revision", "0", "--dry-run"}, common...)
	for name, c := range map[string]struct {
		args []string
		want proto.Message
		says string
	}{
		"remove": {
			append([]string{"remove", "db-1", "--incarnation", "7"}, common...),
			&coordinatorv1.RemoveServerRequest{Pool: "edge", ServerId: "db-1", Incarnation: 7, RequestId: "r-1", Reason: "why not"},
			"removed db-1 at revision 43\n",
		},
		"remove checked": {
			append([]string{"remove", "db-1"}, revised...),
			&coordinatorv1.RemoveServerRequest{
				Pool: "edge", ServerId: "db-1", ExpectedRevision: new(uint64(0)), ValidateOnly: true, RequestId: "r-1", Reason: "why not",
			},
			"valid; nothing was changed\n",
		},
		"drain": {
			append([]string{"drain", "db-1", "--wait", "3s", "--incarnation", "7", "--force"}, common...),
			&coordinatorv1.DrainServerRequest{
				Pool: "edge", ServerId: "db-1", Incarnation: 7, Force: true, Timeout: durationpb.New(3 * time.Second), RequestId: "r-1", Reason: "why not",
			},
			"SAFE: db-1 drains since revision 43, confirmed by every router\n",
		},
		"drain checked": {
			append([]string{"drain", "db-1"}, revised...),
			&coordinatorv1.DrainServerRequest{
				Pool: "edge", ServerId: "db-1", Timeout: durationpb.New(10 * time.Second), ExpectedRevision: new(uint64(0)), ValidateOnly: true,
				RequestId: "r-1", Reason: "why not",
			},
			"valid; nothing was changed\n",
		},
		"resume": {
			append([]string{"resume", "db-5"}, common...),
			&coordinatorv1.ResumeServerRequest{Pool: "edge", ServerId: "db-5", RequestId: "r-1", Reason: "why not"},
			"db-5 is not drained any more, at revision 43: it is active\n",
		},
		"intent": {
			append([]string{"intent", "db-1", "maintenance", "--for", "2h"}, common...),
			&coordinatorv1.SetIntentRequest{
				Pool: "edge", ServerId: "db-1", Wish: coordinatorv1.Wish_WISH_MAINTENANCE, ExpiresIn: durationpb.New(2 * time.Hour),
				RequestId: "r-1", Reason: "why not",
			},
			"the intent for db-1 is maintenance for 2h, at revision 43\n",
		},
		"intent for a stranger": {
			[]string{"intent", "web-99", "drain", "--request-id", "r-1"},
			&coordinatorv1.SetIntentRequest{ServerId: "web-99", Wish: coordinatorv1.Wish_WISH_DRAIN, RequestId: "r-1"},
			"the intent for web-99 is drain, at revision 43; it is not a member now, and its id keeps the wish\n",
		},
		"intent checked": {
			append([]string{"intent", "db-1", "active"}, revised...),
			&coordinatorv1.SetIntentRequest{
				Pool: "edge", ServerId: "db-1", Wish: coordinatorv1.Wish_WISH_ACTIVE, ExpectedRevision: new(uint64(0)), ValidateOnly: true,
				RequestId: "r-1", Reason: "why not",
			},
			"valid; nothing was changed\n",
		},
		"brake release": {
			append([]string{"brake", "release"}, common...),
			&coordinatorv1.ReleaseBrakeRequest{Pool: "edge", RequestId: "r-1", Reason: "why not"},
			"confirmed at revision 43; no member waits for that, and routers let go of the removed servers that they keep\n",
		},
		"brake release by name": {
			append([]string{"brake", "release", "db-1", "db-2"}, common...),
			&coordinatorv1.ReleaseBrakeRequest{Pool: "edge", ServerIds: []string{"db-1", "db-2"}, RequestId: "r-1", Reason: "why not"},
			"confirmed at revision 43 that these are gone: db-1, db-2; they leave within a minute if they are still missed\n",
		},
		"brake release checked": {
			append([]string{"brake", "release", "db-1"}, revised...),
			&coordinatorv1.ReleaseBrakeRequest{
				Pool: "edge", ServerIds: []string{"db-1"}, ExpectedRevision: new(uint64(0)), ValidateOnly: true, RequestId: "r-1", Reason: "why not",
			},
			"valid; it would confirm that these are gone: db-1; nothing was changed\n",
		},
		"the numbers of a pool": {
			append([]string{
				"pools", "update", "default", "--brake-least", "0", "--brake-percent", "100", "--brake-rack-percent", "1", "--brake-zone-percent", "2",
				"--brake-window", "30s", "--floor-percent", "3", "--held-percent", "4", "--hold-down-loss", "1m",
			}, common[2:]...),
			&coordinatorv1.UpdatePoolRequest{
				Pool: "default", RequestId: "r-1", Reason: "why not",
				Settings: &coordinatorv1.PoolSettings{
					HoldDownLoss: durationpb.New(time.Minute), BrakeWindow: durationpb.New(30 * time.Second), BrakeLeast: new(uint32(0)),
					BrakePercent: new(uint32(100)), BrakeRackPercent: new(uint32(1)), BrakeZonePercent: new(uint32(2)),
					FloorPercent: new(uint32(3)), HeldPercent: new(uint32(4)),
				},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{
					"hold_down_loss", "brake_window", "brake_least", "brake_percent", "brake_rack_percent", "brake_zone_percent", "floor_percent", "held_percent",
				}},
			},
			"changed brake_least, brake_percent, brake_rack_percent, brake_window, brake_zone_percent, floor_percent, held_percent, hold_down_loss of pool default at revision 43\n",
		},
		"delete pool": {
			append([]string{"pools", "delete", "edge", "--force"}, common[2:]...),
			&coordinatorv1.DeletePoolRequest{Pool: "edge", Force: true, RequestId: "r-1", Reason: "why not"},
			"deleted pool edge at revision 43, with 2 servers\n",
		},
		"delete pool checked": {
			append([]string{"pools", "delete", "edge"}, revised...),
			&coordinatorv1.DeletePoolRequest{
				Pool: "edge", ExpectedRevision: new(uint64(0)), ValidateOnly: true, RequestId: "r-1", Reason: "why not",
			},
			"valid; nothing was changed\n",
		},
		"replace": {
			append([]string{"replace", "db-1", "db-5", "--incarnation", "7", "--force"}, common...),
			&coordinatorv1.ReplaceServerRequest{
				Pool: "edge", ServerId: "db-1", ReplacementId: "db-5", Incarnation: 7, Force: true, RequestId: "r-1", Reason: "why not",
			},
			"db-5 has the place of db-1 at revision 43; db-1 has left and is banned\n",
		},
		"replace by its twin": {
			append([]string{"replace", "db-1", "db-1"}, common...),
			&coordinatorv1.ReplaceServerRequest{Pool: "edge", ServerId: "db-1", ReplacementId: "db-1", RequestId: "r-1", Reason: "why not"},
			"another machine may take the name db-1 for a minute, since revision 43\n",
		},
		"replace checked": {
			append([]string{"replace", "db-1", "db-5"}, revised...),
			&coordinatorv1.ReplaceServerRequest{
				Pool: "edge", ServerId: "db-1", ReplacementId: "db-5", ExpectedRevision: new(uint64(0)), ValidateOnly: true,
				RequestId: "r-1", Reason: "why not",
			},
			"valid; nothing was changed\n",
		},
		"repair": {
			append([]string{"repair"}, common...),
			&coordinatorv1.RepairRingRequest{Pool: "edge", RequestId: "r-1", Reason: "why not"},
			"nothing to repair at revision 42\n",
		},
		"repair checked": {
			append([]string{"repair"}, revised...),
			&coordinatorv1.RepairRingRequest{Pool: "edge", ExpectedRevision: new(uint64(0)), ValidateOnly: true, RequestId: "r-1", Reason: "why not"},
			"nothing to repair at revision 42\n",
		},
		"create pool": {
			append([]string{"pools", "create", "new", "--mode", "shadow", "--hold-down", "7s"}, common[2:]...),
			&coordinatorv1.CreatePoolRequest{
				Pool: "new", RequestId: "r-1", Reason: "why not",
				Settings: &coordinatorv1.PoolSettings{Mode: coordinatorv1.Mode_MODE_SHADOW, HoldDown: durationpb.New(7 * time.Second)},
			},
			"created pool new\n",
		},
		"update pool": {
			append([]string{
				"pools", "update", "default", "--removal-grace", "0s", "--mode", "paused", "--probe-interval", "1s",
				"--stall-tolerance", "2s", "--hold-down-max", "1m",
			}, common[2:]...),
			&coordinatorv1.UpdatePoolRequest{
				Pool: "default", RequestId: "r-1", Reason: "why not",
				Settings: &coordinatorv1.PoolSettings{
					Mode: coordinatorv1.Mode_MODE_PAUSED, ProbeInterval: durationpb.New(time.Second), StallTolerance: durationpb.New(2 * time.Second),
					RemovalGrace: durationpb.New(0), HoldDownMax: durationpb.New(time.Minute),
				},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"mode", "probe_interval", "stall_tolerance", "removal_grace", "hold_down_max"}},
			},
			"changed hold_down_max, mode, probe_interval, removal_grace, stall_tolerance of pool default at revision 43\n",
		},
		"update server": {
			append([]string{
				"servers", "update", "db-1", "--weight", "0", "--zone", "b", "--rack", "r2", "--probe", "tcp://:22",
				"--probe-address", "10.0.0.9,2001:db8::9", "--endpoint", "web=http://10.0.0.9:80", "--endpoint", "10.0.0.9:81",
				"--label", "os=debian", "--label", "note=a=b",
			}, common...),
			&coordinatorv1.UpdateServerRequest{
				Pool: "edge", ServerId: "db-1", RequestId: "r-1", Reason: "why not",
				Spec: &coordinatorv1.ServerSpec{
					ProbeAddresses: []string{"10.0.0.9", "2001:db8::9"}, Probe: "tcp://:22", Zone: "b", Rack: "r2", Weight: new(uint32(0)),
					Endpoints: []*coordinatorv1.Endpoint{{Name: "web", Protocol: "http", Address: "10.0.0.9:80"}, {Address: "10.0.0.9:81"}},
					Labels:    map[string]string{"os": "debian", "note": "a=b"},
				},
				UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"probe_addresses", "probe", "endpoints", "zone", "rack", "weight", "labels"}},
			},
			"changed probe_addresses, probe, endpoints, zone, rack, weight, labels of db-1 at revision 43\n",
		},
		"no labels": {
			append([]string{"servers", "update", "db-1", "--label="}, revised...),
			&coordinatorv1.UpdateServerRequest{
				Pool: "edge", ServerId: "db-1", RequestId: "r-1", Reason: "why not", ExpectedRevision: new(uint64(0)), ValidateOnly: true,
				Spec: &coordinatorv1.ServerSpec{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}},
			},
			"valid; nothing was changed\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, admin := busy(t)
			r := n.run(t, c.args...)
			if r.code != 0 || r.stdout != c.says {
				t.Errorf("exit %d, stdout %q, want %q, stderr %q", r.code, r.stdout, c.says, r.stderr)
			}
			if diff := cmp.Diff(c.want, admin.first(), protocmp.Transform()); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

// Repeating it must not make the next leader step down too.
func TestStepDownNamesTheEpoch(t *testing.T) {
	t.Parallel()
	n, admin := busy(t)
	r := n.run(t, "step-down", "--reason", "an upgrade")
	if r.code != 0 || r.stdout != "epoch 3 is over\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	want := &coordinatorv1.StepDownRequest{ExpectedEpoch: 3, Reason: "an upgrade"}
	if diff := cmp.Diff(want, admin.last(), protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestRequestIDsAreRandom(t *testing.T) {
	t.Parallel()
	n, admin := busy(t)
	seen := map[string]bool{}
	for range 3 {
		n.run(t, "remove", "db-1")
		id := admin.last().(*coordinatorv1.RemoveServerRequest).GetRequestId()
		if len(id) < 20 || len(id) > 128 || seen[id] {
			t.Errorf("request id %q", id)
		}
		seen[id] = true
	}
}

func TestAMutationAsJSON(t *testing.T) {
	t.Parallel()
	n, _ := busy(t)
	r := n.run(t, "remove", "db-1", "-o", "json")
	if r.code != 0 || strings.Join(strings.Fields(r.stdout), "") != `{"revision":"43"}` {
		t.Errorf("exit %d, stdout %q", r.code, r.stdout)
	}
}

func TestFiltersReachTheServer(t *testing.T) {
	t.Parallel()
	n, admin := busy(t)
	n.run(t, "servers", "--phase", "active,held", "--zone", "a", "--label", "os=debian", "--suspect=false")
	want := &coordinatorv1.ListServersRequest{
		Phases: []coordinatorv1.Phase{coordinatorv1.Phase_PHASE_ACTIVE, coordinatorv1.Phase_PHASE_HELD},
		Zone:   "a", Labels: map[string]string{"os": "debian"}, Suspect: new(false), PageSize: 1000, PageToken: "....",
	}
	if diff := cmp.Diff(want, admin.last(), protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	n.run(t, "events", "--server", "db-1", "--kind", "removed", "--since", "7", "-n", "0")
	wantEvents := &coordinatorv1.ListEventsRequest{ServerId: "db-1", Kinds: []string{"removed"}, SinceRevision: 7, PageSize: 1000, PageToken: "...."}
	if diff := cmp.Diff(wantEvents, admin.last(), protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	n.run(t, "explain", "db-1", "--limit", "9", "--pool", "edge")
	wantExplain := &coordinatorv1.ExplainServerRequest{Pool: "edge", ServerId: "db-1", Limit: 9}
	if diff := cmp.Diff(wantExplain, admin.last(), protocmp.Transform()); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestARepeatedPageIsAnError(t *testing.T) {
	t.Parallel()
	n := &network{}
	n.serve(t, "127.0.0.1:7401", &fakeAdmin{}, nil)
	if r := n.run(t, "servers"); r.code != 0 || r.stdout != "no servers\n" {
		t.Errorf("an empty pool: exit %d, stdout %q", r.code, r.stdout)
	}
}
