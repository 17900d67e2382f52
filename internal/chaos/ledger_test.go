package chaos

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/history"
)

// The ledger finds what must not be: a check that cannot fail would be none.
func TestLedgerFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tell func(*ledger)
		rows map[string]uint64
		want [3]int // lost, removed, wrong in the table
	}{
		"joined and there":          {func(l *ledger) { l.welcomed("a", 7, 1, false) }, map[string]uint64{"a": 7}, [3]int{}},
		"joined and gone":           {func(l *ledger) { l.welcomed("a", 7, 1, false) }, nil, [3]int{0, 0, 1}},
		"joined, then another":      {func(l *ledger) { l.welcomed("a", 7, 1, false) }, map[string]uint64{"a": 8}, [3]int{0, 0, 1}},
		"left and gone":             {func(l *ledger) { l.welcomed("a", 7, 1, false); l.left("a") }, nil, [3]int{}},
		"left and there":            {func(l *ledger) { l.welcomed("a", 7, 1, false); l.left("a") }, map[string]uint64{"a": 7}, [3]int{0, 0, 1}},
		"asked to leave":            {func(l *ledger) { l.welcomed("a", 7, 1, false); l.leaving("a") }, nil, [3]int{}},
		"asked to leave, and there": {func(l *ledger) { l.welcomed("a", 7, 1, false); l.leaving("a") }, map[string]uint64{"a": 7}, [3]int{}},
		"resumed":                   {func(l *ledger) { l.welcomed("a", 7, 1, false); l.welcomed("a", 7, 2, true) }, map[string]uint64{"a": 7}, [3]int{}},
		"forgotten by the next leader": {
			func(l *ledger) { l.welcomed("a", 7, 1, false); l.welcomed("a", 9, 2, false) }, map[string]uint64{"a": 9}, [3]int{1, 0, 0},
		},
		"told that it is removed": {func(l *ledger) { l.welcomed("a", 7, 1, false); l.refused("a", errors.New("removed")) }, nil, [3]int{0, 1, 0}},
		"told so after an operator asked for it": {
			func(l *ledger) {
				l.welcomed("web-1", 7, 1, false)
				l.doom("web-1", 7)
				l.refused("web-1", errors.New("removed"))
			}, nil, [3]int{},
		},
		"welcomed anew after an operator asked for it": {
			func(l *ledger) {
				l.welcomed("web-1", 7, 1, false)
				l.doom("web-1", 7)
				l.welcomed("web-1", 9, 1, false)
			}, map[string]uint64{"web-1": 9}, [3]int{},
		},
		"and lost then": {
			func(l *ledger) {
				l.welcomed("web-1", 7, 1, false)
				l.doom("web-1", 7)
				l.welcomed("web-1", 9, 1, false)
			}, nil, [3]int{0, 0, 1},
		},
		"said hello, and there":     {func(l *ledger) { l.asking("a") }, map[string]uint64{"a": 7}, [3]int{}},
		"said hello, and not there": {func(l *ledger) { l.asking("a") }, nil, [3]int{}},
		"told so after it asked to leave": {
			func(l *ledger) { l.welcomed("a", 7, 1, false); l.leaving("a"); l.refused("a", errors.New("removed")) }, nil, [3]int{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger()
			c.tell(l)
			if diff := cmp.Diff(c.want, [3]int{len(l.lost), len(l.removed), len(l.compare(c.rows))}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestOperatorTakesOutThoseThatComeAndGo(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.welcomed(wavePrefix+"1", 7, 1, false)
	if id, _, ok := l.anyMember(rand.New(rand.NewPCG(0, 0))); ok {
		t.Errorf("%s of a wave is taken out", id)
	}
	l.welcomed(serverPrefix+"1", 8, 1, false)
	l.asking(serverPrefix + "2")
	if id, incarnation, ok := l.anyMember(rand.New(rand.NewPCG(0, 0))); !ok || id != serverPrefix+"1" || incarnation != 8 {
		t.Errorf("%s, incarnation %d is taken out: %v", id, incarnation, ok)
	}
	if diff := cmp.Diff(map[string]uint64{wavePrefix + "1": 7}, l.members(wavePrefix)); diff != "" {
		t.Errorf("members of the wave (-want +got):\n%s", diff)
	}
}

func TestPlanComesFromTheSeed(t *testing.T) {
	t.Parallel()
	cfg := Config{Kills: 20, Handovers: 5, Stops: 2, Crashes: 3, Cuts: 1, Outages: 4}
	draw := func(seed uint64) []fault { return plan(cfg, rand.New(rand.NewPCG(seed, 0))) }
	if diff := cmp.Diff(draw(1), draw(1)); diff != "" {
		t.Errorf("the same seed, another plan:\n%s", diff)
	}
	if cmp.Equal(draw(1), draw(2)) {
		t.Error("another seed, the same plan")
	}
	counts := map[fault]int{}
	for _, f := range draw(1) {
		counts[f]++
	}
	want := map[fault]int{faultKill: 20, faultHandover: 5, faultStop: 2, faultCrash: 3, faultCut: 1, faultOutage: 4}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Everything that goes wrong counts, in each experiment of a series.
func TestReportsAddUp(t *testing.T) {
	t.Parallel()
	kinds := len(new(Report).wrongs())
	total := newReport(Config{Seed: 1})
	for kind := range kinds {
		one := newReport(Config{Seed: uint64(2 + kind)})
		one.Failover, one.Joins, one.History.Messages, one.Orders[history.Drain] = Times{time.Second}, 1, 1, 1
		what := one.wrongs()[kind].what
		*what = append(*what, "something")
		total.Add(one)
	}
	if total.Wrong() != kinds || len(total.Failover) != kinds || total.Joins != kinds || total.History.Messages != kinds || total.Orders[history.Drain] != kinds || len(total.Seeds) != kinds+1 {
		t.Errorf("%+v", total)
	}
}

func TestFirstSessionAfterAnEpoch(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.welcomed("a", 1, 3, false)
	_, news, ok := l.acceptedAfter(3)
	if ok {
		t.Fatal("a session of the same epoch counts")
	}
	l.welcomed("b", 2, 5, false)
	<-news
	first, _, ok := l.acceptedAfter(3)
	l.welcomed("c", 3, 5, false)
	if again, _, _ := l.acceptedAfter(3); !ok || !again.Equal(first) {
		t.Errorf("%v, then %v", first, again)
	}
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	var none, many Times
	for i := range 100 {
		many = append(many, time.Duration(100-i)*time.Second)
	}
	for _, c := range []struct {
		times Times
		share float64
		want  time.Duration
	}{
		{none, .5, 0},
		{Times{time.Second}, .99, time.Second},
		{many, .5, 51 * time.Second},
		{many, .99, 100 * time.Second},
		{many, 1, 100 * time.Second},
	} {
		if got := c.times.Quantile(c.share); got != c.want {
			t.Errorf("%v of %d: %s, want %s", c.share, len(c.times), got, c.want)
		}
	}
}
