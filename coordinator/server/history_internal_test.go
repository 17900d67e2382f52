package server

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Rows show what is wished, also by intents that are older than this leader; and
// rows that were given out stay as they were.
func TestHistoryShowsWishes(t *testing.T) {
	t.Parallel()
	h := newHistory(member.PoolState{
		Name: "p", Position: member.Position{Epoch: 1, Revision: 1}, Servers: []member.Server{row("a", 1, 1)},
		Intents: []member.Intent{{ID: "a", Wish: member.WishDrain}},
	}, newBell())
	steps := []struct {
		change member.Change
		want   pb.Wish
	}{
		{member.Change{}, pb.Wish_WISH_DRAIN},
		{member.Change{Put: []member.Server{row("a", 1, 2)}}, pb.Wish_WISH_DRAIN},
		{member.Change{Intents: []member.Intent{{ID: "a", Wish: member.WishMaintenance}}}, pb.Wish_WISH_MAINTENANCE},
		{member.Change{Put: []member.Server{row("a", 1, 3)}}, pb.Wish_WISH_MAINTENANCE},
		{member.Change{Forget: []member.ID{"a"}}, pb.Wish_WISH_ACTIVE},
		{member.Change{Put: []member.Server{row("a", 1, 4)}}, pb.Wish_WISH_ACTIVE},
	}
	var shown []*pb.Server
	for i, s := range steps {
		s.change.Pool, s.change.Base = "p", h.head()
		h.publish(s.change, time.Time{})
		rows := h.snapshot().pack().GetSnapshot().GetServers()
		if len(rows) != 1 || rows[0].GetIntent() != s.want {
			t.Errorf("change %d: %v, want %s", i, rows, s.want)
		}
		shown = append(shown, rows...)
	}
	for i, row := range shown {
		if row.GetIntent() != steps[i].want {
			t.Errorf("the row of change %d has become %s", i, row.GetIntent())
		}
	}
}
