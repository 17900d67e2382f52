package server

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// refused fails unless an error says which field is wrong.
func refused(t *testing.T, err error) {
	t.Helper()
	var wrong *member.FieldError
	if !errors.As(err, &wrong) || wrong.Field == "" || wrong.Problem == "" {
		t.Fatalf("refused with %v", err)
	}
}

// Whatever an agent sends is refused by name or is within the limits.
func FuzzSession(f *testing.F) {
	for _, m := range []proto.Message{
		&pb.SessionRequest{Message: &pb.SessionRequest_Hello{Hello: &pb.Hello{
			Pool: "default", ServerId: "web-1", BootId: "b", InstanceId: "i", Spec: &pb.ServerSpec{
				ProbeAddresses: []string{"10.0.0.1", "fd00::1"}, Probe: "tcp://:80", Zone: "a", Labels: map[string]string{"k": "v"},
				Endpoints: []*pb.Endpoint{{Name: "http", Address: "web-1:80", Protocol: "http"}},
			},
		}}},
		&pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{Subjects: []*pb.SubjectDigest{
			{ServerId: "web-2", Incarnation: 1, Evidence: &pb.Evidence{Sight: pb.Sight_SIGHT_DOWN, Sent: 3, Lost: 3}},
		}}}},
		&pb.SessionRequest{Message: &pb.SessionRequest_Leave{Leave: &pb.Leave{Incarnation: 1}}},
	} {
		seed, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	from := peerInfo{address: "10.0.0.9:1", ip: netip.MustParseAddr("10.0.0.9")}
	f.Fuzz(func(t *testing.T, data []byte) {
		req := &pb.SessionRequest{}
		if proto.Unmarshal(data, req) != nil {
			return
		}
		if h := req.GetHello(); h != nil {
			g, err := parseHello(h, from, false)
			if err != nil {
				refused(t, err)
				return
			}
			if err := member.CheckSpec("spec", g.hello.Spec); err != nil {
				t.Fatalf("accepted a spec with %v", err)
			}
			for _, a := range g.hello.Spec.ProbeAddresses {
				if a.IsLoopback() || !a.IsGlobalUnicast() {
					t.Fatalf("accepted the address %s", a)
				}
			}
			return
		}
		in, err := parseMessage(1, req)
		if err != nil {
			refused(t, err)
			return
		}
		if r, ok := in.(pool.Report); ok && (r.Evidence.Lost > r.Evidence.Sent || r.Evidence.RTT < 0 || r.Incarnation == 0) {
			t.Fatalf("accepted %+v", r)
		}
	})
}

func FuzzSubscribe(f *testing.F) {
	f.Add([]byte("\x0a\x04\x0a\x02r1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		req := &pb.SubscribeRequest{}
		if proto.Unmarshal(data, req) != nil {
			return
		}
		if h := req.GetHello(); h != nil {
			if s, err := parseSubscribe(h, peerInfo{}); err != nil {
				refused(t, err)
			} else if s.router == "" || len(s.resume) > maxPools {
				t.Fatalf("accepted %+v", s)
			}
		}
		if a := req.GetAck(); a != nil {
			if _, err := parseAck(a); err != nil {
				refused(t, err)
			}
		}
	})
}

func FuzzPageToken(f *testing.F) {
	f.Add("", int32(0))
	f.Add(page{filter: fingerprint(&pb.ListEventsRequest{}, "page_size", "page_token")}.token("7.1"), int32(5))
	f.Fuzz(func(t *testing.T, token string, size int32) {
		q, p, err := parseEventQuery("p", &pb.ListEventsRequest{PageToken: strings.ToValidUTF8(token, ""), PageSize: size})
		if err != nil {
			refused(t, err)
			return
		}
		if p.size < 1 || p.size > largestPage || q.Limit != p.size+1 || q.Before != nil && q.Before.Seq < 0 {
			t.Fatalf("accepted %+v as %+v", p, q)
		}
	})
}
