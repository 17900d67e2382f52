package server_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// sessionRaw opens a session and leaves the rest to the test.
func sessionRaw(t *testing.T, w *world) pb.AgentService_SessionClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := pb.NewAgentServiceClient(w.connect("agent")).Session(ctx)
	if err != nil {
		t.Fatalf("session: %v", err)
	}
	return stream
}

func hello(edit func(*pb.Hello)) *pb.SessionRequest {
	h := &pb.Hello{
		Pool: "default", ServerId: "web-1", BootId: "b", InstanceId: "i", Version: "test",
		Spec: &pb.ServerSpec{ProbeAddresses: []string{"10.0.0.1"}},
	}
	edit(h)
	return &pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: h}}
}

func TestBadHello(t *testing.T) {
	t.Parallel()
	many := make(map[string]string)
	for i := range 33 {
		many[strings.Repeat("a", i+1)] = ""
	}
	heavy, long := uint32(10_001), strings.Repeat("x", 129)
	cases := map[string]struct {
		field string
		edit  func(*pb.Hello)
	}{
		"no pool":            {"hello.pool", func(h *pb.Hello) { h.Pool = "" }},
		"upper-case pool":    {"hello.pool", func(h *pb.Hello) { h.Pool = "Web" }},
		"pool with a dot":    {"hello.pool", func(h *pb.Hello) { h.Pool = "a.b" }},
		"long pool":          {"hello.pool", func(h *pb.Hello) { h.Pool = strings.Repeat("a", 64) }},
		"no id":              {"hello.server_id", func(h *pb.Hello) { h.ServerId = "" }},
		"id with a slash":    {"hello.server_id", func(h *pb.Hello) { h.ServerId = "a/b" }},
		"id with a newline":  {"hello.server_id", func(h *pb.Hello) { h.ServerId = "a\nb" }},
		"id with a space":    {"hello.server_id", func(h *pb.Hello) { h.ServerId = "web-1 " }},
		"empty id part":      {"hello.server_id", func(h *pb.Hello) { h.ServerId = "a..b" }},
		"no boot id":         {"hello.boot_id", func(h *pb.Hello) { h.BootId = "" }},
		"long boot id":       {"hello.boot_id", func(h *pb.Hello) { h.BootId = long }},
		"no instance id":     {"hello.instance_id", func(h *pb.Hello) { h.InstanceId = "" }},
		"instance, control":  {"hello.instance_id", func(h *pb.Hello) { h.InstanceId = "\x1b[2J" }},
		"long version":       {"hello.version", func(h *pb.Hello) { h.Version = long }},
		"long store id":      {"hello.store_id", func(h *pb.Hello) { h.StoreId = long }},
		"many features":      {"hello.features", func(h *pb.Hello) { h.Features = make([]string, 33) }},
		"empty feature":      {"hello.features", func(h *pb.Hello) { h.Features = []string{""} }},
		"no address":         {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = nil }},
		"a name":             {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"web-1"} }},
		"loopback":           {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"127.0.0.1"} }},
		"loopback as IPv6":   {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"::ffff:127.0.0.1"} }},
		"link-local":         {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"fe80::1"} }},
		"multicast":          {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"224.0.0.1"} }},
		"broadcast":          {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"255.255.255.255"} }},
		"unspecified":        {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"0.0.0.0"} }},
		"two of a family":    {"hello.spec.probe_addresses", func(h *pb.Hello) { h.Spec.ProbeAddresses = []string{"10.0.0.1", "10.0.0.2"} }},
		"unknown probe":      {"hello.spec.probe", func(h *pb.Hello) { h.Spec.Probe = "http" }},
		"probe of port 0":    {"hello.spec.probe", func(h *pb.Hello) { h.Spec.Probe = "tcp://:0" }},
		"heavy":              {"hello.spec.weight", func(h *pb.Hello) { h.Spec.Weight = &heavy }},
		"zone":               {"hello.spec.zone", func(h *pb.Hello) { h.Spec.Zone = "Zone A" }},
		"rack":               {"hello.spec.rack", func(h *pb.Hello) { h.Spec.Rack = "-" }},
		"endpoint, no port":  {"hello.spec.endpoints.address", func(h *pb.Hello) { h.Spec.Endpoints = []*pb.Endpoint{{Address: "10.0.0.1"}} }},
		"endpoint, bad host": {"hello.spec.endpoints.address", func(h *pb.Hello) { h.Spec.Endpoints = []*pb.Endpoint{{Address: "a b:1"}} }},
		"endpoints alike":    {"hello.spec.endpoints.name", func(h *pb.Hello) { h.Spec.Endpoints = []*pb.Endpoint{{Address: "a:1"}, {Address: "b:1"}} }},
		"17 endpoints":       {"hello.spec.endpoints", func(h *pb.Hello) { h.Spec.Endpoints = make([]*pb.Endpoint, 17) }},
		"33 labels":          {"hello.spec.labels", func(h *pb.Hello) { h.Spec.Labels = many }},
		"label, control":     {"hello.spec.labels", func(h *pb.Hello) { h.Spec.Labels = map[string]string{"a": "\x00"} }},
		"labels of 5 KiB":    {"hello.spec.labels", func(h *pb.Hello) { h.Spec.Labels = map[string]string{"a": strings.Repeat("x", 5000)} }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newTable())
				s := sessionRaw(t, w)
				if err := s.Send(hello(c.edit)); err != nil {
					t.Fatalf("send: %v", err)
				}
				wantField(t, endOf(s.Recv), c.field)
				if got := len(w.phases()); got != 0 {
					t.Errorf("%d members", got)
				}
			})
		})
	}
}

