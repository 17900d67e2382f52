package coordbench

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

func TestWatchFindsBrokenRings(t *testing.T) {
	t.Parallel()
	row := func(id, first, second string) *pb.Server {
		return &pb.Server{ServerId: id, FirstBuddy: first, SecondBuddy: second}
	}
	snapshot := &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Snapshot{Snapshot: &pb.Snapshot{
		Position: &pb.Position{Revision: 4}, Servers: []*pb.Server{row("a", "b", "b"), row("b", "a", "a")},
	}}}
	delta := func(from, to uint64, put ...*pb.Server) *pb.SubscribeResponse {
		return &pb.SubscribeResponse{Message: &pb.SubscribeResponse_Delta{Delta: &pb.Delta{
			FromRevision: from, Position: &pb.Position{Revision: to}, Put: put,
		}}}
	}
	joined := delta(4, 5, row("c", "b", "a"), row("a", "c", "b"), row("b", "a", "c"))
	for name, tt := range map[string]struct {
		sent      []*pb.SubscribeResponse
		broken    string
		coalesced int
		fails     bool
	}{
		"well":      {sent: []*pb.SubscribeResponse{snapshot, joined}},
		"broken":    {sent: []*pb.SubscribeResponse{snapshot, delta(4, 5, row("c", "b", "a")), delta(5, 6, joined.GetDelta().GetPut()...)}, broken: "revision 5"},
		"coalesced": {sent: []*pb.SubscribeResponse{snapshot, delta(4, 7, joined.GetDelta().GetPut()...)}, coalesced: 2},
		"a gap":     {sent: []*pb.SubscribeResponse{snapshot, delta(5, 6, joined.GetDelta().GetPut()...)}, fails: true},
	} {
		var sent [][]byte
		for _, m := range tt.sent {
			raw, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			sent = append(sent, raw)
		}
		w, err := watch(sent)
		if tt.fails != (err != nil) {
			t.Errorf("%s: error %v", name, err)
		}
		if err != nil {
			continue
		}
		if !strings.HasPrefix(w.broken, tt.broken) || tt.broken == "" && w.broken != "" || w.coalesced != tt.coalesced {
			t.Errorf("%s: broken %q, coalesced %d", name, w.broken, w.coalesced)
		}
	}
}
