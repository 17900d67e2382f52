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
	// Up, Down and Unknown count the observers asked, by what they saw. An
	// observer that cannot judge, does not trust itself, or did not finish is
	// Unknown.
	Up, Down, Unknown int
	Proof             Proof
	Dial              DialResult
}

// Verdict is what a case comes to.
type Verdict uint8

// The verdicts. Only Crashed supports a removal.
const (
	// Undecided: the evidence is too thin; ask again.
	Undecided Verdict = iota
	// Alive: somebody reached it.
	Alive
	// Unreached: no observer reached it, but its own agent or kernel answers.
	Unreached
	// Crashed: the observers needed all miss it and nothing speaks for it.
	Crashed
)

// String returns the verdict as explanations name it.
func (v Verdict) String() string {
	switch v {
	case Alive:
		return "alive"
	case Unreached:
		return "unreached"
	case Crashed:
		return "crashed"
	case Undecided:
	}
	return "undecided"
}

// Ruling is a verdict and the rule behind it.
type Ruling struct {
	Verdict Verdict
	// Rule is a constant name, Reason a plain clause with the numbers.
	Rule, Reason string
}

// Needed is how many observers must miss a server before it may be removed, in
// a pool with so many others.
func Needed(others int) int { return min(3, others) }

// Judge is the table of verdicts.
func Judge(c Case) Ruling {
	asked := c.Up + c.Down + c.Unknown
	switch {
	case c.Others == 0:
		return Ruling{Undecided, "never_the_last", "it is the only server, and nobody else can look"}
	case c.Up > 0 && c.Down == 0:
		return Ruling{Alive, "answers", fmt.Sprintf("%d of %d observers reach it and none misses it", c.Up, asked)}
	case c.Up > 0:
		return Ruling{Alive, "others_reach_it", fmt.Sprintf("%d of %d observers miss it, but %d reach it", c.Down, asked, c.Up)}
	case c.Proof == ProofAlive && c.Down > 0:
		return Ruling{Unreached, "stream_answers", fmt.Sprintf("%d of %d observers miss it, but its own stream answers", c.Down, asked)}
	case c.Dial == DialAnswered && c.Down > 0:
		return Ruling{Unreached, "tcp_answers", fmt.Sprintf("%d of %d observers miss it, but a TCP connect was answered", c.Down, asked)}
	case c.Others == 1:
		return judgePair(c)
	case c.Down >= Needed(c.Others):
		return Ruling{Crashed, "observers_agree", fmt.Sprintf("all %d observers that could judge miss it (%d are needed) and %s", c.Down, Needed(c.Others), c.Proof)}
	}
	return Ruling{Undecided, "too_few_observers", fmt.Sprintf("%d of %d observers miss it, and %d are needed", c.Down, asked, Needed(c.Others))}
}

// judgePair is the rule for pools of two: the one observer, the stream's
// silence and the coordinator's own connect must all agree.
func judgePair(c Case) Ruling {
	switch {
	case c.Down == 0:
		return Ruling{Undecided, "too_few_observers", "the only observer cannot tell"}
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
