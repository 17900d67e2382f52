package verdict

import (
	"fmt"
	"time"
)

const (
	// LossyFrom is how many of ten probes must be lost for a link to count as
	// lossy: Rapid's edge failure detector takes 40 % of ten probes, too.
	LossyFrom = 4
	// LossyUntil is how many at most are lost when it counts so no more.
	LossyUntil = 2
	// LossyFor is how long a server must lose so much, from its first lost probe,
	// before it is taken out.
	LossyFor = 3 * time.Second
	// lossyNeeded is how many observers must agree.
	lossyNeeded = 3
)

// Loss is what observers see of a server that loses packets.
type Loss struct {
	// Watchers that see it lossy; Witnesses that lose half of their probes and more;
	// Clean witnesses, that lose few.
	// Observers that are lossy themselves do not count.
	Watchers, Witnesses, Clean int
	// Replied says that anybody had a reply in that time.
	Replied bool
}

// JudgeLoss says whether a server loses so much that it is of no use. A link, or
// an observer, that is lossy takes nobody out: all watchers that count and at
// least one witness must see it, three in all, no witness may see it clean, and
// some probe must have been answered.
func JudgeLoss(l Loss) Ruling {
	switch seen := l.Watchers + l.Witnesses; {
	case !l.Replied:
		return Ruling{Undecided, "never_answers", "all probes to it are lost, which is not for the rule about loss"}
	case l.Clean > 0:
		return Ruling{Alive, "loss_not_confirmed", fmt.Sprintf("%d watchers lose %d and more of ten probes to it, but %d of %d witnesses do not", l.Watchers, LossyFrom, l.Clean, l.Clean+l.Witnesses)}
	case l.Watchers == 0 || l.Witnesses == 0 || seen < lossyNeeded:
		return Ruling{Undecided, TooFew, fmt.Sprintf("%d watchers lose %d and more of ten probes to it and %d witnesses half of theirs, and %d observers are needed", l.Watchers, LossyFrom, l.Witnesses, lossyNeeded)}
	}
	return Ruling{Lossy, "lossy", fmt.Sprintf("%d watchers lost %d and more of ten probes to it and %d witnesses half of theirs, for %v", l.Watchers, LossyFrom, l.Witnesses, LossyFor)}
}
