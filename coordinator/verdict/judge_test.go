package verdict_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// answer is what one observer comes to at the end of a round.
type answer uint8

const (
	unknown answer = iota
	reaches
	misses
	cannotJudge
	// missesAll also had its connects unanswered; connects had no reply, but a
	// connect was answered.
	missesAll
	connects
	answers
)

func (a answer) String() string {
	return [...]string{"unknown", "reaches", "misses", "cannot judge", "misses all", "connects"}[a]
}

// situation is everything that Judge may go by.
type situation struct {
	others           int
	answers          []answer
	proof            verdict.Proof
	dial             verdict.DialResult
	second, repeated bool
}

func (s situation) count(kinds ...answer) int {
	n := 0
	for _, a := range s.answers {
		if slices.Contains(kinds, a) {
			n++
		}
	}
	return n
}

// reference is the table of design page 3, said slowly, row by row.
func reference(s situation) verdict.Verdict {
	positives := s.count(reaches, connects)
	negatives := s.count(misses, missesAll)
	hostProven := s.proof == verdict.ProofAlive || s.dial == verdict.DialAnswered
	if s.others == 0 {
		// N = 1: never a removal.
		return verdict.Undecided
	}
	if positives == 1 && positives+negatives >= 3 && s.others >= 3 && !hostProven && !s.second {
		// Exactly one positive among three and more: others decide.
		return verdict.Split
	}
	if s.count(reaches) > 0 {
		// One observer negative, others positive: a link, a filter or that observer.
		return verdict.Alive
	}
	if s.count(connects) > 0 {
		// Pings fail, TCP answered.
		return verdict.Filtered
	}
	if negatives == 0 {
		return verdict.Undecided
	}
	if s.dial == verdict.DialAnswered {
		return verdict.Filtered
	}
	if s.proof == verdict.ProofAlive {
		// Three observers negative in two rounds and their connects fail too; pools of
		// three and less remove nobody for that.
		if s.repeated && s.others >= 3 && s.count(missesAll) >= 3 && s.count(misses) == 0 {
			return verdict.Unreachable
		}
		return verdict.Unreached
	}
	if s.others == 1 {
		// N = 2: one negative observer, nonce failed by silence, and the
		// coordinator's own TCP connect unanswered.
		if s.proof == verdict.ProofSilent && s.dial == verdict.DialUnanswered {
			return verdict.Crashed
		}
		return verdict.Undecided
	}
	if s.second {
		// All fresh witnesses who answer are negative, two and half of those asked at
		// least, and the nonce failed.
		if negatives >= 2 && 2*negatives >= len(s.answers) {
			return verdict.Crashed
		}
		return verdict.Undecided
	}
	if negatives >= min(3, s.others) {
		return verdict.Crashed
	}
	return verdict.Undecided
}

// patterns lists all sequences of n answers.
func patterns(n int) [][]answer {
	if n == 0 {
		return [][]answer{nil}
	}
	var all [][]answer
	for _, p := range patterns(n - 1) {
		for a := range answers {
			all = append(all, append(slices.Clone(p), a))
		}
	}
	return all
}

// TestJudgeIsTheTable goes through pools of one to seven, everything each
// observer can come to, all proofs and connects, and first and second rounds.
func TestJudgeIsTheTable(t *testing.T) {
	t.Parallel()
	removals := 0
	for n := 1; n <= 7; n++ {
		for _, p := range patterns(n - 1) {
			for i := range 36 {
				s := situation{
					others: n - 1, answers: p, proof: verdict.Proof(i % 3), dial: verdict.DialResult(i / 3 % 3),
					second: i/9%2 == 1, repeated: i/18 == 1,
				}
				got, want := verdict.Judge(s.sum()), reference(s)
				if got.Verdict != want {
					t.Fatalf("N = %d, %+v: %v by %s, want %v", n, s, got.Verdict, got.Rule, want)
				}
				if got.Rule == "" || got.Reason == "" {
					t.Fatalf("N = %d, %+v: rule %q, reason %q", n, s, got.Rule, got.Reason)
				}
				if want == verdict.Crashed || want == verdict.Unreachable {
					removals++
				}
			}
		}
	}
	if removals == 0 {
		t.Error("nobody was ever removed")
	}
}

