package explain

import (
	"fmt"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Safety is where a pool stands between its brake and its floor, in one line.
func Safety(s *coordinatorv1.Safety) string {
	suspects := "suspects"
	if s.GetSuspects() == 1 {
		suspects = "suspect"
	}
	return fmt.Sprintf("brake: %d %s of %d allowed; floor: %d lost of %d allowed",
		s.GetSuspects(), suspects, s.GetBrakeLimit(), s.GetLost(), s.GetFloorLimit())
}

// around is the same before and after a decision.
func around(before, after *coordinatorv1.Safety) string {
	text := Safety(before)
	if after == nil || after.GetLost() == before.GetLost() {
		return text
	}
	return fmt.Sprintf("%s, %d afterwards", text, after.GetLost())
}
