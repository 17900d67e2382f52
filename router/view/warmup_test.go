package view_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

const window = 100 * time.Second

func epoch() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// states returns a table of servers of weight 100 by their states; "-" is one
// that is not there.
func states(marks string) *view.Table {
	var entries []view.Entry
	for i, m := range marks {
		state, ok := map[rune]view.State{
			'a': view.StateActive, 's': view.StateSuspect, 'd': view.StateServiceDown, 'h': view.StateHeldBack,
		}[m]
		if ok {
			entries = append(entries, view.Entry{Server: server(member.ID(fmt.Sprintf("s%02d", i))), State: state})
		}
	}
	return view.NewTable(entries)
}

// shareOf measures what a server of the table gets, relative to s00.
func shareOf(t *view.Table, id member.ID) float64 {
	picked := tally(t, view.Request{Policy: view.RoundRobin}, 1000*len(t.Entries()))
	i, _ := t.Find(id)
	j, _ := t.Find("s00")
	return float64(picked[i]) / float64(picked[j])
}

func TestWarmup_RisesToTheWholeWeight(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]string{
		"joined": "aa-", "back from a removal": "aah", "service well again": "aad",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := view.NewWarmup(window).Follow(states("aaa"), epoch()).Follow(states(before), epoch()).Follow(states("aaa"), epoch())
			for seconds, want := range map[int]float64{
				0: 0.1, 9: 0.1, 19: 0.1, 20: 0.2, 25: 0.2, 50: 0.5, 99: 0.9, 100: 1, 1000: 1, -5: 0.1,
			} {
				got := shareOf(w.Advance(epoch().Add(time.Duration(seconds)*time.Second)).Table(), "s02")
				if math.Abs(got-want) > 0.02 {
					t.Errorf("after %d s it gets %.3f, want %.1f", seconds, got, want)
				}
			}
		})
	}
}

func TestWarmup_IsForThoseWhoAreNew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tables []string
		want   float64
	}{
		"the first table":          {[]string{"aaa"}, 1},
		"a suspicion that passed":  {[]string{"aaa", "aas", "aaa"}, 1},
		"suspect while warming up": {[]string{"aa-", "aaa", "aas", "aaa"}, 0.1},
		"back a second time":       {[]string{"aa-", "aaa", "aa-", "aaa"}, 0.1},
		"from suspect to removed":  {[]string{"aas", "aa-", "aaa"}, 0.1},
		"all are new":              {[]string{"---", "aaa"}, 1},
		"all who are active are":   {[]string{"s--", "saa"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := view.NewWarmup(window)
			for _, marks := range c.tables {
				w = w.Follow(states(marks), epoch())
			}
			i, _ := w.Table().Find("s01")
			if w.Table().Entries()[i].State != view.StateActive {
				t.Fatal("s01 is not ACTIVE")
			}
			picked := tally(w.Table(), view.Request{Policy: view.RoundRobin}, 3000)
			j, _ := w.Table().Find("s02")
			if got := float64(picked[j]) / float64(picked[i]); math.Abs(got-c.want) > 0.02 {
				t.Errorf("s02 gets %.3f of what s01 gets, want %.1f", got, c.want)
			}
		})
	}
}

// A server that joined again while it was new starts from the beginning; one
// that stayed goes on.
func TestWarmup_KeepsTimeByIncarnation(t *testing.T) {
	t.Parallel()
	later := epoch().Add(50 * time.Second)
	again := states("aaa")
	rejoined := *again.Entries()[2].Server
	rejoined.Incarnation++
	again = view.NewTable(append(states("aa").Entries(), view.Entry{Server: &rejoined}))
	w := view.NewWarmup(window).Follow(states("aa"), epoch()).Follow(states("aaa"), epoch())
	if got := shareOf(w.Follow(states("aaa"), later).Table(), "s02"); math.Abs(got-0.5) > 0.02 {
		t.Errorf("who stayed gets %.3f, want 0.5", got)
	}
	if got := shareOf(w.Follow(again, later).Table(), "s02"); math.Abs(got-0.1) > 0.02 {
		t.Errorf("who joined again gets %.3f, want 0.1", got)
	}
}

func TestWarmup_WithoutWindowIsNone(t *testing.T) {
	t.Parallel()
	after := states("aaa")
	if w := view.NewWarmup(0).Follow(states("aa"), epoch()).Follow(after, epoch()); w.Table() != after || w.Advance(epoch()) != w {
		t.Error("the table is not the pool's own")
	}
}

// A weight is a whole number, and none stays none.
func TestWarmup_WeighsAtLeastOne(t *testing.T) {
	t.Parallel()
	for whole, want := range map[uint32]uint32{0: 0, 1: 1, 9: 1, 25: 2, 100: 10} {
		light := *server("new")
		light.Weight = whole
		old := view.Entry{Server: server("old")}
		w := view.NewWarmup(window).Follow(view.NewTable([]view.Entry{old}), epoch())
		w = w.Follow(view.NewTable([]view.Entry{old, {Server: &light}}), epoch())
		i, _ := w.Table().Find("new")
		if got := w.Table().Entries()[i].Server.Weight; got != want || light.Weight != whole {
			t.Errorf("weight %d begins with %d, want %d", whole, got, want)
		}
	}
}

// The servers, and with them the indexes, are those of the pool's table, and the
// same is returned as long as no weight changes.
func TestWarmup_ChangesWeightsOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w, now := view.NewWarmup(window), epoch()
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
			marks := rapid.StringOfN(rapid.RuneFrom([]rune("aaaash-d")), 0, 6, -1).Draw(t, "states")
			table := states(marks)
			w = w.Follow(table, now)
			if got := withoutWeights(w.Table()); got != withoutWeights(table) {
				t.Fatalf("entries %v, want %v", got, withoutWeights(table))
			}
			if w.Advance(now) != w {
				t.Fatal("advanced though no time has passed")
			}
			if done := w.Advance(now.Add(window)); done.Table() != table {
				t.Fatal("not the pool's own table after the window")
			}
		}
	})
}

// withoutWeights are the entries as text.
func withoutWeights(t *view.Table) string {
	var text strings.Builder
	for _, e := range t.Entries() {
		s := *e.Server
		s.Weight = 0
		fmt.Fprintf(&text, "%v %+v\n", e.State, s)
	}
	return text.String()
}
