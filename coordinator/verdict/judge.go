package verdict

import "fmt"

// Proof is what the subject's own stream says at the end of a round.
type Proof uint8

// The proofs.
const (
	// ProofAbsent: there was no stream when the round began. Neutral.
	ProofAbsent Proof = iota
	// ProofSilent: there is a stream, and its nonce was not answered; or the
	// stream fell silent before the round.
	ProofSilent
	// ProofAlive: the nonce was echoed, or the peer's FIN or RST was read during
	// the round. Its kernel is alive.
	ProofAlive
)

// DialResult is the outcome of the coordinator's own TCP connect.
type DialResult uint8

// The outcomes.
const (
	DialNone DialResult = iota
	DialUnanswered
	// DialAnswered: a SYN-ACK or RST came back; its kernel is alive.
	DialAnswered
)

// Case is the evidence at the end of a round.
type Case struct {
	// Others counts the other members that could be asked: the pool without the
	// subject and, in pools of four and more, without those that are suspect at
	// the same time, but never less than two then.
	Others int
	// Up, Down, Unknown and Connected count the observers asked, each once, by what
	// they saw. An observer that cannot judge, is not trusted, or did not finish is
	// Unknown.
	Up, Down, Unknown int
	// Connected are those that had no reply to their probes, but an answered TCP
	// connect, which is a positive too. Unconnected counts those of Down whose
	// connects to an endpoint were not answered.
	Connected, Unconnected int
	// Second says that only observers were asked who had not been asked in the
	// round before, in which one of three and more reached the subject.
	Second bool
	// Repeated says that the round before came to Unreached with three and more
	// observers Unconnected.
	Repeated bool
	Proof    Proof
	Dial     DialResult
}

// Verdict is what a case comes to.
type Verdict uint8

// The verdicts. Only Crashed, Unreachable and Lossy support a removal.
const (
	// Undecided: the evidence is too thin; ask again.
	Undecided Verdict = iota
	// Alive: somebody reached it.
	Alive
	// Split: exactly one of three and more reached it, and nothing else speaks for
	// it; ask others.
	Split
	// Filtered: no probe is answered, but TCP is: something eats the probes.
	Filtered
	// Unreached: no observer reached it, but its own agent answers.
	Unreached
	// Unreachable: as Unreached, twice, and nobody could connect to it either.
	Unreachable
	// Lossy: it answers, and loses so much that it is of no use.
	Lossy
	// Crashed: the observers needed all miss it and nothing speaks for it.
	Crashed
)

// String returns the verdict as explanations name it.
func (v Verdict) String() string {
	names := [...]string{"undecided", "alive", "split", "icmp_filtered", "unreached", "unreachable", "lossy", "crashed"}
	return names[min(int(v), len(names)-1)]
}

// Ruling is a verdict and the rule behind it.
type Ruling struct {
	Verdict Verdict
	// Rule is a constant name, Reason a plain clause with the numbers.
	Rule, Reason string
}

// TooFew is the rule by which a case stays undecided because too few observers
// could tell.
const TooFew = "too_few_observers"

// Needed is how many observers must miss a server before it may be removed, in
// a pool with so many others.
func Needed(others int) int { return min(3, others) }

// FreshNeeded is how many observers who were not asked before must miss a server
// that one observer has reached.
const FreshNeeded = 2

// freshNeeded is how many of so many in a second round must miss it: half of them
// besides. Their silence does not outvote the one who has reached it.
func freshNeeded(asked int) int { return max(FreshNeeded, (asked+1)/2) }

