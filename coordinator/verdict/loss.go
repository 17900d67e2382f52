package verdict

import (
	"fmt"
	"math"
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
	// promptEcho is how much longer than at its fastest the stream of a server that loses
	// nothing may take to answer: one lost segment costs 200 ms.
	promptEcho = 150 * time.Millisecond
)

// What an Echo is beside a time.
const (
	// EchoMissing: the stream has not answered.
	EchoMissing time.Duration = -1
	// StreamMissing: there was none to answer.
	StreamMissing time.Duration = -2
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
	// Echoes are how long the server's stream has taken to answer in each of the
	// measurements in a row that have found so, this one included; Lasted is how long the
	// loss has lasted.
	Echoes []time.Duration
	Lasted time.Duration
	// Replied says that anybody had a reply since the first of them began.
	Replied bool
}

// late counts the measurements in which the stream has not answered, or much later than
// at its fastest, and those in which there was none.
func (l Loss) late() (late, absent int) {
	fastest := time.Duration(math.MaxInt64)
	for _, e := range l.Echoes {
		if e >= 0 {
			fastest = min(fastest, e)
		}
	}
	for _, e := range l.Echoes {
		switch {
		case e == StreamMissing:
			absent++
		case e == EchoMissing, e > fastest+promptEcho:
			late++
		}
	}
	return late, absent
}

// JudgeLoss says whether a server loses so much that it is of no use. A link, or
// an observer, that is lossy takes nobody out: a watcher and a witness must see it,
// three in all, and nobody may see it clean, in lossyTimes measurements in a row and
// for LossyFor. Some probe must have been answered.
//
// Nor does something that limits ICMP only: the stream of such a server answers at once
// nearly every time. At a loss of 80 % it does so in seven of ten with probability
// 120·0.2^7·0.8^3 = 8·10^-4; where the network loses 1 % and more is late, 3 % in all, it
// is late in six of ten with 210·0.03^6 = 2·10^-7. Between a third and half of them late,
// up to 2·lossyTimes are measured. Without a stream nothing can be told.
func JudgeLoss(l Loss) Ruling {
	measured := len(l.Echoes)
	late, absent := l.late()
	limited := 3*late <= measured || 2*late <= measured && measured >= 2*lossyTimes
	switch seen := l.Watchers + l.Witnesses; {
	case l.Clean > 0:
		return Ruling{Alive, "loss_not_confirmed", fmt.Sprintf("%d observers lose half of their probes to it, but %d lose none", seen, l.Clean)}
	case l.Watchers == 0 || l.Witnesses == 0 || seen < lossyNeeded:
		return Ruling{Undecided, TooFew, fmt.Sprintf("%d watchers and %d witnesses lose half of their probes to it, and %d observers are needed", l.Watchers, l.Witnesses, lossyNeeded)}
	case l.Lasted < LossyFor || measured < lossyTimes:
		return Ruling{Undecided, LossTooShort, fmt.Sprintf("%d watchers and %d witnesses lose half of their probes to it, for %v so far", l.Watchers, l.Witnesses, l.Lasted.Round(time.Millisecond))}
	case !l.Replied:
		return Ruling{Undecided, "never_answers", "all probes to it are lost, which is not for the rule about loss"}
	case limited && absent > 0:
		return Ruling{Undecided, NoStream, fmt.Sprintf("%d observers lose half of their probes to it, but in %d of %d measurements it had no stream to show whether something limits ICMP only", seen, absent, measured)}
	case limited:
		return Ruling{Alive, ICMPLimited, fmt.Sprintf("%d observers lose half of their probes to it, but its stream has answered at once in %d of %d measurements: something limits ICMP", seen, measured-late, measured)}
	case 2*late <= measured:
		return Ruling{Undecided, LossTooShort, fmt.Sprintf("%d observers lose half of their probes to it, and its stream was late in %d of %d measurements, which is not clear yet", seen, late, measured)}
	}
	return Ruling{Lossy, "lossy", fmt.Sprintf("%d watchers and %d witnesses lost half of their probes to it and more, %d times in a row and for %v", l.Watchers, l.Witnesses, measured, l.Lasted.Round(time.Millisecond))}
}

// LossTooShort is the rule of a loss that has yet to last, ICMPLimited that of one that
// only ICMP has, NoStream that of one that may be.
const (
	LossTooShort = "loss_too_short"
	ICMPLimited  = "icmp_limited"
	NoStream     = "no_stream"
)
