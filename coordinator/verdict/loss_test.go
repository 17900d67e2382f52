package verdict_test

import (
	"testing"

	"github.com/buddyring/buddyring/coordinator/verdict"
)

// Three observers must see the loss, a witness among them, and no witness may see
// the server clean.
func TestJudgeLoss(t *testing.T) {
	t.Parallel()
	for watchers := range 4 {
		for witnesses := range 4 {
			for i := range 6 {
				l := verdict.Loss{Watchers: watchers, Witnesses: witnesses, Clean: i % 3, Replied: i >= 3}
				got := verdict.JudgeLoss(l)
				want := watchers >= 1 && witnesses >= 1 && watchers+witnesses >= 3 && l.Clean == 0 && l.Replied
				if (got.Verdict == verdict.Lossy) != want || got.Rule == "" || got.Reason == "" {
					t.Errorf("%+v: %+v, want a removal: %v", l, got, want)
				}
			}
		}
	}
}