// What may not be said after a good hello.
func TestBadSessionMessages(t *testing.T) {
	t.Parallel()
	up := pb.Sight_SIGHT_UP
	report := func(id string, incarnation uint64, e *pb.Evidence) *pb.SessionRequest {
		return &pb.SessionRequest{Message: &pb.SessionRequest_Report{Report: &pb.Report{
			ServerId: id, Incarnation: incarnation, Evidence: e,
		}}}
	}
	digest := func(d *pb.Digest) *pb.SessionRequest {
		return &pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: d}}
	}
	cases := map[string]struct {
		field string
		req   *pb.SessionRequest
	}{
		"second hello":       {"hello", hello(func(*pb.Hello) {})},
		"report: id":         {"report.server_id", report("WEB", 1, &pb.Evidence{Sight: up})},
		"report: no inc.":    {"report.incarnation", report("a", 0, &pb.Evidence{Sight: up})},
		"report: no sight":   {"report.evidence.sight", report("a", 1, nil)},
		"report: lost":       {"report.evidence.lost", report("a", 1, &pb.Evidence{Sight: up, Sent: 1, Lost: 2})},
		"report: sent":       {"report.evidence.sent", report("a", 1, &pb.Evidence{Sight: up, Sent: 1 << 30})},
		"report: rtt":        {"report.evidence.rtt", report("a", 1, &pb.Evidence{Sight: up, Rtt: durationpb.New(-1)})},
		"report: first lost": {"report.evidence.first_lost_age", report("a", 1, &pb.Evidence{Sight: up, FirstLostAge: &durationpb.Duration{Nanos: 2e9}})},
		"report: last reply": {"report.evidence.last_reply_age", report("a", 1, &pb.Evidence{Sight: up, LastReplyAge: durationpb.New(-1)})},
		"report: trouble":    {"report.evidence.trouble", report("a", 1, &pb.Evidence{Sight: up, Trouble: strings.Repeat("x", 257)})},
		"digest: id":         {"digest.subjects.server_id", digest(&pb.Digest{Subjects: []*pb.SubjectDigest{{ServerId: "", Incarnation: 1}}})},
		"digest: incarnation": {
			"digest.subjects.incarnation", digest(&pb.Digest{Subjects: []*pb.SubjectDigest{{ServerId: "a"}}}),
		},
		"digest: evidence": {
			"digest.subjects.evidence.sight", digest(&pb.Digest{Subjects: []*pb.SubjectDigest{{ServerId: "a", Incarnation: 1}}}),
		},
		"digest: lost": {"digest.subjects.lost_of_ten", digest(&pb.Digest{Subjects: []*pb.SubjectDigest{
			{ServerId: "a", Incarnation: 1, Evidence: &pb.Evidence{Sight: up}, LostOfTen: 11},
		}})},
		"digest: jitter": {"digest.subjects.jitter", digest(&pb.Digest{Subjects: []*pb.SubjectDigest{
			{ServerId: "a", Incarnation: 1, Evidence: &pb.Evidence{Sight: up}, Jitter: durationpb.New(-1)},
		}})},
		"digest: trouble":  {"digest.state_trouble", digest(&pb.Digest{StateTrouble: strings.Repeat("x", 257)})},
		"digest: subjects": {"digest.subjects", digest(&pb.Digest{Subjects: make([]*pb.SubjectDigest, 257)})},
		"answer: id": {"answer.server_id", &pb.SessionRequest{Message: &pb.SessionRequest_Answer{
			Answer: &pb.Answer{ServerId: "A", Incarnation: 1},
		}}},
		"answer: evidence": {"answer.evidence.sight", &pb.SessionRequest{Message: &pb.SessionRequest_Answer{
			Answer: &pb.Answer{ServerId: "a", Incarnation: 1},
		}}},
		"health: incarnation": {"service_health.incarnation", &pb.SessionRequest{Message: &pb.SessionRequest_ServiceHealth{
			ServiceHealth: &pb.ServiceHealth{State: pb.ServiceState_SERVICE_STATE_DOWN},
		}}},
		"health: text": {"service_health.text", &pb.SessionRequest{Message: &pb.SessionRequest_ServiceHealth{
			ServiceHealth: &pb.ServiceHealth{Incarnation: 1, Text: "a\x07b"},
		}}},
		"digest: health":     {"digest.service_health.incarnation", digest(&pb.Digest{ServiceHealth: &pb.ServiceHealth{}})},
		"leave: incarnation": {"leave.incarnation", &pb.SessionRequest{Message: &pb.SessionRequest_Leave{Leave: &pb.Leave{}}}},
		"leave: reason": {"leave.reason", &pb.SessionRequest{Message: &pb.SessionRequest_Leave{
			Leave: &pb.Leave{Incarnation: 1, Reason: strings.Repeat("x", 1025)},
		}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newTable())
				s := sessionRaw(t, w)
				for _, req := range []*pb.SessionRequest{hello(func(*pb.Hello) {}), c.req} {
					if err := s.Send(req); err != nil {
						t.Fatalf("send: %v", err)
					}
				}
				wantField(t, endOf(s.Recv), c.field)
			})
		})
	}
}

