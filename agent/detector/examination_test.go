package detector

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestExaminationAnswers: for any question and any fate of its probes there is
// at most one interim answer, then exactly one final answer by the deadline. It
// is "up" exactly if a reply came first, and "down" only if every probe was sent
// and lost.
func TestExaminationAnswers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := Question{
			Subject: subject("s", 0), Probes: rapid.IntRange(-1, 12).Draw(t, "probes"),
			Over:    time.Duration(rapid.Int64Range(-1, int64(2*time.Second)).Draw(t, "over")),
			Timeout: time.Duration(rapid.Int64Range(0, int64(MaxTimeout)).Draw(t, "timeout")),
		}
		most := max(q.Over, 0) + MaxTimeout + straggle
		now := epoch
		e := Examine(now, q)
		type fate struct {
			at time.Time
			o  Outcome
		}
		var fates []fate
		var outcomes []Outcome
		var answers []Answer
		take := func(f Findings) {
			for _, p := range f.Probes {
				kind := rapid.SampledFrom([]string{"lost", "lost", "lost", "replied", "not sent", "stalled"}).Draw(t, "fate")
				o, after := Outcome{Probe: p.ID, Result: Lost}, p.Timeout
				switch kind {
				case "replied":
					after = time.Duration(rapid.Int64Range(0, int64(p.Timeout)).Draw(t, "rtt"))
					o.Result, o.RTT = Replied, after
				case "not sent":
					o.Result, after = NotSent, 0
				case "stalled":
					o.Stalled = true
				}
				fates = append(fates, fate{now.Add(after), o})
			}
			answers = append(answers, f.Answers...)
		}
		take(e.Tick(now))
		for !e.Done() {
			slices.SortStableFunc(fates, func(a, b fate) int { return a.at.Compare(b.at) })
			if len(fates) > 0 && !fates[0].at.After(e.Wake()) {
				now = fates[0].at
				outcomes = append(outcomes, fates[0].o)
				f := e.Outcome(now, fates[0].o)
				fates = fates[1:]
				take(f)
				continue
			}
			if !e.Wake().After(now) {
				t.Fatal("Wake is not in the future")
			}
			now = e.Wake()
			take(e.Tick(now))
		}
		if took := now.Sub(epoch); took > most {
			t.Fatalf("took %v of %v", took, most)
		}
		checkAnswers(t, answers, outcomes, min(max(q.Probes, 1), maxExamProbes))
		if f := e.Tick(now.Add(time.Hour)); len(f.Answers)+len(f.Probes) > 0 {
			t.Fatalf("after the end: %+v", f)
		}
	})
}

func checkAnswers(t *rapid.T, answers []Answer, outcomes []Outcome, probes int) {
	if len(answers) == 0 || len(answers) > 2 {
		t.Fatalf("%d answers", len(answers))
	}
	for i, a := range answers {
		if a.Final != (i == len(answers)-1) || (!a.Final && a.Evidence.Sight != Down) {
			t.Fatalf("answers %+v", answers)
		}
	}
	final := answers[len(answers)-1].Evidence
	replied := slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Result == Replied })
	spoilt := slices.ContainsFunc(outcomes, func(o Outcome) bool { return o.Result == NotSent || (o.Stalled && o.Result == Lost) })
	if (final.Sight == Up) != replied {
		t.Fatalf("final %+v after %+v", final, outcomes)
	}
	if final.Sight == Down && (spoilt || final.Lost != probes || final.Sent != probes) {
		t.Fatalf("final %+v after %+v", final, outcomes)
	}
	if final.Sight == CannotJudge && !spoilt {
		t.Fatalf("final %+v after %+v", final, outcomes)
	}
}

func TestExaminationReachesOverItsTime(t *testing.T) {
	t.Parallel()
	e := Examine(epoch, Question{Subject: subject("s", 0), Probes: 3, Over: 500 * time.Millisecond, Timeout: MinTimeout})
	var sent []time.Duration
	for now := epoch; !e.Done(); now = e.Wake() {
		for range e.Tick(now).Probes {
			sent = append(sent, now.Sub(epoch))
		}
	}
	want := []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond}
	if !slices.Equal(sent, want) {
		t.Errorf("probes at %v, want %v", sent, want)
	}
}
