package verdict_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

func TestFlap(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		before *member.Departed
		want   float64
	}{
		"first":                  {nil, 1},
		"again at once":          {&member.Departed{FlapScore: 1, LeftAt: start}, 2},
		"a half-life later":      {&member.Departed{FlapScore: 1, LeftAt: start.Add(-verdict.FlapHalfLife)}, 1.5},
		"two half-lives later":   {&member.Departed{FlapScore: 2, LeftAt: start.Add(-2 * verdict.FlapHalfLife)}, 1.5},
		"a day later":            {&member.Departed{FlapScore: 5, LeftAt: start.Add(-24 * time.Hour)}, 1},
		"the clock was set back": {&member.Departed{FlapScore: 1, LeftAt: start.Add(time.Hour)}, 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := verdict.Flap(test.before, start); math.Abs(got-test.want) > 1e-9 {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestHoldDown(t *testing.T) {
	t.Parallel()
	const first, longest = 5 * time.Second, 5 * time.Minute
	for score, want := range map[float64]time.Duration{
		1: 5 * time.Second, 1.5: 7071 * time.Millisecond, 2: 10 * time.Second, 3: 20 * time.Second, 6: 160 * time.Second,
		7: longest, 100: longest, 1e6: longest, math.Inf(1): longest,
	} {
		if got := verdict.HoldDown(score, first, longest); got != want {
			t.Errorf("score %v: %v, want %v", score, got, want)
		}
	}
	for _, score := range []float64{1, 3, 1e6} {
		if got := verdict.HoldDown(score, 0, longest); got != 0 {
			t.Errorf("switched off, score %v: %v", score, got)
		}
	}
}

// TestHoldDownOfAFlapper: each removal doubles the hold-down, up to the limit,
// and it never goes beyond its bounds.
func TestHoldDownOfAFlapper(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var d *member.Departed
		now := start
		for range rapid.IntRange(1, 20).Draw(t, "removals") {
			before := d
			d = &member.Departed{FlapScore: verdict.Flap(d, now), LeftAt: now}
			hold := verdict.HoldDown(d.FlapScore, 5*time.Second, 5*time.Minute)
			if hold < 5*time.Second || hold > 5*time.Minute {
				t.Fatalf("score %v: %v", d.FlapScore, hold)
			}
			if before != nil && d.FlapScore > before.FlapScore+1 {
				t.Fatalf("the score goes from %v to %v", before.FlapScore, d.FlapScore)
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(2*verdict.FlapHalfLife)).Draw(t, "pause")))
		}
	})
}