func TestSessionMisuse(t *testing.T) {
	t.Parallel()
	send := func(t *testing.T, s pb.AgentService_SessionClient, reqs ...*pb.SessionRequest) {
		t.Helper()
		for _, req := range reqs {
			if s.Send(req) != nil {
				return // Recv tells why
			}
		}
	}
	echo := &pb.SessionRequest{Message: &pb.SessionRequest_Echo{Echo: &pb.Echo{Nonce: 1}}}
	for name, test := range map[string]func(t *testing.T, w *world, s pb.AgentService_SessionClient){
		"no hello": func(t *testing.T, _ *world, s pb.AgentService_SessionClient) {
			begin := time.Now()
			wantField(t, endOf(s.Recv), "hello")
			if took := time.Since(begin); took > 11*time.Second {
				t.Errorf("it took %s", took)
			}
		},
		"something else first": func(t *testing.T, _ *world, s pb.AgentService_SessionClient) {
			send(t, s, echo)
			wantField(t, endOf(s.Recv), "hello")
		},
		"nothing in it": func(t *testing.T, _ *world, s pb.AgentService_SessionClient) {
			send(t, s, &pb.SessionRequest{})
			wantField(t, endOf(s.Recv), "hello")
		},
		"unknown kinds later are ignored": func(t *testing.T, w *world, s pb.AgentService_SessionClient) {
			send(t, s, hello(func(*pb.Hello) {}), &pb.SessionRequest{}, echo)
			w.allActive("web-1")
		},
		"flood": func(t *testing.T, w *world, s pb.AgentService_SessionClient) {
			send(t, s, hello(func(*pb.Hello) {}))
			for range 2000 {
				send(t, s, echo)
			}
			if err := endOf(s.Recv); !errors.Is(err, member.ErrExhausted) {
				t.Errorf("the flood ended with %v", err)
			}
			if got := w.metric("buddyring_streams_dropped_total", "service", "agent", "reason", "flood"); got != 1 {
				t.Errorf("buddyring_streams_dropped_total is %v", got)
			}
		},
		"100 KiB": func(t *testing.T, _ *world, s pb.AgentService_SessionClient) {
			send(t, s, hello(func(h *pb.Hello) { h.Version = strings.Repeat("x", 100<<10) }))
			if err := endOf(s.Recv); !errors.Is(err, member.ErrExhausted) {
				t.Errorf("ended with %v", err)
			}
		},
		"100 KiB after the hello": func(t *testing.T, _ *world, s pb.AgentService_SessionClient) {
			digest := &pb.Digest{Subjects: make([]*pb.SubjectDigest, 50<<10)}
			for i := range digest.Subjects {
				digest.Subjects[i] = &pb.SubjectDigest{}
			}
			send(t, s, hello(func(*pb.Hello) {}), &pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: digest}})
			if err := endOf(s.Recv); !errors.Is(err, member.ErrExhausted) {
				t.Errorf("ended with %v", err)
			}
		},
		"a later epoch of the same store": func(t *testing.T, _ *world, s pb.AgentService_SessionClient) {
			send(t, s, hello(func(h *pb.Hello) { h.Epoch, h.StoreId = 99, "store-1" }))
			if err := endOf(s.Recv); !errors.Is(err, member.ErrNotLeader) {
				t.Errorf("ended with %v", err)
			}
		},
		"an incarnation of another store": func(t *testing.T, w *world, s pb.AgentService_SessionClient) {
			send(t, s, hello(func(h *pb.Hello) { h.Epoch, h.StoreId, h.Incarnation = 99, "store-0", 77 }))
			res, err := s.Recv()
			if err != nil || res.GetWelcome().GetResumed() || res.GetWelcome().GetIncarnation() == 77 {
				t.Errorf("got %v, %v", res, err)
			}
			w.allActive("web-1")
		},
		"the present incarnation, but of another store": func(t *testing.T, w *world, s pb.AgentService_SessionClient) {
			send(t, s, hello(func(*pb.Hello) {}))
			first, err := s.Recv()
			if err != nil {
				t.Fatalf("receive: %v", err)
			}
			if err := s.CloseSend(); err != nil {
				t.Fatalf("close: %v", err)
			}
			_ = endOf(s.Recv)
			again := sessionRaw(t, w)
			send(t, again, hello(func(h *pb.Hello) {
				h.InstanceId, h.StoreId, h.Incarnation = "restarted", "store-0", first.GetWelcome().GetIncarnation()
			}))
			second, err := again.Recv()
			if err != nil || second.GetWelcome().GetResumed() ||
				second.GetWelcome().GetIncarnation() <= first.GetWelcome().GetIncarnation() {
				t.Errorf("got %v, %v after %v", second, err, first)
			}
		},
		"a digest before the welcome": func(t *testing.T, w *world, s pb.AgentService_SessionClient) {
			w.newRouter("r").subscribe().caughtUp("default", 1)
			release := w.table.(*table).hold()
			send(t, s, hello(func(*pb.Hello) {}), &pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{Seq: 1}}})
			time.Sleep(time.Second)
			release()
			if res, err := s.Recv(); err != nil || res.GetWelcome() == nil {
				t.Errorf("the first message is %v, %v", res, err)
			}
		},
		"a twin": func(t *testing.T, w *world, s pb.AgentService_SessionClient) {
			w.join("web-1", "web-2", "web-3")
			send(t, s, hello(func(h *pb.Hello) { h.InstanceId = "clone" }))
			if err := endOf(s.Recv); !errors.Is(err, member.ErrAlreadyExists) {
				t.Errorf("ended with %v", err)
			}
		},
		"half-closed by the agent": func(t *testing.T, w *world, s pb.AgentService_SessionClient) {
			send(t, s, hello(func(*pb.Hello) {}))
			w.allActive("web-1")
			if err := s.CloseSend(); err != nil {
				t.Fatalf("close: %v", err)
			}
			if err := endOf(s.Recv); err != nil {
				t.Errorf("ended with %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newTable())
				test(t, w, sessionRaw(t, w))
			})
		})
	}
}

