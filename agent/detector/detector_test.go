package detector

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
)

var epoch = time.Unix(1_700_000_000, 0)

func TestClocksThatMoveApartAreAStall(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	for _, c := range []struct {
		name            string
		monotonic, wall time.Duration
		want            bool
	}{
		{"ordinary", 250 * time.Millisecond, 250 * time.Millisecond, false},
		{"the wall clock is slewed", 250 * time.Millisecond, 260 * time.Millisecond, false},
		{"SIGSTOP", time.Minute, time.Minute, true},
		{"suspend: the monotonic clock stops", 250 * time.Millisecond, time.Hour, true},
		{"the wall clock is set back", 250 * time.Millisecond, -time.Hour, true},
		{"exactly the limit", limit, limit, false},
	} {
		if got := stalled(c.monotonic, c.wall, limit) != ""; got != c.want {
			t.Errorf("%s: stalled = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestEstimatorFollowsRFC6298(t *testing.T) {
	t.Parallel()
	var e estimator
	if got := e.measured(); got != 0 {
		t.Errorf("before the first sample: %v, want 0", got)
	}
	// R = 20 ms: SRTT = 20, RTTVAR = 10. R = 30 ms: RTTVAR = 3/4·10 + 1/4·10 =
	// 10, SRTT = 7/8·20 + 1/8·30 = 21.25.
	e.sample(20 * time.Millisecond)
	if got, want := e.measured(), 60*time.Millisecond; got != want {
		t.Errorf("after one sample: %v, want %v", got, want)
	}
	e.sample(30 * time.Millisecond)
	if got, want := e.measured(), 61250*time.Microsecond; got != want {
		t.Errorf("after two samples: %v, want %v", got, want)
	}
}

func TestTimeoutStaysBetweenItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var e estimator
		for _, rtt := range rapid.SliceOf(rapid.Int64Range(0, int64(time.Hour))).Draw(t, "rtts") {
			e.sample(time.Duration(rtt))
			if got := e.measured(); got < MinTimeout || got > MaxTimeout {
				t.Fatalf("timeout %v", got)
			}
		}
	})
}

func TestLossOfAnOlderProbeOpensNoDoubt(t *testing.T) {
	t.Parallel()
	d := New()
	a := subject("a", 0)
	first := d.Assign(epoch, MinPeriod, []Subject{a}).Probes[0]
	second := probeOf(t, d.Tick(epoch.Add(MinPeriod)), "a")
	d.Outcome(epoch.Add(51*time.Millisecond), Outcome{Probe: second.ID, Result: Replied, RTT: time.Millisecond})
	out := d.Outcome(epoch.Add(60*time.Millisecond), Outcome{Probe: first.ID, Result: Lost})
	if len(out.Reports) != 0 {
		t.Errorf("reports: %+v", out.Reports)
	}
	v := d.Views(epoch.Add(60 * time.Millisecond))[0]
	if v.Evidence.Sight != Up || v.LostOfTen != 1 {
		t.Errorf("sight %v, lost %d; want up with one lost", v.Evidence.Sight, v.LostOfTen)
	}
}

func TestNewIncarnationBeginsAnew(t *testing.T) {
	t.Parallel()
	d := New()
	a := subject("a", 0)
	p := d.Assign(epoch, time.Second, []Subject{a}).Probes[0]
	d.Outcome(epoch.Add(time.Millisecond), Outcome{Probe: p.ID, Result: Replied, RTT: time.Millisecond})
	a.Incarnation = 2
	now := epoch.Add(2 * time.Millisecond)
	p = probeOf(t, d.Assign(now, time.Second, []Subject{a}), "a")
	if p.Timeout != MaxTimeout {
		t.Errorf("time-out %v from the old incarnation's link", p.Timeout)
	}
	out := d.Outcome(now.Add(time.Millisecond), Outcome{Probe: p.ID, Result: Replied, RTT: time.Millisecond})
	if len(out.Reports) != 1 || out.Reports[0].Incarnation != 2 || out.Reports[0].Evidence.Sight != Up {
		t.Errorf("reports %+v; want the first good probe of incarnation 2", out.Reports)
	}
}

func probeOf(t *testing.T, out Output, id member.ID) Probe {
	t.Helper()
	i := slices.IndexFunc(out.Probes, func(p Probe) bool { return p.Subject.ID == id })
	if i < 0 {
		t.Fatalf("no probe of %s in %+v", id, out.Probes)
	}
	return out.Probes[i]
}

// TestReportsAreTheViews drives a detector with random inputs and keeps a naive
// model: what the reports add up to must be what the views say, whatever
// happened.
func TestReportsAreTheViews(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			m.step(t)
		}
	})
}

// model is a random shell: it answers probes in any order, late or never.
type model struct {
	d       *Detector
	now     time.Time
	flights []Probe
	// voided are probes in flight during a stall.
	voided map[uint64]bool
	// sights is what the reports add up to.
	sights map[Key]Sight
	// lossy are the subjects that were last reported to lose four of ten or more,
	// and not yet two or less.
	lossy map[Key]bool
	all   []Subject
	last  time.Time
}

func newModel() *model {
	all := []Subject{subject("a", 0), subject("b", 50*time.Millisecond), subject("c", 90*time.Millisecond)}
	next := all[0]
	next.Incarnation = 2
	return &model{
		d: New(), now: epoch, voided: map[uint64]bool{}, sights: map[Key]Sight{}, lossy: map[Key]bool{},
		all: append(all, next), last: epoch,
	}
}

const modelPeriod = 100 * time.Millisecond

