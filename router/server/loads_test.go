package server

import (
	"testing"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

func tableOf(ids ...member.ID) *view.Table {
	entries := make([]view.Entry, len(ids))
	for i, id := range ids {
		entries[i].Server = &view.Server{ID: id, Weight: 100, Endpoints: []member.Endpoint{{Address: "192.0.2.1:80"}}}
	}
	return view.NewTable(entries)
}

func TestLoads_FadeAndFollowTheirServers(t *testing.T) {
	t.Parallel()
	counts := newPickCounts()
	before := counts.loadsOf(tableOf("a", "b"))
	before.counts[0].Add(9)
	before.counts[1].Add(1)
	after := counts.loadsOf(tableOf("0", "b", "c"))
	before.counts[1].Add(7) // by a pick that still uses the old table
	for i, want := range []uint64{0, 8, 0} {
		if got := after.Load(i); got != want {
			t.Errorf("load %d is %d, want %d", i, got, want)
		}
	}
	for _, want := range []uint64{4, 2, 1, 0, 0} {
		counts.decay()
		if got := after.Load(1); got != want {
			t.Errorf("faded to %d, want %d", got, want)
		}
	}
	if _, ok := counts.byID["a"]; ok {
		t.Error("the count of a server that left is kept")
	}
}