func TestUnknownPoolsWithoutAutoCreate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable(), noAutoCreate)
		s := sessionRaw(t, w)
		if err := s.Send(hello(func(h *pb.Hello) { h.Pool = "games" })); err != nil {
			t.Fatalf("send: %v", err)
		}
		if err := endOf(s.Recv); !errors.Is(err, member.ErrNotFound) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestJoinMakesThePool(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		for _, id := range []string{"g-1", "g-2"} {
			s := sessionRaw(t, w)
			if err := s.Send(hello(func(h *pb.Hello) {
				h.Pool, h.ServerId, h.Spec.ProbeAddresses[0] = "games", id, addressOf(id)
			})); err != nil {
				t.Fatalf("send: %v", err)
			}
			if res, err := s.Recv(); err != nil || res.GetWelcome() == nil {
				t.Fatalf("got %v, %v", res, err)
			}
		}
		res, err := w.admin.GetPool(t.Context(), &pb.GetPoolRequest{Pool: "games"})
		if err != nil || res.GetPool().GetMembers() != 2 {
			t.Errorf("pool: %v, %v", res, err)
		}
	})
}

func TestBadSubscribe(t *testing.T) {
	t.Parallel()
	first := func(h *pb.SubscribeHello) *pb.SubscribeRequest {
		return &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Hello{Hello: h}}
	}
	ack := func(a *pb.Ack) *pb.SubscribeRequest {
		return &pb.SubscribeRequest{Message: &pb.SubscribeRequest_Ack{Ack: a}}
	}
	good := first(&pb.SubscribeHello{RouterId: "r1"})
	twice := []*pb.Position{{Pool: "a"}, {Pool: "a"}}
	for name, c := range map[string]struct {
		field string
		reqs  []*pb.SubscribeRequest
	}{
		"no hello":         {"hello", nil},
		"an ack first":     {"hello", []*pb.SubscribeRequest{ack(&pb.Ack{})}},
		"two hellos":       {"hello", []*pb.SubscribeRequest{good, good}},
		"no id":            {"hello.router_id", []*pb.SubscribeRequest{first(&pb.SubscribeHello{})}},
		"bad id":           {"hello.router_id", []*pb.SubscribeRequest{first(&pb.SubscribeHello{RouterId: "R 1"})}},
		"bad pool":         {"hello.pools", []*pb.SubscribeRequest{first(&pb.SubscribeHello{RouterId: "r", Pools: []string{"A"}})}},
		"many pools":       {"hello.pools", []*pb.SubscribeRequest{first(&pb.SubscribeHello{RouterId: "r", Pools: make([]string, 1001)})}},
		"bad resume":       {"hello.resume.pool", []*pb.SubscribeRequest{first(&pb.SubscribeHello{RouterId: "r", Resume: []*pb.Position{{}}})}},
		"resume twice":     {"hello.resume.pool", []*pb.SubscribeRequest{first(&pb.SubscribeHello{RouterId: "r", Resume: twice})}},
		"long version":     {"hello.version", []*pb.SubscribeRequest{first(&pb.SubscribeHello{RouterId: "r", Version: strings.Repeat("x", 129)})}},
		"long store id":    {"hello.store_id", []*pb.SubscribeRequest{first(&pb.SubscribeHello{RouterId: "r", StoreId: strings.Repeat("x", 129)})}},
		"ack: pool":        {"ack.applied.pool", []*pb.SubscribeRequest{good, ack(&pb.Ack{Applied: []*pb.Position{{}}})}},
		"ack: pool twice":  {"ack.applied.pool", []*pb.SubscribeRequest{good, ack(&pb.Ack{Applied: twice})}},
		"ack: held pool":   {"ack.held.pool", []*pb.SubscribeRequest{good, ack(&pb.Ack{Held: []*pb.HeldServer{{ServerId: "a", Incarnation: 1}}})}},
		"ack: held server": {"ack.held.server_id", []*pb.SubscribeRequest{good, ack(&pb.Ack{Held: []*pb.HeldServer{{Pool: "a", Incarnation: 1}}})}},
		"ack: held inc.":   {"ack.held.incarnation", []*pb.SubscribeRequest{good, ack(&pb.Ack{Held: []*pb.HeldServer{{Pool: "a", ServerId: "a"}}})}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := start(t, newTable())
				s := subscribeRaw(t, w, nil)
				for _, req := range c.reqs {
					if err := s.Send(req); err != nil {
						t.Fatalf("send: %v", err)
					}
				}
				wantField(t, endOf(s.Recv), c.field)
			})
		})
	}
}