// sum holds a round with those answers.
func (s situation) sum() verdict.Case {
	c := held(s).Case(s.others, everybody)
	c.Repeated = s.repeated
	return c
}

func everybody(member.ID) bool { return true }

func held(s situation) *verdict.Round {
	r := &verdict.Round{Dial: s.dial, Second: s.second}
	switch s.proof {
	case verdict.ProofAbsent:
	case verdict.ProofSilent:
		r.Challenge(1)
	case verdict.ProofAlive:
		r.Challenge(1)
		r.Echo(1)
	}
	for i, a := range s.answers {
		id := member.ID(fmt.Sprint(i))
		r.Ask(id, start)
		if a != unknown {
			r.Answer(id, verdict.Answer{At: start, Evidence: evidenceOf(a), Final: true})
		}
	}
	return r
}

func evidenceOf(a answer) verdict.Evidence {
	switch a {
	case reaches:
		return verdict.Evidence{Sight: verdict.SightUp}
	case misses:
		return verdict.Evidence{Sight: verdict.SightDown}
	case missesAll:
		return verdict.Evidence{Sight: verdict.SightDown, Connect: verdict.ConnectUnanswered}
	case connects:
		return verdict.Evidence{Sight: verdict.SightDown, Connect: verdict.ConnectAnswered}
	case cannotJudge, unknown, answers:
	}
	return verdict.Evidence{Sight: verdict.SightCannotJudge}
}

// TestTwoSuspects goes through pools of two to seven with two suspects who say
// anything about each other, all that the others see of both, and all outcomes of
// the coordinator's connect: the suspects' words against each other count for
// nothing, unless their streams prove them alive, and blame is the smallest set of
// servers that explains all misses.
func TestTwoSuspects(t *testing.T) {
	t.Parallel()
	sights := []answer{unknown, reaches, misses}
	cases, removals := 0, 0
	for n := 2; n <= 7; n++ {
		for _, views := range sorted(n-2, len(sights)*len(sights)) {
			var seen [2][]answer
			for _, v := range views {
				seen[0] = append(seen[0], sights[v%3])
				seen[1] = append(seen[1], sights[v/3])
			}
			for i := range 108 {
				words, dial := [2]answer{sights[i%3], sights[i/3%3]}, verdict.DialResult(i/36)
				alive := [2]bool{i/9%2 == 1, i/18%2 == 1}
				for one := range 2 {
					cases++
					s := twoSuspects{n, seen[one], words[1-one], alive[one], alive[1-one], dial}
					got := verdict.Judge(s.sum())
					if (got.Verdict == verdict.Crashed) != s.removed() {
						t.Fatalf("%+v: %v by %s, want a removal: %v", s, got.Verdict, got.Rule, s.removed())
					}
					if s.removed() {
						removals++
					}
				}
			}
		}
	}
	if want := 2 * 108 * (1 + 9 + 45 + 165 + 495 + 1287); cases != want || removals == 0 {
		t.Errorf("%d cases, want %d; %d removals", cases, want, removals)
	}
}

// sorted lists all sequences of n numbers below k that do not fall: who sees what
// does not matter, only how many do.
func sorted(n, k int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var all [][]int
	for _, s := range sorted(n-1, k) {
		least := 0
		if len(s) > 0 {
			least = s[len(s)-1]
		}
		for v := least; v < k; v++ {
			all = append(all, append(slices.Clone(s), v))
		}
	}
	return all
}

// twoSuspects is one of two suspects in a pool of n: what the n-2 others see of it,
// what the other suspect says, whose stream answers, and what the coordinator's
// connect comes to.
type twoSuspects struct {
	n                 int
	seen              []answer
	word              answer
	alive, otherAlive bool
	dial              verdict.DialResult
}