func (m *model) step(t *rapid.T) {
	switch rapid.SampledFrom([]string{"wake", "wake", "outcome", "outcome", "assign", "stall"}).Draw(t, "input") {
	case "wake":
		m.now = m.d.Wake(m.now)
		m.take(t, m.d.Tick(m.now))
	case "stall":
		m.now = m.now.Add(rapid.SampledFrom([]time.Duration{90 * time.Millisecond, time.Second}).Draw(t, "gap"))
		if m.now.Sub(m.last) > max(2*modelPeriod, MaxTimeout) {
			for _, p := range m.flights {
				m.voided[p.ID] = true
			}
		}
		m.take(t, m.d.Tick(m.now))
	case "assign":
		some := rapid.SliceOfNDistinct(rapid.SampledFrom(m.all), 0, 3, func(s Subject) member.ID { return s.ID }).Draw(t, "subjects")
		dropped := func(k Key) bool { return !slices.ContainsFunc(some, func(s Subject) bool { return s.Key == k }) }
		maps.DeleteFunc(m.sights, func(k Key, _ Sight) bool { return dropped(k) })
		maps.DeleteFunc(m.lossy, func(k Key, _ bool) bool { return dropped(k) })
		m.flights = slices.DeleteFunc(m.flights, func(p Probe) bool { return !p.Loopback && dropped(p.Subject.Key) })
		m.take(t, m.d.Assign(m.now, modelPeriod, some))
	case "outcome":
		m.outcome(t)
	}
	m.check(t)
}

func (m *model) outcome(t *rapid.T) {
	if len(m.flights) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.flights)-1).Draw(t, "flight")
	p := m.flights[i]
	m.flights = slices.Delete(m.flights, i, i+1)
	o := Outcome{
		Probe: p.ID, Result: rapid.SampledFrom([]Result{Replied, Lost, NotSent}).Draw(t, "result"),
		RTT: time.Millisecond, Stalled: rapid.Bool().Draw(t, "stalled"),
	}
	out := m.d.Outcome(m.now, o)
	for _, r := range out.Reports {
		if r.Evidence.Sight == Down && (o.Result != Lost || o.Stalled || m.voided[p.ID]) {
			t.Fatalf("%v became a doubt: %+v", o, r)
		}
	}
	m.take(t, out)
	if i := m.view(p.Subject.Key); o.Result == Replied && !p.Loopback && i != nil && i.Evidence.Sight != Up {
		t.Fatalf("a reply left %s %v", p.Subject.ID, i.Evidence.Sight)
	}
}

func (m *model) view(k Key) *View {
	views := m.d.Views(m.now)
	if i := slices.IndexFunc(views, func(v View) bool { return v.Key == k }); i >= 0 {
		return &views[i]
	}
	return nil
}

func (m *model) take(t *rapid.T, out Output) {
	m.last = m.now
	for _, p := range out.Probes {
		if p.Timeout < MinTimeout || p.Timeout > MaxTimeout {
			t.Fatalf("probe %+v", p)
		}
		m.flights = append(m.flights, p)
	}
	for _, r := range out.Reports {
		lossy := r.LostOfTen >= 4 || m.lossy[r.Key] && r.LostOfTen > 2
		if m.sights[r.Key] == r.Evidence.Sight && m.lossy[r.Key] == lossy {
			t.Fatalf("a report without a change: %+v", r)
		}
		m.sights[r.Key], m.lossy[r.Key] = r.Evidence.Sight, lossy
	}
}

func (m *model) check(t *rapid.T) {
	want := map[Key]Sight{}
	score, trouble := m.d.Self(m.now)
	if (score == 0) != (trouble == "") {
		t.Fatalf("score %d, trouble %q", score, trouble)
	}
	for _, v := range m.d.Views(m.now) {
		if v.Evidence.Sight != Unknown {
			want[v.Key] = v.Evidence.Sight
		}
		if (v.Evidence.Sight == Down) != !v.Evidence.FirstLost.IsZero() {
			t.Fatalf("first lost probe of %+v", v)
		}
		if lossy := m.lossy[v.Key]; v.LostOfTen >= 4 && !lossy || v.LostOfTen <= 2 && lossy {
			t.Fatalf("reported as lossy: %v, view %+v", lossy, v)
		}
	}
	if diff := cmp.Diff(want, m.sights); diff != "" {
		t.Fatalf("views and reports differ (-views +reports):\n%s", diff)
	}
	if !m.d.Wake(m.now).After(m.now) {
		t.Fatalf("Wake is not in the future: the shell would spin")
	}
}

// TestHealthyLinksCauseNoDoubt: whatever the periods, phases and round trips
// below MinTimeout, and whoever is assigned when, an observer whose probes are
// all answered says nothing but "up", once for each subject, and sends no more
// than two probes a period.
func TestHealthyLinksCauseNoDoubt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		period := time.Duration(rapid.Int64Range(int64(MinPeriod), int64(2*time.Second)).Draw(t, "period"))
		var subjects []Subject
		for _, id := range []string{"a", "b", "c"} {
			w.links[id] = &link{rtt: time.Duration(rapid.Int64Range(1, int64(MinTimeout)).Draw(t, "rtt"))}
			subjects = append(subjects, subject(id, time.Duration(rapid.Int64Range(0, int64(period)).Draw(t, "offset"))))
		}
		w.apply(w.detector.Assign(w.time(), period, subjects))
		const periods = 50
		w.run(periods * period)
		for _, v := range w.detector.Views(w.time()) {
			if v.Evidence.Sight != Up || v.LostOfTen != 0 {
				t.Fatalf("%+v", v)
			}
		}
		probes := int(w.detector.lastID)
		if most := 3*(periods+1) + int(periods*period/loopbackPeriod) + 1; probes > most || probes < 3*(periods-1) {
			t.Fatalf("%d probes in %d periods", probes, periods)
		}
	})
}
