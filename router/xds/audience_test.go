package xds

import (
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/buddyring/buddyring/internal/quota"
)

// Only those are given up that have neither caught up nor gone, wherever they stand
// among those who were waited for.
func TestWhoHasCaughtUpIsNotGivenUp(t *testing.T) {
	t.Parallel()
	a := newAudience(quota.Halves(100), quota.Halves(100))
	d := &Door{audience: a}
	stream := func(settled uint64) waitedFor {
		s := &stream{door: d, from: source(1), types: map[string]*subscription{resource.EndpointType: {settled: settled}}}
		if err := a.join(s); err != nil {
			t.Fatal(err)
		}
		return waitedFor{s, 5}
	}
	early, silent, late, gone := stream(5), stream(3), stream(6), stream(3)
	a.leave(gone.stream)
	behind := a.prune([]waitedFor{early, silent, late, gone})
	if len(behind) != 2 {
		t.Errorf("%d are waited for", len(behind))
	}
	if n := a.giveUp(behind); n != 1 || len(a.laggards) != 1 {
		t.Errorf("%d are given up, %d are laggards", n, len(a.laggards))
	}
	if _, ok := a.laggards[silent.stream]; !ok {
		t.Error("it is another one")
	}
}
