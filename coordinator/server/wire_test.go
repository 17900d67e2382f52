package server

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/buddyring/buddyring/coordinator/pool"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// usual are the messages that agents send all the time, with all that is in them
// then.
func usual(t testing.TB) map[string][]byte {
	t.Helper()
	evidence := func(sight pb.Sight, connect pb.Connect) *pb.Evidence {
		return &pb.Evidence{
			Sight: sight, Sent: 10, Lost: 3, Rtt: durationpb.New(300 * time.Microsecond), FirstLostAge: durationpb.New(2 * time.Second),
			LastReplyAge: durationpb.New(0), Connect: connect,
		}
	}
	messages := map[string][]byte{}
	for name, m := range map[string]*pb.SessionRequest{
		"report": {Message: &pb.SessionRequest_Report{Report: &pb.Report{
			ServerId: "web-1.example", Incarnation: 7, Evidence: evidence(pb.Sight_SIGHT_DOWN, pb.Connect_CONNECT_UNANSWERED), LostOfTen: 3,
		}}},
		"digest": {Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{
			Seq: 300, SelfScore: 2, ServiceHealth: &pb.ServiceHealth{Incarnation: 5, State: pb.ServiceState_SERVICE_STATE_UP},
			Subjects: []*pb.SubjectDigest{
				{ServerId: "web-1", Incarnation: 1 << 40, Evidence: evidence(pb.Sight_SIGHT_UP, 0), Jitter: durationpb.New(time.Millisecond)},
				{ServerId: "web-2", Incarnation: 9, Evidence: evidence(pb.Sight_SIGHT_CANNOT_JUDGE, pb.Connect_CONNECT_ANSWERED), LostOfTen: 10},
			},
		}}},
		"first digest":   {Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{}}},
		"assignment ack": {Message: &pb.SessionRequest_AssignmentAck{AssignmentAck: &pb.AssignmentAck{Seq: 4}}},
	} {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		messages[name] = raw
	}
	return messages
}

// slow decodes by the packages for that.
func slow(raw []byte) (heard, error) {
	req := &pb.SessionRequest{}
	if err := proto.Unmarshal(raw, req); err != nil {
		return heard{}, err
	}
	in, err := parseMessage(1, req)
	return heard{input: in, digest: req.GetDigest().GetSeq(), isDigest: req.GetDigest() != nil}, err
}

var heards = cmp.AllowUnexported(heard{})

func TestUsualMessagesAreDecodedQuickly(t *testing.T) {
	t.Parallel()
	for name, raw := range usual(t) {
		got, ok := quick(1, raw, &names{})
		if !ok {
			t.Errorf("the %s is left to others", name)
		}
		want, err := slow(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, heards); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What is decoded quickly is what the packages for that would have made of it, and
// never what they would have refused.
func FuzzQuick(f *testing.F) {
	for _, raw := range usual(f) {
		f.Add(raw)
	}
	// A message in two parts is put together, a field that comes twice counts once.
	twice := protowire.AppendBytes(protowire.AppendTag(nil, requestAssignmentAck, protowire.BytesType), []byte{0x08, 1, 0x08, 2})
	f.Add(twice)
	for _, number := range []protowire.Number{requestReport, requestDigest, requestAssignmentAck} {
		f.Add(protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), 7))
	}
	f.Add(append(twice, twice...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var known names
		got, ok := quick(1, raw, &known)
		if !ok {
			return
		}
		if again, ok := quick(1, raw, &known); !ok || !cmp.Equal(got, again, heards) {
			t.Errorf("%x is %v, and then %v", raw, got, again)
		}
		want, err := slow(raw)
		if err != nil {
			t.Fatalf("accepted %x, which is refused: %v", raw, err)
		}
		if diff := cmp.Diff(want, got, heards); diff != "" {
			t.Errorf("%x (-want +got):\n%s", raw, diff)
		}
	})
}

// What the quick way does not know goes the other way.
func TestUnusualMessagesAreDecodedToo(t *testing.T) {
	t.Parallel()
	raw, err := proto.Marshal(&pb.SessionRequest{Message: &pb.SessionRequest_Digest{Digest: &pb.Digest{Seq: 9, StateTrouble: "disk full"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := quick(1, raw, &names{}); ok {
		t.Error("trouble was decoded quickly")
	}
	got, err := decode(1, raw, &names{})
	want := heard{input: pool.Digest{Session: 1, StateTrouble: "disk full"}, digest: 9, isDigest: true}
	if diff := cmp.Diff(want, got, heards); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := decode(1, []byte("garbage"), &names{}); err == nil {
		t.Error("garbage was accepted")
	} else {
		refused(t, err)
	}
}

// The names that an agent has used last are known, and others are still told apart.
func TestNamesAreReadAnewWhenTheyAreOthers(t *testing.T) {
	t.Parallel()
	var known names
	for _, name := range []string{"web-1", "web-2", "web-1", "web-3", "web-1", "web-2", "web", "web-22"} {
		if id, ok := known.read([]byte(name)); !ok || string(id) != name {
			t.Errorf("%s is read as %q, %t", name, id, ok)
		}
	}
	for _, name := range []string{"", "web 1", "web-2\n"} {
		if id, ok := known.read([]byte(name)); ok {
			t.Errorf("%q is read as %s", name, id)
		}
	}
}

func BenchmarkDecodeDigest(b *testing.B) {
	raw, known := usual(b)["digest"], names{}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := quick(1, raw, &known); !ok {
			b.Fatal("it is left to others")
		}
	}
}

func TestDigestAckIsWhatAnAgentExpects(t *testing.T) {
	t.Parallel()
	for _, seq := range []uint64{0, 1, 300, 1 << 63} {
		got := &pb.SessionResponse{}
		if err := proto.Unmarshal(encodeDigestAck(7, seq), got); err != nil {
			t.Fatal(err)
		}
		want := &pb.SessionResponse{Epoch: 7, Message: &pb.SessionResponse_DigestAck{DigestAck: &pb.DigestAck{Seq: seq}}}
		if !proto.Equal(want, got) {
			t.Errorf("%d: %v", seq, got)
		}
	}
}