// Every admin RPC refuses garbage with an error that names the field, and
// changes nothing.
func TestBadAdminRequests(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 2000)
	spec, settings := &pb.ServerSpec{}, &pb.PoolSettings{Mode: pb.Mode_MODE_SHADOW}
	tooMuch := uint32(101)
	seconds := func(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }
	cases := []struct {
		field string
		req   proto.Message
	}{
		{"page_size", &pb.ListPoolsRequest{PageSize: -1}},
		{"page_size", &pb.ListPoolsRequest{PageSize: 1001}},
		{"page_token", &pb.ListPoolsRequest{PageToken: "?"}},
		{"page_token", &pb.ListPoolsRequest{PageToken: "AAAAAAAAAAAA"}},
		{"pool", &pb.GetPoolRequest{Pool: "A"}},
		{"pool", &pb.CreatePoolRequest{}},
		{"pool", &pb.CreatePoolRequest{Pool: "no dots.here"}},
		{"request_id", &pb.CreatePoolRequest{Pool: "p", RequestId: long}},
		{"reason", &pb.CreatePoolRequest{Pool: "p", Reason: long}},
		{"settings.mode", &pb.CreatePoolRequest{Pool: "p", Settings: &pb.PoolSettings{Mode: 99}}},
		{"settings.hold_down_max", &pb.CreatePoolRequest{Pool: "p", Settings: &pb.PoolSettings{HoldDownMax: seconds(1)}}},
		{"pool", &pb.UpdatePoolRequest{Pool: "_", Settings: settings}},
		{"settings", &pb.UpdatePoolRequest{}},
		{"update_mask", &pb.UpdatePoolRequest{Settings: settings, UpdateMask: mask("name")}},
		{"settings.mode", &pb.UpdatePoolRequest{UpdateMask: mask("mode")}},
		{"settings.probe_interval", &pb.UpdatePoolRequest{UpdateMask: mask("probe_interval")}},
		{"settings.probe_interval", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{ProbeInterval: seconds(0)}}},
		{"settings.probe_interval", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{ProbeInterval: seconds(11)}}},
		{"settings.stall_tolerance", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{StallTolerance: seconds(-1)}}},
		{"settings.removal_grace", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{RemovalGrace: seconds(601)}}},
		{"settings.hold_down", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{HoldDown: seconds(3601)}}},
		{"settings.hold_down_max", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{HoldDownMax: seconds(1 << 40)}}},
		{"settings.hold_down_loss", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{HoldDownLoss: seconds(3601)}}},
		{"settings.brake_window", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{BrakeWindow: seconds(0)}}},
		{"settings.brake_percent", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{BrakePercent: &tooMuch}}},
		{"settings.brake_rack_percent", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{BrakeRackPercent: &tooMuch}}},
		{"settings.brake_zone_percent", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{BrakeZonePercent: &tooMuch}}},
		{"settings.floor_percent", &pb.UpdatePoolRequest{Settings: &pb.PoolSettings{FloorPercent: &tooMuch}}},
		{"settings.held_percent", &pb.CreatePoolRequest{Pool: "p", Settings: &pb.PoolSettings{HeldPercent: &tooMuch}}},
		{"settings.brake_least", &pb.UpdatePoolRequest{Settings: settings, UpdateMask: mask("brake_least")}},
		{"settings.brake_percent", &pb.UpdatePoolRequest{UpdateMask: mask("brake_percent")}},
		{"request_id", &pb.UpdatePoolRequest{Settings: settings, RequestId: "a\nb"}},
		{"reason", &pb.UpdatePoolRequest{Settings: settings, Reason: "\x07"}},
		{"pool", &pb.ListServersRequest{Pool: "A"}},
		{"phases", &pb.ListServersRequest{Phases: []pb.Phase{0}}},
		{"phases", &pb.ListServersRequest{Phases: []pb.Phase{42}}},
		{"page_size", &pb.ListServersRequest{PageSize: -7}},
		{"page_token", &pb.ListServersRequest{PageToken: "x"}},
		{"pool", &pb.ListIntentsRequest{Pool: "A"}},
		{"page_size", &pb.ListIntentsRequest{PageSize: 1001}},
		{"page_token", &pb.ListIntentsRequest{PageToken: "x"}},
		{"pool", &pb.GetServerRequest{Pool: "A", ServerId: "a"}},
		{"server_id", &pb.GetServerRequest{}},
		{"server_id", &pb.GetServerRequest{ServerId: "../etc"}},
		{"server_id", &pb.UpdateServerRequest{Spec: spec, UpdateMask: mask("zone")}},
		{"update_mask", &pb.UpdateServerRequest{ServerId: "a", Spec: spec}},
		{"update_mask", &pb.UpdateServerRequest{ServerId: "a", Spec: spec, UpdateMask: mask("spec.zone")}},
		{"spec.probe", &pb.UpdateServerRequest{ServerId: "a", Spec: &pb.ServerSpec{Probe: "x"}, UpdateMask: mask("probe")}},
		{"spec.probe_addresses", &pb.UpdateServerRequest{
			ServerId: "a", Spec: &pb.ServerSpec{ProbeAddresses: []string{"127.0.0.1"}}, UpdateMask: mask("probe_addresses"),
		}},
		{"reason", &pb.UpdateServerRequest{ServerId: "a", Spec: spec, UpdateMask: mask("zone"), Reason: long}},
		{"server_id", &pb.RemoveServerRequest{}},
		{"pool", &pb.RemoveServerRequest{Pool: "-", ServerId: "a"}},
		{"request_id", &pb.RemoveServerRequest{ServerId: "a", RequestId: long}},
		{"request_id", &pb.RemoveServerRequest{ServerId: "a", RequestId: "x "}},
		{"server_id", &pb.SetIntentRequest{Wish: pb.Wish_WISH_DRAIN}},
		{"wish", &pb.SetIntentRequest{ServerId: "a"}},
		{"wish", &pb.SetIntentRequest{ServerId: "a", Wish: 77}},
		{"expires_in", &pb.SetIntentRequest{ServerId: "a", Wish: pb.Wish_WISH_DRAIN, ExpiresIn: seconds(-1)}},
		{"expires_in", &pb.SetIntentRequest{ServerId: "a", Wish: pb.Wish_WISH_DRAIN, ExpiresIn: seconds(0)}},
		{"expires_in", &pb.SetIntentRequest{ServerId: "a", Wish: pb.Wish_WISH_ACTIVE, ExpiresIn: seconds(1)}},
		{"pool", &pb.GetRingRequest{Pool: "A"}},
		{"pool", &pb.CheckRingRequest{Pool: "A"}},
		{"pool", &pb.ListEventsRequest{Pool: "A"}},
		{"server_id", &pb.ListEventsRequest{ServerId: "A"}},
		{"kinds", &pb.ListEventsRequest{Kinds: []string{"exploded"}}},
		{"page_size", &pb.ListEventsRequest{PageSize: 5000}},
		{"page_token", &pb.ListEventsRequest{PageToken: "zzz"}},
		{"pool", &pb.WatchEventsRequest{Pool: "A"}},
		{"pool", &pb.ExplainServerRequest{Pool: "A", ServerId: "a"}},
		{"server_id", &pb.ExplainServerRequest{}},
		{"limit", &pb.ExplainServerRequest{ServerId: "a", Limit: -1}},
		{"limit", &pb.ExplainServerRequest{ServerId: "a", Limit: 101}},
		{"pool", &pb.GetBrakeRequest{Pool: "A"}},
		{"pool", &pb.ReleaseBrakeRequest{Pool: "A"}},
		{"server_ids", &pb.ReleaseBrakeRequest{ServerIds: []string{"web-1", "A"}}},
		{"server_ids", &pb.ReleaseBrakeRequest{ServerIds: make([]string, 10_001)}},
		{"reason", &pb.ReleaseBrakeRequest{Reason: long}},
		{"request_id", &pb.ReleaseBrakeRequest{RequestId: " x"}},
		{"pool", &pb.ListAlarmsRequest{Pool: "A"}},
		{"page_size", &pb.ListRoutersRequest{PageSize: -1}},
		{"page_token", &pb.ListRoutersRequest{PageToken: "x"}},
		{"pool", &pb.ListSessionsRequest{Pool: "A"}},
		{"page_size", &pb.ListSessionsRequest{PageSize: -1}},
	}
	synctest.Test(t, func(t *testing.T) {
		w := start(t, newTable())
		w.join("web-1", "web-2", "web-3")
		before := ringOf(t, w).GetRevision()
		for _, c := range cases {
			err := ask(t.Context(), w, c.req)
			var wrong *member.FieldError
			if !errors.As(err, &wrong) || wrong.Field != c.field {
				t.Errorf("%T{%v}: error is %v, not about %s", c.req, c.req, err, c.field)
			}
		}
		for _, req := range []proto.Message{
			&pb.GetPoolRequest{Pool: "nowhere"}, &pb.UpdatePoolRequest{Pool: "nowhere", Settings: settings},
			&pb.ListServersRequest{Pool: "nowhere"}, &pb.GetServerRequest{ServerId: "nobody"},
			&pb.ListIntentsRequest{Pool: "nowhere"},
			&pb.UpdateServerRequest{ServerId: "nobody", Spec: spec, UpdateMask: mask("zone")},
			&pb.RemoveServerRequest{ServerId: "nobody"}, &pb.GetRingRequest{Pool: "nowhere"},
			&pb.SetIntentRequest{Pool: "nowhere", ServerId: "a", Wish: pb.Wish_WISH_DRAIN},
			&pb.CheckRingRequest{Pool: "nowhere"}, &pb.ListEventsRequest{Pool: "nowhere"},
			&pb.WatchEventsRequest{Pool: "nowhere"}, &pb.ExplainServerRequest{ServerId: "nobody"},
			&pb.GetBrakeRequest{Pool: "nowhere"}, &pb.ReleaseBrakeRequest{Pool: "nowhere"},
			&pb.ListAlarmsRequest{Pool: "nowhere"}, &pb.ListSessionsRequest{Pool: "nowhere"},
		} {
			if err := ask(t.Context(), w, req); !errors.Is(err, member.ErrNotFound) {
				t.Errorf("%T{%v}: error is %v", req, req, err)
			}
		}
		if after := ringOf(t, w).GetRevision(); after != before {
			t.Errorf("revision %d became %d", before, after)
		}
	})
}

// ask calls the RPC that a request belongs to.
func ask(ctx context.Context, w *world, req proto.Message) error {
	if watch, ok := req.(*pb.WatchEventsRequest); ok {
		stream, err := w.admin.WatchEvents(ctx, watch)
		if err != nil {
			return err
		}
		return endOf(stream.Recv)
	}
	name := string(req.ProtoReflect().Descriptor().Name())
	return w.adminConn.Invoke(ctx, "/buddyring.coordinator.v1.AdminService/"+strings.TrimSuffix(name, "Request"), req, &emptypb.Empty{})
}
