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

// Whatever is asked is brought between bounds.
func TestQuestionHasBounds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		q, want Question
	}{
		"nothing":                 {Question{}, Question{Probes: 1, Timeout: MaxTimeout}},
		"negative":                {Question{Probes: -1, Over: -time.Second, Timeout: -1}, Question{Probes: 1, Timeout: MaxTimeout}},
		"too much":                {Question{Probes: 51, Over: time.Hour, Timeout: time.Second}, Question{Probes: 50, Over: time.Minute, Timeout: MaxTimeout}},
		"too fast":                {Question{Probes: 2, Over: -1, Timeout: 1}, Question{Probes: 2, Timeout: MinTimeout}},
		"one probe takes no time": {Question{Probes: 1, Over: time.Second, Timeout: MinTimeout}, Question{Probes: 1, Timeout: MinTimeout}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Examine(epoch, test.q)
			probes, spacing := e.Schedule()
			if probes != test.want.Probes || spacing*time.Duration(max(1, probes-1)) > test.want.Over || spacing < 0 {
				t.Errorf("%d probes %v apart, want %d over %v", probes, spacing, test.want.Probes, test.want.Over)
			}
			if got, want := e.limit.Sub(epoch), test.want.Over+test.want.Timeout+50*time.Millisecond; got != want {
				t.Errorf("it takes %v at most, want %v", got, want)
			}
		})
	}
}

// An examination that still lacks an outcome when its time is up is late itself; what
// has come of its probes says nothing then, unless one was answered.
func TestExaminationLacksAnOutcome(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		outcomes []Outcome
		want     Evidence
	}{
		"all lost":       {[]Outcome{{Probe: 1, Result: Lost}, {Probe: 2, Result: Lost}, {Probe: 3, Result: Lost}}, Evidence{Sight: Down}},
		"one is missing": {[]Outcome{{Probe: 1, Result: Lost}, {Probe: 2, Result: Lost}}, Evidence{Sight: CannotJudge, Trouble: lateTimers}},
		"one is stalled": {[]Outcome{{Probe: 1, Result: Lost}, {Probe: 2, Result: Lost, Stalled: true}}, Evidence{Sight: CannotJudge, Trouble: lateTimers}},
		"one replied":    {[]Outcome{{Probe: 1, Result: Lost}, {Probe: 2, Result: Replied}}, Evidence{Sight: Up, Trouble: lateTimers}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Examine(epoch, Question{
				Subject: subject("s", 0), Probes: 3, Over: 100 * time.Millisecond, Timeout: 50 * time.Millisecond, Exhaustive: name == "one replied",
			})
			var last Findings
			var ids []uint64
			for now := epoch; !e.Done(); now = e.Wake() {
				last = e.Tick(now)
				for _, p := range last.Probes {
					ids = append(ids, p.ID)
				}
				for _, o := range test.outcomes {
					if slices.Contains(ids, o.Probe) && !e.Done() && now.Sub(epoch) >= 100*time.Millisecond {
						last = e.Outcome(now, o)
					}
				}
				if now.Sub(epoch) >= 100*time.Millisecond {
					test.outcomes = nil
				}
			}
			if !slices.Equal(ids, []uint64{1, 2, 3}) {
				t.Errorf("probes %v", ids)
			}
			if len(last.Answers) != 1 || !last.Answers[0].Final || last.Answers[0].Evidence.Sight != test.want.Sight || last.Answers[0].Evidence.Trouble != test.want.Trouble {
				t.Errorf("%+v, want %+v", last.Answers, test.want)
			}
		})
	}
}

// A connect that has not ended when the time is up is trouble of the observer; one that
// has ended twice, or was not asked for, counts once or not at all.
func TestExaminationAndItsConnect(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		connected []Connect
		want      Connect
	}{
		"no outcome": {nil, ConnectNotSent},
		"unanswered": {[]Connect{ConnectUnanswered}, ConnectUnanswered},
		"twice":      {[]Connect{ConnectUnanswered, ConnectAnswered}, ConnectUnanswered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := func(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }
			e := Examine(epoch, Question{
				Subject: subject("s", 0), Probes: 2, Over: 100 * time.Millisecond, Timeout: 50 * time.Millisecond,
				Connect: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80")},
			})
			e.Tick(epoch)
			if f := e.Connected(ConnectAnswered); len(f.Answers) > 0 {
				t.Errorf("a connect that was not asked for counts: %+v", f)
			}
			if f := e.Tick(at(50)); len(f.Dial.To) != 1 || f.Dial.Timeout != 100*time.Millisecond {
				t.Fatalf("%+v", f)
			}
			for _, c := range test.connected {
				e.Connected(c)
			}
			e.Tick(at(100))
			e.Outcome(at(150), Outcome{Probe: 1, Result: Lost})
			f := e.Outcome(at(150), Outcome{Probe: 2, Result: Lost})
			if len(test.connected) == 0 {
				if e.Done() {
					t.Fatal("the connect is not waited for")
				}
				f = e.Tick(e.Wake())
			}
			if len(f.Answers) != 1 || f.Answers[0].Evidence.Connect != test.want || f.Answers[0].Evidence.Sight != Down {
				t.Errorf("%+v, want %v", f.Answers, test.want)
			}
		})
	}
}
