package explain

import (
	"fmt"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Safety is where a pool stands between its brake and its floor, in one line.
func Safety(s *coordinatorv1.Safety) string {
	return fmt.Sprintf("brake: %s of %d allowed; floor: %d lost of %d allowed",
		Suspects(s.GetSuspects()), s.GetBrakeLimit(), s.GetLost(), s.GetFloorLimit())
}

// Suspects counts the servers that count for the brake.
func Suspects(n uint32) string {
	return fmt.Sprintf("%d suspect or lately removed", n)
}

// around is the same before and after a decision.
func around(before, after *coordinatorv1.Safety) string {
	text := Safety(before)
	if after == nil || after.GetLost() == before.GetLost() {
		return text
	}
	return fmt.Sprintf("%s, %d afterwards", text, after.GetLost())
}
