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
			for clean := range 3 {
				l := verdict.Loss{Watchers: watchers, Witnesses: witnesses, Clean: clean}
				got := verdict.JudgeLoss(l)
				want := watchers >= 1 && witnesses >= 1 && watchers+witnesses >= 3 && clean == 0
				if (got.Verdict == verdict.Lossy) != want || got.Rule == "" || got.Reason == "" {
					t.Errorf("%+v: %+v, want a removal: %v", l, got, want)
				}
			}
		}
	}
}
