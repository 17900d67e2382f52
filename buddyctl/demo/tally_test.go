package demo

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTally(t *testing.T) {
	t.Parallel()
	zero := time.Unix(1000, 0)
	at := func(n int) time.Time { return zero.Add(time.Duration(n) * time.Millisecond) }
	a1, a2, b := membership{"a", 1}, membership{"a", 7}, membership{"b", 2}
	broken := errors.New("no answer")
	requests := []request{
		{began: at(-5), picked: at(-4), to: a1},
		{began: at(0), picked: at(1), to: a1},
		{began: at(9), picked: at(12), to: a1, err: broken},
		{began: at(10), picked: at(11), to: b},
		{began: at(19), picked: at(21), to: a1, err: broken}, // begun before the router had confirmed
		{began: at(21), picked: at(22), to: a1, err: broken},
		{began: at(25), picked: at(26), to: a2},
		{began: at(30), picked: at(31), err: errors.New("the router is busy")},
	}
	got := tally(requests, []mark{{"first", at(0)}, {"second", at(10)}, {"empty", at(40)}})
	want := []Phase{{"first", 2, 1}, {"second", 5, 3}, {"empty", 0, 0}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("tally (-want +got):\n%s", d)
	}
	if n := sentAfter(requests, []removal{{a1, at(20)}}); n != 1 {
		t.Errorf("sent after the removal: %d, want 1", n)
	}
	if last := lastPick(requests, a1, at(0)); !last.Equal(at(22)) {
		t.Errorf("last pick at %v, want %v", last, at(22))
	}
	if last := lastPick(requests, b, at(11)); !last.IsZero() {
		t.Errorf("last pick of b since its only one: %v", last)
	}
	if ok, failed := served(requests, a1, at(0), at(20)); ok != 1 || failed != 2 {
		t.Errorf("served %d, failed %d, want 1 and 2", ok, failed)
	}
}

func TestNeighboursMet(t *testing.T) {
	t.Parallel()
	of := func(first, second string) *Buddies { return &Buddies{first, second} }
	gone := Row{"b", of("c", "a"), nil}
	for name, c := range map[string]struct {
		rows []Row
		ok   bool
	}{
		"closed":              {[]Row{{"a", of("b", "d"), of("c", "d")}, gone, {"c", of("d", "b"), of("d", "a")}}, true},
		"three become two":    {[]Row{{"a", of("b", "c"), of("c", "c")}, gone, {"c", of("a", "b"), of("a", "a")}}, true},
		"not gone":            {[]Row{{"a", of("b", "d"), of("c", "d")}}, false},
		"not closed":          {[]Row{gone}, false},
		"one side only":       {[]Row{{"a", of("b", "d"), of("c", "d")}, gone}, false},
		"wrong buddy":         {[]Row{{"a", of("b", "d"), of("d", "d")}, gone, {"c", of("d", "b"), of("d", "a")}}, false},
		"another row as well": {[]Row{{"a", of("b", "d"), of("c", "d")}, gone, {"c", of("d", "b"), of("d", "a")}, {"d", of("a", "c"), of("c", "a")}}, false},
	} {
		if err := neighboursMet(&Departure{Server: "b", Rows: c.rows}); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSteadyEye(t *testing.T) {
	t.Parallel()
	var s sight
	if _, ok := s.routing(membership{"a", 1}); ok {
		t.Error("an unknown server is routed to")
	}
	if d := cmp.Diff([]string{}, s.removed(0), cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
}