// removed says slowly whether it goes.
func (s twoSuspects) removed() bool {
	negatives := 0
	for _, a := range append(slices.Clone(s.seen), s.word) {
		switch a {
		case reaches:
			return false
		case misses:
			negatives++
		case unknown, cannotJudge, missesAll, connects, answers:
		}
	}
	if !s.otherAlive && s.word == misses {
		// The other is to be blamed itself for missing this one.
		negatives--
	}
	switch {
	case s.alive || s.dial == verdict.DialAnswered:
		return false
	case s.n == 2:
		return negatives == 1 && s.dial == verdict.DialUnanswered
	case s.n == 3:
		return negatives == 2
	}
	return negatives >= min(3, s.others())
}

// others counts who could be asked: not the other suspect where four are and more.
func (s twoSuspects) others() int {
	if s.n > 3 && !s.otherAlive {
		return max(2, s.n-2)
	}
	return s.n - 1
}

func (s twoSuspects) sum() verdict.Case {
	round := situation{answers: append(slices.Clone(s.seen), s.word), proof: verdict.ProofSilent, dial: s.dial}
	if s.alive {
		round.proof = verdict.ProofAlive
	}
	other := member.ID(fmt.Sprint(s.n - 2))
	return held(round).Case(s.others(), func(id member.ID) bool { return s.otherAlive || id != other })
}

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// TestJudgeAmongSuspects: with other suspects about, fewer observers are asked
// for, but never less than two.
func TestJudgeAmongSuspects(t *testing.T) {
	t.Parallel()
	for others, needed := range map[int]int{1: 1, 2: 2, 3: 3, 4: 3, 1000: 3} {
		if got := verdict.Needed(others); got != needed {
			t.Errorf("%d of %d others needed, want %d", got, others, needed)
		}
	}
	for others := 2; others < 6; others++ {
		for down := range 5 {
			got := verdict.Judge(verdict.Case{Others: others, Down: down}).Verdict == verdict.Crashed
			if want := down >= min(3, others); got != want {
				t.Errorf("%d of %d others miss it: removed %v, want %v", down, others, got, want)
			}
		}
	}
}

// Anything that speaks for a server, and two observers only, are not nobody.
func TestNobodyConnects(t *testing.T) {
	t.Parallel()
	dead := verdict.Case{Others: 6, Down: 3, Unconnected: 3}
	for name, test := range map[string]struct {
		edit func(*verdict.Case)
		want bool
	}{
		"three":                    {func(*verdict.Case) {}, true},
		"two":                      {func(c *verdict.Case) { c.Down, c.Unconnected = 2, 2 }, false},
		"one did not try":          {func(c *verdict.Case) { c.Down = 4 }, false},
		"one reaches it":           {func(c *verdict.Case) { c.Up = 1 }, false},
		"one connects":             {func(c *verdict.Case) { c.Connected = 1 }, false},
		"the coordinator does":     {func(c *verdict.Case) { c.Dial = verdict.DialAnswered }, false},
		"the coordinator does not": {func(c *verdict.Case) { c.Dial = verdict.DialUnanswered }, true},
	} {
		c := dead
		test.edit(&c)
		if c.NobodyConnects() != test.want {
			t.Errorf("%s: %v", name, !test.want)
		}
	}
}

