package detector

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

func reply(p Probe) Outcome {
	return Outcome{Probe: p.ID, Result: Replied, RTT: time.Millisecond}
}

func loopbackOf(out Output) *Probe {
	if i := slices.IndexFunc(out.Probes, func(p Probe) bool { return p.Loopback }); i >= 0 {
		return &out.Probes[i]
	}
	return nil
}

// Another probe method or address makes another target of a subject; another phase only
// moves its next probe, and another period those of all.
func TestWhatBeginsAnew(t *testing.T) {
	t.Parallel()
	const period = time.Second
	for name, test := range map[string]struct {
		edit   func(*Subject, *time.Duration)
		anew   bool
		nextIn time.Duration
	}{
		"nothing":    {func(*Subject, *time.Duration) {}, false, 750 * time.Millisecond},
		"a phase":    {func(s *Subject, _ *time.Duration) { s.PhaseOffset = 500 * time.Millisecond }, false, 250 * time.Millisecond},
		"a period":   {func(_ *Subject, p *time.Duration) { *p = 500 * time.Millisecond }, false, 250 * time.Millisecond},
		"no period":  {func(_ *Subject, p *time.Duration) { *p = 0 }, false, 0},
		"a method":   {func(s *Subject, _ *time.Duration) { s.Probe = member.Probe{Method: member.ProbeTCP, Port: 80} }, true, 0},
		"an address": {func(s *Subject, _ *time.Duration) { s.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.9")} }, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := New()
			s := subject("a", 0)
			first := d.Assign(epoch, period, []Subject{s}).Probes[0]
			d.Outcome(epoch.Add(time.Millisecond), reply(first))
			now, p := epoch.Add(250*time.Millisecond), period
			d.Tick(now)
			test.edit(&s, &p)
			out := d.Assign(now, p, []Subject{s})
			if v := d.Views(now)[0]; (v.Evidence.Sight == Unknown) != test.anew {
				t.Errorf("sight %v", v.Evidence.Sight)
			}
			if got := len(out.Probes) > 0; got != (test.nextIn == 0) {
				t.Errorf("probed at once: %v", got)
			}
			if test.nextIn > 0 {
				if next := d.watches[0].next.Sub(now); next != test.nextIn {
					t.Errorf("the next probe comes in %v, want %v", next, test.nextIn)
				}
			}
			if d.period < MinPeriod {
				t.Errorf("period %v", d.period)
			}
		})
	}
}

// A stall shows in whatever comes after it: a new assignment, an outcome, or a Tick.
// It voids the probes in flight, and those whom it made uncertain are probed anew.
func TestStallShowsInEveryInput(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func(*Detector, time.Time, Probe) Output{
		"assign": func(d *Detector, now time.Time, _ Probe) Output {
			return d.Assign(now, time.Second, []Subject{subject("a", 0)})
		},
		"outcome": func(d *Detector, now time.Time, p Probe) Output {
			return d.Outcome(now, Outcome{Probe: p.ID, Result: Lost})
		},
		"tick": func(d *Detector, now time.Time, _ Probe) Output { return d.Tick(now) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := New()
			p := d.Assign(epoch, time.Second, []Subject{subject("a", 0)}).Probes[0]
			now := epoch.Add(2*time.Second + time.Millisecond)
			next(d, now, p)
			if score, trouble := d.Self(now); score != 2 {
				t.Errorf("score %d: %s; want one for the stall and one for the timers", score, trouble)
			}
			d.Outcome(now, Outcome{Probe: p.ID, Result: Lost})
			if v := d.Views(now)[0]; v.Evidence.Sight == Down || v.LostOfTen > 0 {
				t.Errorf("a loss across the stall counts: %+v", v)
			}
			// After a period it is over, after two its timers count as well.
			if score, _ := d.Self(now.Add(time.Second)); score != 1 {
				t.Errorf("score %d a period later", score)
			}
			if score, _ := d.Self(now.Add(2 * time.Second)); score != 0 {
				t.Errorf("score %d two periods later", score)
			}
		})
	}
}

// Late timers count in what the agent says of itself, but not in an examination, which
// would notice them itself.
func TestLateTimersOfAnExaminer(t *testing.T) {
	t.Parallel()
	d := New()
	d.Assign(epoch, time.Second, []Subject{subject("a", 0)})
	for _, test := range []struct {
		late time.Duration
		want int
	}{{lateness, 0}, {lateness + time.Millisecond, 1}} {
		now := d.self.expected.Add(test.late)
		d.Tick(now)
		if score, _ := d.Self(now); score != test.want || d.Examiner(now) != 0 {
			t.Errorf("%v late: score %d, of the examiner %d", test.late, score, d.Examiner(now))
		}
	}
	now := d.self.last
	d.Outcome(now, Outcome{Probe: d.lastID, Result: NotSent, Trouble: "no permission"})
	if score, _ := d.Self(now); d.Examiner(now) != score-1 {
		t.Errorf("score %d, of the examiner %d", score, d.Examiner(now))
	}
}

