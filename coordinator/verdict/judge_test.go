package verdict_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

// reference is the table of design page 3 in its first scope, said slowly: who
// may be removed, who is alive, who only does not answer probes.
func reference(others int, sights []verdict.Sight, proof verdict.Proof, dial verdict.DialResult) verdict.Verdict {
	positives, negatives := 0, 0
	for _, s := range sights {
		if s == verdict.SightUp {
			positives++
		}
		if s == verdict.SightDown {
			negatives++
		}
	}
	if others == 0 {
		// N = 1: never a removal.
		return verdict.Undecided
	}
	if positives > 0 {
		// One observer negative, others positive: a link, a filter or that observer.
		return verdict.Alive
	}
	if negatives == 0 {
		return verdict.Undecided
	}
	if proof == verdict.ProofAlive || dial == verdict.DialAnswered {
		// A round trip proves the host; a SYN-ACK or RST proves it too.
		return verdict.Unreached
	}
	if others == 1 {
		// N = 2: one negative observer, nonce failed by silence, and the
		// coordinator's own TCP connect unanswered.
		if proof == verdict.ProofSilent && dial == verdict.DialUnanswered {
			return verdict.Crashed
		}
		return verdict.Undecided
	}
	// N = 3: two negatives.
	needed := min(3, others)
	if negatives >= needed {
		return verdict.Crashed
	}
	return verdict.Undecided
}

// patterns lists all sequences of n sights.
func patterns(n int) [][]verdict.Sight {
	if n == 0 {
		return [][]verdict.Sight{nil}
	}
	var all [][]verdict.Sight
	for _, p := range patterns(n - 1) {
		for _, s := range []verdict.Sight{verdict.SightUnknown, verdict.SightUp, verdict.SightDown, verdict.SightCannotJudge} {
			all = append(all, append(slices.Clone(p), s))
		}
	}
	return all
}

// TestJudgeIsTheTable goes through pools of one to seven, everything each
// observer can see, and all proofs and connects.
func TestJudgeIsTheTable(t *testing.T) {
	t.Parallel()
	cases := 0
	for n := 1; n <= 7; n++ {
		for _, sights := range patterns(n - 1) {
			for proof := verdict.ProofAbsent; proof <= verdict.ProofAlive; proof++ {
				for dial := verdict.DialNone; dial <= verdict.DialAnswered; dial++ {
					cases++
					got := verdict.Judge(held(sights, proof, dial).Case(n - 1))
					if want := reference(n-1, sights, proof, dial); got.Verdict != want {
						t.Fatalf("N = %d, %v, %v, dial %d: %v by %s, want %v", n, sights, proof, dial, got.Verdict, got.Rule, want)
					}
					if got.Rule == "" || got.Reason == "" {
						t.Fatalf("N = %d, %v, %v, dial %d: rule %q, reason %q", n, sights, proof, dial, got.Rule, got.Reason)
					}
				}
			}
		}
	}
	if want := 9 * (1 + 4 + 16 + 64 + 256 + 1024 + 4096); cases != want {
		t.Errorf("%d cases, want %d", cases, want)
	}
}

// held is a round that was held with those answers.
func held(sights []verdict.Sight, proof verdict.Proof, dial verdict.DialResult) *verdict.Round {
	r := &verdict.Round{Dial: dial}
	switch proof {
	case verdict.ProofAbsent:
	case verdict.ProofSilent:
		r.Challenge(1)
	case verdict.ProofAlive:
		r.Challenge(1)
		r.Echo(1)
	}
	for i, s := range sights {
		id := member.ID(fmt.Sprint(i))
		r.Ask(id, start)
		if s != verdict.SightUnknown {
			r.Answer(id, verdict.Answer{At: start, Evidence: verdict.Evidence{Sight: s}, Final: true})
		}
	}
	return r
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

// The reasons go to people.
func TestJudgeSaysWhy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		c          verdict.Case
		rule, text string
	}{
		{verdict.Case{}, "never_the_last", "it is the only server, and nobody else can look"},
		{verdict.Case{Others: 3, Up: 2, Unknown: 1}, "answers", "2 of 3 observers reach it and none misses it"},
		{verdict.Case{Others: 3, Up: 1, Down: 2}, "others_reach_it", "2 of 3 observers miss it, but 1 reach it"},
		{verdict.Case{Others: 3, Down: 3, Proof: verdict.ProofAlive}, "stream_answers", "3 of 3 observers miss it, but its own stream answers"},
		{verdict.Case{Others: 1, Down: 1, Dial: verdict.DialAnswered}, "tcp_answers", "1 of 1 observers miss it, but a TCP connect was answered"},
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
		"unknown": verdict.SightUnknown, "up": verdict.SightUp, "down": verdict.SightDown, "cannot_judge": verdict.SightCannotJudge,
		"its stream answers": verdict.ProofAlive, "its stream is silent": verdict.ProofSilent, "it has no stream": verdict.ProofAbsent,
	} {
		if got.String() != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
