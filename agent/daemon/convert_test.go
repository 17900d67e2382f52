package daemon

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestBadMessagesNameTheField(t *testing.T) {
	t.Parallel()
	subject := func(change func(*pb.Subject)) *pb.Assignment {
		s := subjectOf("a", addrA)
		change(s)
		return assignmentOf(1, s)
	}
	good := &pb.Welcome{Incarnation: 1, StoreId: testStore}
	if _, err := parseWelcome(good); err != nil {
		t.Errorf("a Welcome without anything optional: %v", err)
	}
	for _, c := range []struct {
		field string
		w     *pb.Welcome
	}{
		{"welcome.incarnation", &pb.Welcome{StoreId: testStore}},
		{"welcome.store_id", &pb.Welcome{Incarnation: 1}},
		{"assignment.probe_interval", &pb.Welcome{Incarnation: 1, StoreId: testStore, Assignment: &pb.Assignment{ProbeInterval: durationpb.New(0)}}},
		{"assignment.subjects", &pb.Welcome{Incarnation: 1, StoreId: testStore, Assignment: assignmentOf(1, make([]*pb.Subject, maxSubjects+1)...)}},
		{"assignment.subjects.server_id", &pb.Welcome{Incarnation: 1, StoreId: testStore, Assignment: subject(func(s *pb.Subject) { s.ServerId = "A" })}},
		{"assignment.subjects.incarnation", &pb.Welcome{Incarnation: 1, StoreId: testStore, Assignment: subject(func(s *pb.Subject) { s.Incarnation = 0 })}},
		{"assignment.subjects.probe", &pb.Welcome{Incarnation: 1, StoreId: testStore, Assignment: subject(func(s *pb.Subject) { s.Probe = "udp" })}},
		{"assignment.subjects.probe_addresses", &pb.Welcome{Incarnation: 1, StoreId: testStore, Assignment: subject(func(s *pb.Subject) { s.ProbeAddresses = []string{"x"} })}},
		{"assignment.subjects.probe_addresses", &pb.Welcome{Incarnation: 1, StoreId: testStore, Assignment: subject(func(s *pb.Subject) { s.ProbeAddresses = make([]string, 9) })}},
	} {
		_, err := parseWelcome(c.w)
		var bad *member.FieldError
		if !errors.As(err, &bad) || bad.Field != c.field {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}

func TestWelcomeIsBroughtWithinBounds(t *testing.T) {
	t.Parallel()
	w, err := parseWelcome(&pb.Welcome{
		Incarnation: 1, StoreId: testStore, ReconnectSpread: durationpb.New(1000 * time.Hour), DigestInterval: durationpb.New(1),
		Coordinators: append(make([]string, 3), "c:1"),
		Assignment:   &pb.Assignment{ProbeInterval: durationpb.New(time.Nanosecond)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if w.spread != maxSpread || w.digestEvery != minDigestEvery || w.assignment.Period != minPeriod || len(w.coordinators) != 1 {
		t.Errorf("%+v", w)
	}
}

// TestTextsFitTheWire: a coordinator refuses control characters and more than
// 256 bytes.
func TestTextsFitTheWire(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := printable(rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
			rapid.Map(rapid.IntRange(0, 200), func(n int) string { return strings.Repeat("äöü\n", n) })).Draw(t, "text"))
		if len(s) > maxTroubleBytes || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%q", s)
		}
	})
}

func TestUnknownSubjectsAreNotInADigest(t *testing.T) {
	t.Parallel()
	d := toDigest(1, sighting{views: []detector.View{{Key: detector.Key{ID: "a", Incarnation: 1}}}}, nil).GetDigest()
	if len(d.GetSubjects()) != 0 {
		t.Errorf("%v", d)
	}
}
