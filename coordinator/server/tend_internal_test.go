package server

import (
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// A table that is behind was put back if it stays so, and not if it was so now and
// then: with a lagging node of a cluster and outages in between, the leader goes on.
func TestLagThatLasts(t *testing.T) {
	t.Parallel()
	type look struct {
		at  time.Duration
		err error
	}
	behind, down := store.ErrBehind, member.ErrUnavailable
	for name, c := range map[string]struct {
		looks []look
		want  bool
	}{
		"a moment":                   {[]look{{0, behind}, {3 * time.Second, behind}}, false},
		"as long as a lease":         {[]look{{0, behind}, {2 * time.Second, behind}, {4 * time.Second, behind}}, true},
		"not reached in between":     {[]look{{0, behind}, {time.Second, down}, {5 * time.Second, down}, {10 * time.Second, behind}}, false},
		"not asked in between":       {[]look{{0, behind}, {time.Minute, behind}}, false},
		"and then as long":           {[]look{{0, behind}, {time.Minute, behind}, {62 * time.Second, behind}, {64 * time.Second, behind}}, true},
		"one answer that was lost":   {[]look{{0, behind}, {2 * time.Second, down}, {3 * time.Second, behind}, {5 * time.Second, behind}}, true},
		"caught up in between":       {[]look{{0, behind}, {2 * time.Second, nil}, {3 * time.Second, behind}, {5 * time.Second, behind}}, false},
		"each renewal takes longest": {[]look{{0, behind}, {3 * time.Second, behind}, {6 * time.Second, behind}}, true},
	} {
		var l lag
		var over error
		begin := time.Now()
		for _, look := range c.looks {
			over = l.lasts(look.err, begin.Add(look.at))
		}
		if (over != nil) != c.want {
			t.Errorf("%s: %v", name, over)
		}
	}
}
