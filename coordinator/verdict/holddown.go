package verdict

import (
	"math"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// FlapHalfLife is the time in which a flap score halves.
const FlapHalfLife = 10 * time.Minute

// Flap returns the flap score after a removal at now, given what is remembered
// of the one before (nil for none):
//
//	score = previous · 2^(−Δt/FlapHalfLife) + 1
func Flap(previous *member.Departed, now time.Time) float64 {
	if previous == nil {
		return 1
	}
	age := max(0, now.Sub(previous.LeftAt))
	return previous.FlapScore*math.Exp2(-age.Seconds()/FlapHalfLife.Seconds()) + 1
}

// HoldDown returns how long a server with that flap score is held when it comes
// back. It doubles with each removal:
//
//	hold = min(longest, first · 2^(score−1))
func HoldDown(score float64, first, longest time.Duration) time.Duration {
	if first <= 0 {
		return 0
	}
	hold := first.Seconds() * math.Exp2(score-1)
	if hold >= longest.Seconds() {
		return longest
	}
	return time.Duration(hold * float64(time.Second)).Round(time.Millisecond)
}
