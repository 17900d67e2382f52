package coordbench

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// watched is what a subscriber has seen of a pool.
type watched struct {
	rows     map[string]*pb.Server
	revision uint64
	// revisions counts those that it saw each by itself, coalesced those that came
	// together with a later one.
	revisions, coalesced int
	// broken says what is wrong with the first ring that is.
	broken string
}

// watch plays what a subscriber was sent and checks the ring at each revision.
func watch(sent [][]byte) (*watched, error) {
	w := &watched{rows: map[string]*pb.Server{}}
	for _, raw := range sent {
		var m pb.SubscribeResponse
		if err := proto.Unmarshal(raw, &m); err != nil {
			return nil, fmt.Errorf("decode what a subscriber was sent: %w", err)
		}
		switch {
		case m.GetSnapshot() != nil:
			clear(w.rows)
			w.move(m.GetSnapshot().GetPosition(), m.GetSnapshot().GetServers(), nil)
		case m.GetDelta() != nil:
			d := m.GetDelta()
			if d.GetFromRevision() != w.revision {
				return nil, fmt.Errorf("a change from revision %d was sent at revision %d", d.GetFromRevision(), w.revision)
			}
			w.revisions++
			w.coalesced += int(d.GetPosition().GetRevision()-d.GetFromRevision()) - 1
			w.move(d.GetPosition(), d.GetPut(), d.GetRemoved())
		}
	}
	return w, nil
}

func (w *watched) move(to *pb.Position, put []*pb.Server, removed []*pb.RemovedServer) {
	w.revision = to.GetRevision()
	for _, r := range removed {
		delete(w.rows, r.GetServerId())
	}
	for _, s := range put {
		w.rows[s.GetServerId()] = s
	}
	if w.broken != "" {
		return
	}
	rows := make([]ring.Row, 0, len(w.rows))
	for _, s := range w.rows {
		rows = append(rows, ring.Row{ID: member.ID(s.GetServerId()), Buddies: member.Buddies{
			First: member.ID(s.GetFirstBuddy()), Second: member.ID(s.GetSecondBuddy()),
		}})
	}
	if problems := ring.Check(rows); len(problems) > 0 {
		w.broken = fmt.Sprintf("revision %d: %s", w.revision, problems[0])
	}
}
