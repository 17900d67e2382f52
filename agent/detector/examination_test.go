package detector

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestExaminationAnswers: for any question and any fate of its probes and
// connects there are interim answers, one of a kind at most, then exactly one
// final answer by the deadline. It is "up" exactly if a reply came first, and
// "down" only if every probe was sent and lost; and a connect that was answered
// is in it.
func TestExaminationAnswers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := Question{
			Subject: subject("s", 0), Probes: rapid.IntRange(-1, maxExamProbes+2).Draw(t, "probes"),
			Over:       time.Duration(rapid.Int64Range(-1, int64(2*time.Second)).Draw(t, "over")),
			Timeout:    time.Duration(rapid.Int64Range(0, int64(MaxTimeout)).Draw(t, "timeout")),
			Exhaustive: rapid.Bool().Draw(t, "exhaustive"),
		}
		if rapid.Bool().Draw(t, "connect") {
			q.Connect = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")}
		}
		x := exam{t: t, now: epoch, q: q, e: Examine(epoch, q)}
		x.take(x.e.Tick(x.now))
		for !x.e.Done() {
			x.step()
		}
		if took, most := x.now.Sub(epoch), max(q.Over, 0)+MaxTimeout+straggle; took > most {
			t.Fatalf("took %v of %v", took, most)
		}
		x.check()
		if f := x.e.Tick(x.now.Add(time.Hour)); len(f.Answers)+len(f.Probes)+len(f.Dial.To) > 0 {
			t.Fatalf("after the end: %+v", f)
		}
	})
}

// exam is an examination with the world around it.
type exam struct {
	t   *rapid.T
	now time.Time
	q   Question
	e   *Examination

	fates    []fate
	outcomes []Outcome
	connects []Connect
	dials    int
	answers  []Answer
}

type fate struct {
	at time.Time
	// o is of a probe; connect, where set, of the connects.
	o       Outcome
	connect Connect
}

func (x *exam) take(f Findings) {
	kinds := []string{"lost", "lost", "lost", "lost", "replied", "not sent", "stalled"}
	for _, p := range f.Probes {
		o, after := Outcome{Probe: p.ID, Result: Lost}, p.Timeout
		switch rapid.SampledFrom(kinds).Draw(x.t, "fate") {
		case "replied":
			after = time.Duration(rapid.Int64Range(0, int64(p.Timeout)).Draw(x.t, "rtt"))
			o.Result, o.RTT = Replied, after
		case "not sent":
			o.Result, after = NotSent, 0
		case "stalled":
			o.Stalled = true
		}
		x.fates = append(x.fates, fate{at: x.now.Add(after), o: o})
	}
	if len(f.Dial.To) > 0 {
		x.dials++
		c := rapid.SampledFrom([]Connect{ConnectAnswered, ConnectUnanswered, ConnectNotSent}).Draw(x.t, "connected")
		after := time.Duration(rapid.Int64Range(0, int64(f.Dial.Timeout+2*straggle)).Draw(x.t, "connect time"))
		x.fates = append(x.fates, fate{at: x.now.Add(after), connect: c})
	}
	x.answers = append(x.answers, f.Answers...)
}

func (x *exam) step() {
	slices.SortStableFunc(x.fates, func(a, b fate) int { return a.at.Compare(b.at) })
	if len(x.fates) == 0 || x.fates[0].at.After(x.e.Wake()) {
		x.now = x.e.Wake()
		x.take(x.e.Tick(x.now))
		if !x.e.Done() && !x.e.Wake().After(x.now) {
			x.t.Fatal("Wake is not in the future: the shell would spin")
		}
		return
	}
	next := x.fates[0]
	x.fates, x.now = x.fates[1:], next.at
	if next.connect != ConnectNone {
		x.connects = append(x.connects, next.connect)
		x.take(x.e.Connected(next.connect))
		return
	}
	x.outcomes = append(x.outcomes, next.o)
	x.take(x.e.Outcome(x.now, next.o))
}

func (x *exam) check() {
	t := x.t
	last := len(x.answers) - 1
	kinds := map[[2]int]bool{}
	for i, a := range x.answers {
		if a.Final != (i == last) || !a.Final && a.Evidence.Sight == CannotJudge {
			t.Fatalf("answers %+v", x.answers)
		}
		kind := [2]int{int(a.Evidence.Sight), int(a.Evidence.Connect)}
		if !a.Final && kinds[kind] {
			t.Fatalf("answers %+v", x.answers)
		}
		kinds[kind] = true
	}
	probes := min(max(x.q.Probes, 1), maxExamProbes)
	final := x.answers[last].Evidence
	count := func(is func(Outcome) bool) (n int) {
		for _, o := range x.outcomes {
			if is(o) {
				n++
			}
		}
		return n
	}
	replied := count(func(o Outcome) bool { return o.Result == Replied })
	spoilt := count(func(o Outcome) bool { return o.Result == NotSent || (o.Stalled && o.Result == Lost) })
	lost := count(func(o Outcome) bool { return o.Result == Lost && !o.Stalled })
	switch {
	case (final.Sight == Up) != (replied > 0):
	case final.Sight == Down && (spoilt > 0 || final.Lost != probes || final.Sent != probes):
	case final.Sight == CannotJudge && spoilt == 0:
	case final.Lost != lost:
	case x.q.Exhaustive && spoilt == 0 && (final.Sent != probes || final.Lost+replied != probes):
	case x.dials > 1 || x.dials > 0 && len(x.q.Connect) == 0:
	case slices.Contains(x.connects, ConnectAnswered) != (final.Connect == ConnectAnswered):
	case len(x.connects) == 0 && final.Connect == ConnectUnanswered:
	default:
		return
	}
	t.Fatalf("final %+v after %+v and %d dials, %v", final, x.outcomes, x.dials, x.connects)
}

// TestLiveServerCostsOneProbe: while a reply takes no longer than the probes are
// apart.
func TestLiveServerCostsOneProbe(t *testing.T) {
	t.Parallel()
	e := Examine(epoch, Question{Subject: subject("s", 0), Probes: 20, Over: 475 * time.Millisecond, Timeout: MaxTimeout})
	probes := len(e.Tick(epoch).Probes)
	reply := epoch.Add(24 * time.Millisecond)
	if e.Wake().Before(reply) {
		t.Errorf("the second probe is due after %v", e.Wake().Sub(epoch))
	}
	f := e.Outcome(reply, Outcome{Probe: 1, Result: Replied, RTT: 24 * time.Millisecond})
	if !e.Done() || len(f.Answers) != 1 || !f.Answers[0].Final || probes != 1 {
		t.Errorf("%d probes, %+v", probes, f)
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