// Judge is the table of verdicts.
func Judge(c Case) Ruling {
	asked := c.asked()
	switch {
	case c.Others == 0:
		return Ruling{Undecided, "never_the_last", "it is the only server, and nobody else can look"}
	case c.Up+c.Connected == 1 && c.Down >= 2 && c.Others >= 3 && !c.Second && c.Proof != ProofAlive && c.Dial != DialAnswered:
		// One against all others, who are at least two: yet others decide who is odd.
		return Ruling{Split, "one_reaches_it", fmt.Sprintf("%d of %d observers miss it, and only one reaches it", c.Down, asked)}
	case c.Up > 0 && c.Down == 0:
		text := fmt.Sprintf("%d of %d observers reach it and none misses it", c.Up, asked)
		if c.Connected > 0 {
			text = fmt.Sprintf("%d of %d observers reach it, %d only by a TCP connect", c.Up+c.Connected, asked, c.Connected)
		}
		return Ruling{Alive, "answers", text}
	case c.Up > 0:
		return Ruling{Alive, "others_reach_it", fmt.Sprintf("%d of %d observers miss it, but %d reach it", c.Down, asked, c.Up)}
	case c.Connected > 0:
		return Ruling{Filtered, "tcp_answers", fmt.Sprintf("none of %d observers gets a reply to its probes, but TCP connects of %d were answered", asked, c.Connected)}
	case c.Dial == DialAnswered && c.Down > 0:
		return Ruling{Filtered, "tcp_answers", fmt.Sprintf("%d of %d observers miss it, but the coordinator's TCP connect was answered", c.Down, asked)}
	case c.Proof == ProofAlive && c.Down > 0:
		return judgeProven(c)
	case c.Others == 1:
		return judgePair(c)
	case c.Second && c.Down >= freshNeeded(asked):
		return Ruling{Crashed, "odd_one_out", fmt.Sprintf("one observer reached it, but %d of %d others asked after that miss it, and %s", c.Down, asked, c.Proof)}
	case !c.Second && c.Down >= Needed(c.Others):
		return Ruling{Crashed, "observers_agree", fmt.Sprintf("all %d observers that could judge miss it (%d are needed) and %s", c.Down, Needed(c.Others), c.Proof)}
	case c.Second:
		return Ruling{Undecided, TooFew, fmt.Sprintf("one observer reached it; %d of %d asked after that miss it, and %d are needed", c.Down, asked, freshNeeded(asked))}
	}
	return Ruling{Undecided, TooFew, fmt.Sprintf("%d of %d observers miss it, and %d are needed", c.Down, asked, Needed(c.Others))}
}

func (c Case) asked() int { return c.Up + c.Down + c.Unknown + c.Connected }

// judgeProven: no probe is answered, but its own stream is. It is taken out only
// if clients cannot reach it either, as three observers find twice.
func judgeProven(c Case) Ruling {
	text := fmt.Sprintf("%d of %d observers miss it, but its own stream answers", c.Down, c.asked())
	switch {
	case !c.NobodyConnects():
		return Ruling{Unreached, "stream_answers", text}
	case c.Others < 3:
		return Ruling{Unreached, "stream_answers", text + "; a pool of three and less removes nobody for that"}
	case !c.Repeated:
		return Ruling{Unreached, "stream_answers", text + "; nobody can connect to it either, which is looked into once more"}
	}
	return Ruling{Unreachable, "nobody_connects", fmt.Sprintf("its stream answers, but in two rounds all %d observers that could judge missed it, and %d of them could not connect to it either", c.Down, c.Unconnected)}
}

// NobodyConnects reports whether at least three observers miss the subject and
// none of them could connect to it.
func (c Case) NobodyConnects() bool {
	return c.Up == 0 && c.Connected == 0 && c.Dial != DialAnswered && c.Unconnected >= 3 && c.Unconnected == c.Down
}

// judgePair is the rule for pools of two: the one observer, the stream's
// silence and the coordinator's own connect must all agree.
func judgePair(c Case) Ruling {
	switch {
	case c.Down == 0:
		return Ruling{Undecided, TooFew, "the only observer cannot tell"}
	case c.Proof != ProofSilent:
		return Ruling{Undecided, "pair_needs_silence", "the only observer misses it, but in a pool of two its stream must fall silent too, and " + c.Proof.String()}
	case c.Dial != DialUnanswered:
		return Ruling{Undecided, "pair_needs_dial", "the only observer misses it and its stream is silent, but the coordinator's own TCP connect proved nothing"}
	}
	return Ruling{Crashed, "pair_agrees", "the only observer misses it, its stream is silent, and the coordinator's own TCP connect was not answered"}
}

// String is a clause for a Ruling's reason.
func (p Proof) String() string {
	switch p {
	case ProofSilent:
		return "its stream is silent"
	case ProofAlive:
		return "its stream answers"
	case ProofAbsent:
	}
	return "it has no stream"
}
