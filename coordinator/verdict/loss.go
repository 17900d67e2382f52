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
	LossyFor = 4 * time.Second
	// lossyNeeded is how many observers must agree, lossyTimes in how many measurements
	// in a row.
	lossyNeeded, lossyTimes = 3, 10
	// lateMost is how often the stream of a server that loses nothing may answer late:
	// one lost segment makes it 200 ms. One that loses 80 % answers at once in eight of
	// ten with probability 45·0.2^8·0.8^2 = 7·10^-5.
	lateMost = 2
)

// LossFinding is what one observer finds when it measures loss.
type LossFinding uint8

// The findings. LossSome is between the others: neither for nor against.
const (
	LossUnknown LossFinding = iota
	LossSome
	// LossHeavy: half of its probes are lost, and more.
	LossHeavy
	// LossClean: none is lost.
	LossClean
)

// FindLoss classifies what an observer has lost of the probes it sent.
func FindLoss(sent, lost int) LossFinding {
	switch {
	case sent <= 0:
		return LossUnknown
	case 2*lost >= sent:
		return LossHeavy
	case lost == 0:
		return LossClean
	}
	return LossSome
}

// Loss is what observers have found of a server in one measurement, and what else
// is known of it.
type Loss struct {
	// Watchers and Witnesses are those that find heavy loss, Clean those that find
	// none. Observers that lose packets themselves do not count.
	Watchers, Witnesses, Clean int
	// Measured counts the measurements in a row that have found so, this one
	// included; Lasted is how long the loss has lasted.
	Measured int
	Lasted   time.Duration
	// Replied says that anybody had a reply since the first of them began.
	Replied bool
	// Late counts those in which the server's stream has not answered at once, Absent
	// those in which there was none to answer.
	Late, Absent int
}

// JudgeLoss says whether a server loses so much that it is of no use. A link, or
// an observer, that is lossy takes nobody out: a watcher and a witness must see it,
// three in all, and nobody may see it clean, in lossyTimes measurements in a row and
// for LossyFor. Some probe must have been answered. A stream that answers at once nearly
// every time loses nothing: then something limits ICMP. Without a stream that cannot be told.
func JudgeLoss(l Loss) Ruling {
	switch seen := l.Watchers + l.Witnesses; {
	case l.Clean > 0:
		return Ruling{Alive, "loss_not_confirmed", fmt.Sprintf("%d observers lose half of their probes to it, but %d lose none", seen, l.Clean)}
	case l.Watchers == 0 || l.Witnesses == 0 || seen < lossyNeeded:
		return Ruling{Undecided, TooFew, fmt.Sprintf("%d watchers and %d witnesses lose half of their probes to it, and %d observers are needed", l.Watchers, l.Witnesses, lossyNeeded)}
	case l.Lasted < LossyFor || l.Measured < lossyTimes:
		return Ruling{Undecided, LossTooShort, fmt.Sprintf("%d watchers and %d witnesses lose half of their probes to it, for %v so far", l.Watchers, l.Witnesses, l.Lasted.Round(time.Millisecond))}
	case !l.Replied:
		return Ruling{Undecided, "never_answers", "all probes to it are lost, which is not for the rule about loss"}
	case l.Late <= lateMost && l.Absent > 0:
		return Ruling{Undecided, NoStream, fmt.Sprintf("%d observers lose half of their probes to it, but in %d of %d measurements it had no stream to show whether something limits ICMP only", seen, l.Absent, l.Measured)}
	case l.Late <= lateMost:
		return Ruling{Alive, ICMPLimited, fmt.Sprintf("%d observers lose half of their probes to it, but its stream has answered at once in %d of %d measurements: something limits ICMP", seen, l.Measured-l.Late, l.Measured)}
	}
	return Ruling{Lossy, "lossy", fmt.Sprintf("%d watchers and %d witnesses lost half of their probes to it and more, %d times in a row and for %v", l.Watchers, l.Witnesses, l.Measured, l.Lasted.Round(time.Millisecond))}
}

// LossTooShort is the rule of a loss that has yet to last, ICMPLimited that of one that
// only ICMP has, NoStream that of one that may be.
const (
	LossTooShort = "loss_too_short"
	ICMPLimited  = "icmp_limited"
	NoStream     = "no_stream"
)
