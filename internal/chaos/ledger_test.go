package chaos

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