// An outcome that the shell was late to look at is no loss, and its round trip is no
// measure; but the timers are late.
func TestStalledOutcome(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		result Result
		sight  Sight
	}{"lost": {Lost, Unknown}, "replied": {Replied, Up}} {
		d := New()
		p := d.Assign(epoch, time.Second, []Subject{subject("a", 0)}).Probes[0]
		now := epoch.Add(10 * time.Millisecond)
		d.Outcome(now, Outcome{Probe: p.ID, Result: test.result, RTT: 10 * time.Millisecond, Stalled: true})
		v := d.Views(now)[0]
		if v.Evidence.Sight != test.sight || v.Evidence.RTT != 0 || v.Timeout != 0 {
			t.Errorf("%s: %+v", name, v)
		}
		if score, _ := d.Self(now); score != 1 {
			t.Errorf("%s: score %d", name, score)
		}
	}
}

// The own host is probed every five seconds, every period once it does not answer, and
// never twice at a time. Losses of such probes count like any other.
func TestLoopback(t *testing.T) {
	t.Parallel()
	start := func() (*Detector, Probe) {
		d := New()
		return d, *loopbackOf(d.Assign(epoch, time.Second, []Subject{subject("a", 0)}))
	}
	at := func(d *Detector, until time.Duration) (next *Probe, when time.Duration) {
		now := d.self.last
		for now.Sub(epoch) < until {
			now = d.Wake(now)
			if p := loopbackOf(d.Tick(now)); p != nil {
				return p, now.Sub(epoch)
			}
		}
		return nil, 0
	}
	t.Run("well", func(t *testing.T) {
		t.Parallel()
		d, p := start()
		d.Outcome(epoch.Add(time.Millisecond), reply(p))
		if _, when := at(d, 10*time.Second); when < 4500*time.Millisecond || when > 5500*time.Millisecond {
			t.Errorf("probed again after %v", when)
		}
	})
	t.Run("in flight", func(t *testing.T) {
		t.Parallel()
		d, _ := start()
		if p, when := at(d, 20*time.Second); p != nil {
			t.Errorf("probed again after %v, before the outcome", when)
		}
	})
	for name, test := range map[string]struct {
		outcome Outcome
		trouble bool
	}{
		"lost":     {Outcome{Result: Lost}, true},
		"stalled":  {Outcome{Result: Lost, Stalled: true}, false},
		"not sent": {Outcome{Result: NotSent, Trouble: "no permission"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, p := start()
			test.outcome.Probe = p.ID
			now := epoch.Add(200 * time.Millisecond)
			d.Outcome(now, test.outcome)
			if score, trouble := d.Self(now); (score == 1) != test.trouble {
				t.Fatalf("score %d: %s", score, trouble)
			}
		})
	}
	t.Run("in a stall", func(t *testing.T) {
		t.Parallel()
		d, p := start()
		now := epoch.Add(5 * time.Second)
		d.Tick(now)
		d.Outcome(now.Add(1500*time.Millisecond), Outcome{Probe: p.ID, Result: Lost}) // the quarantine is over
		if d.self.loopTrouble != "" {
			t.Errorf("%s", d.self.loopTrouble)
		}
	})
	t.Run("after trouble", func(t *testing.T) {
		t.Parallel()
		d, p := start()
		d.Outcome(epoch.Add(200*time.Millisecond), Outcome{Probe: p.ID, Result: Lost})
		next, first := at(d, 10*time.Second)
		if next == nil {
			t.Fatal("never probed again")
		}
		d.Outcome(d.self.last.Add(200*time.Millisecond), Outcome{Probe: next.ID, Result: Lost})
		if _, second := at(d, 10*time.Second); second-first > 1500*time.Millisecond {
			t.Errorf("probed again after %v", second-first)
		}
	})
}

// Who watches one server, or reaches one of two, has no reason to doubt itself.
func TestAllAreSilentAtOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lost []Result
		want int
	}{
		"one of one": {[]Result{Lost}, 0}, "one of two": {[]Result{Lost, Replied}, 0}, "two of two": {[]Result{Lost, Lost}, 1},
		"two of three": {[]Result{Lost, Lost, Replied}, 0}, "three of three": {[]Result{Lost, Lost, Lost}, 1},
	} {
		d := New()
		var subjects []Subject
		for i := range test.lost {
			subjects = append(subjects, subject(string(rune('a'+i)), 0))
		}
		out := d.Assign(epoch, time.Second, subjects)
		now := epoch.Add(200 * time.Millisecond)
		for i, r := range test.lost {
			d.Outcome(now, Outcome{Probe: probeOf(t, out, subjects[i].ID).ID, Result: r})
		}
		if score, trouble := d.Self(now); score != test.want {
			t.Errorf("%s: score %d: %s", name, score, trouble)
		}
	}
}