// The reasons go to people.
func TestJudgeSaysWhy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		c          verdict.Case
		rule, text string
	}{
		{verdict.Case{}, "never_the_last", "it is the only server, and nobody else can look"},
		{verdict.Case{Others: 3, Up: 2, Unknown: 1}, "answers", "2 of 3 observers reach it and none misses it"},
		{verdict.Case{Others: 3, Up: 1, Down: 1}, "others_reach_it", "1 of 2 observers miss it, but 1 reach it"},
		{verdict.Case{Others: 2, Up: 1, Down: 2}, "others_reach_it", "2 of 3 observers miss it, but 1 reach it"},
		{verdict.Case{Others: 6, Up: 1, Down: 3}, "one_reaches_it", "3 of 4 observers miss it, and only one reaches it"},
		{verdict.Case{Others: 6, Down: 2, Second: true, Proof: verdict.ProofSilent}, "odd_one_out", "one observer reached it, but 2 of 2 others asked after that miss it, and its stream is silent"},
		{verdict.Case{Others: 6, Down: 1, Unknown: 1, Second: true}, "too_few_observers", "one observer reached it; 1 of 2 asked after that miss it, and 2 are needed"},
		{verdict.Case{Others: 6, Down: 2, Connected: 2}, "tcp_answers", "none of 4 observers gets a reply to its probes, but TCP connects of 2 were answered"},
		{verdict.Case{Others: 3, Down: 3, Proof: verdict.ProofAlive}, "stream_answers", "3 of 3 observers miss it, but its own stream answers"},
		{verdict.Case{Others: 6, Down: 3, Unconnected: 3, Proof: verdict.ProofAlive}, "stream_answers", "3 of 3 observers miss it, but its own stream answers; nobody can connect to it either, which is looked into once more"},
		{verdict.Case{Others: 2, Down: 3, Unconnected: 3, Proof: verdict.ProofAlive}, "stream_answers", "3 of 3 observers miss it, but its own stream answers; a pool of three and less removes nobody for that"},
		{verdict.Case{Others: 6, Down: 3, Unconnected: 3, Proof: verdict.ProofAlive, Repeated: true}, "nobody_connects", "its stream answers, but in two rounds all 3 observers that could judge missed it, and 3 of them could not connect to it either"},
		{verdict.Case{Others: 1, Down: 1, Dial: verdict.DialAnswered}, "tcp_answers", "1 of 1 observers miss it, but the coordinator's TCP connect was answered"},
		{verdict.Case{Others: 3, Down: 3}, "observers_agree", "all 3 observers that could judge miss it (3 are needed) and it has no stream"},
		{verdict.Case{Others: 3, Down: 3, Unknown: 1, Proof: verdict.ProofSilent}, "observers_agree", "all 3 observers that could judge miss it (3 are needed) and its stream is silent"},
		{verdict.Case{Others: 3, Down: 2, Unknown: 1}, "too_few_observers", "2 of 3 observers miss it, and 3 are needed"},
		{verdict.Case{Others: 1, Unknown: 1}, "too_few_observers", "the only observer cannot tell"},
		{verdict.Case{Others: 1, Down: 1}, "pair_needs_silence", "the only observer misses it, but in a pool of two its stream must fall silent too, and it has no stream"},
		{verdict.Case{Others: 1, Down: 1, Proof: verdict.ProofSilent}, "pair_needs_dial", "the only observer misses it and its stream is silent, but the coordinator's own TCP connect proved nothing"},
		{verdict.Case{Others: 1, Down: 1, Proof: verdict.ProofSilent, Dial: verdict.DialUnanswered}, "pair_agrees", "the only observer misses it, its stream is silent, and the coordinator's own TCP connect was not answered"},
	}
	for _, test := range tests {
		if got := verdict.Judge(test.c); got.Rule != test.rule || got.Reason != test.text {
			t.Errorf("%+v:\n got %s: %s\nwant %s: %s", test.c, got.Rule, got.Reason, test.rule, test.text)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]fmt.Stringer{
		"undecided": verdict.Undecided, "alive": verdict.Alive, "unreached": verdict.Unreached, "crashed": verdict.Crashed,
		"split": verdict.Split, "icmp_filtered": verdict.Filtered, "unreachable": verdict.Unreachable, "lossy": verdict.Lossy,
		"unknown": verdict.SightUnknown, "up": verdict.SightUp, "down": verdict.SightDown, "cannot_judge": verdict.SightCannotJudge,
		"its stream answers": verdict.ProofAlive, "its stream is silent": verdict.ProofSilent, "it has no stream": verdict.ProofAbsent,
	} {
		if got.String() != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
