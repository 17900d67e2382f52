// Package detector decides what an agent sees of the servers it watches: when
// to probe whom, how long to wait, when a missing reply becomes a doubt and when
// a doubt ends, and how far the observer may trust itself.
//
// It sends nothing and reads no clock. The shell tells it the time with every
// input, sends the probes it asks for, hands each outcome back, and calls Tick
// at Wake. It never decides that a server is down for the pool: that takes the
// coordinator and other observers.
package detector

import (
	"net/netip"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Limits of detection. The time-outs are those of one probe.
const (
	MinTimeout = 20 * time.Millisecond
	MaxTimeout = 200 * time.Millisecond
	// MinPeriod is the shortest period that Assign accepts.
	MinPeriod = 50 * time.Millisecond
	// WindowSize is the number of past probes over which loss is counted.
	WindowSize = 10

	burstProbes  = 3
	burstSpacing = 50 * time.Millisecond

	// A subject is lossy from so many lost probes in the window on, until they are
	// as few as that again.
	lossyFrom, lossyUntil = 4, 2
)

// Key names one membership of a server.
type Key struct {
	ID          member.ID
	Incarnation member.Incarnation
}

// Subject is a server to watch.
type Subject struct {
	Key
	// Addresses are at most one per family; the subject is down when all fail.
	Addresses []netip.Addr
	Probe     member.Probe
	// PhaseOffset is when within the period to probe, by the wall clock.
	PhaseOffset time.Duration
}

// sameTarget reports whether what was seen of s holds for o too.
func (s Subject) sameTarget(o Subject) bool {
	return s.Key == o.Key && s.Probe == o.Probe && slices.Equal(s.Addresses, o.Addresses)
}

// Probe asks the shell to send one probe and to hand its Outcome back.
type Probe struct {
	// ID is unique within the Detector or Examination that asked.
	ID uint64
	// Loopback asks for a probe of the agent's own host; Subject is then empty.
	Loopback bool
	Subject  Subject
	// Timeout is how long to wait for a reply once the probe has gone out.
	Timeout time.Duration
}

// Result is how a probe ended.
type Result uint8

// The results. NotSent is trouble of the observer and never evidence.
const (
	Replied Result = iota + 1
	Lost
	NotSent
)

// Outcome is what became of a Probe.
type Outcome struct {
	Probe  uint64
	Result Result
	// RTT is the round trip of a reply.
	RTT time.Duration
	// Stalled says that the observer was late to look. A loss is then no
	// evidence and RTT no sample, but a reply is a reply.
	Stalled bool
	// Trouble says in plain words why a probe was not sent.
	Trouble string
}

// Sight is what an observer sees of a subject.
type Sight uint8

// The sights. Unknown is before the first outcome.
const (
	Unknown Sight = iota
	Up
	Down
	CannotJudge
)

// Evidence is what stands behind a Sight.
type Evidence struct {
	Sight Sight
	// Sent and Lost count the present run of lost probes when the sight is Down,
	// otherwise the probes in the window.
	Sent, Lost int
	// RTT is the last measured round trip, or 0.
	RTT time.Duration
	// FirstLost is when the first of the present run of lost probes was sent;
	// zero when the last probe was answered.
	FirstLost time.Time
	// LastReply is when the last reply came; zero when there was none.
	LastReply time.Time
	// Trouble says why it cannot judge, or why it doubts itself.
	Trouble string
	// Connect is what became of an Examination's TCP connects.
	Connect Connect
}

// Connect is the outcome of TCP connects to a subject.
type Connect uint8

// The outcomes. ConnectNone is before any, ConnectNotSent trouble of the
// observer and never evidence.
const (
	ConnectNone Connect = iota
	// ConnectAnswered: a SYN-ACK or RST came back.
	ConnectAnswered
	ConnectUnanswered
	ConnectNotSent
)

// Report says that the sight of a subject has changed, or that it has begun or
// ceased to lose many probes.
type Report struct {
	Key
	Evidence Evidence
	// LostOfTen counts the lost probes in the window.
	LostOfTen int
}

// View is everything that is seen of one subject.
type View struct {
	Key
	Evidence Evidence
	// Jitter is the mean deviation of the round trip.
	Jitter time.Duration
	// LostOfTen counts the lost probes in the window.
	LostOfTen int
	// Timeout is how long a healthy reply takes at most, or 0 before the first.
	Timeout time.Duration
}

// Output is what the shell must do after an input, in order.
type Output struct {
	Probes  []Probe
	Reports []Report
}

// flight is a probe whose outcome has not come yet.
type flight struct {
	// watch is nil for a probe of the loopback address.
	watch *watch
	sent  time.Time
	// void marks a probe whose loss says nothing, since the observer stood still.
	void bool
	// extra marks a probe of a burst. One short outage loses all of them, so that
	// they do not count in the window.
	extra bool
}

// Detector watches the subjects of one agent. It is not safe for concurrent
// use. Use New.
type Detector struct {
	period  time.Duration
	watches []*watch
	flights map[uint64]flight
	lastID  uint64
	self    self
}

// New returns a Detector that watches nobody.
func New() *Detector {
	return &Detector{period: member.DefaultSettings().ProbeInterval, flights: make(map[uint64]flight)}
}

// Assign replaces the subjects and the period, which is raised to MinPeriod. A
// subject whose incarnation, addresses and probe stay the same keeps its state;
// any other begins anew, and its first probe goes out at once.
func (d *Detector) Assign(now time.Time, period time.Duration, subjects []Subject) Output {
	var out Output
	d.observe(now, &out)
	period = max(period, MinPeriod)
	watches := make([]*watch, 0, len(subjects))
	for _, s := range subjects {
		i := slices.IndexFunc(d.watches, func(w *watch) bool { return w.sameTarget(s) })
		if i < 0 {
			watches = append(watches, &watch{Subject: s, next: now})
			continue
		}
		w := d.watches[i]
		if w.PhaseOffset != s.PhaseOffset || period != d.period {
			w.next = nextPhase(now, s.PhaseOffset, period)
		}
		w.PhaseOffset = s.PhaseOffset
		watches = append(watches, w)
	}
	d.watches, d.period = watches, period
	for id, f := range d.flights {
		if f.watch != nil && !slices.Contains(watches, f.watch) {
			delete(d.flights, id)
		}
	}
	d.due(now, &out)
	d.self.expected = d.Wake(now)
	return out
}

// Tick tells the time. It must be called at Wake, and may be called at any time.
func (d *Detector) Tick(now time.Time) Output {
	var out Output
	d.observe(now, &out)
	d.due(now, &out)
	d.self.expected = d.Wake(now)
	return out
}

// Outcome takes what became of a probe. Outcomes of unknown probes are ignored.
func (d *Detector) Outcome(now time.Time, o Outcome) Output {
	var out Output
	d.observe(now, &out)
	f, ok := d.flights[o.Probe]
	delete(d.flights, o.Probe)
	switch {
	case !ok:
	case f.watch == nil:
		d.self.loopback(now, f, o)
	default:
		d.judge(now, f, o, &out)
	}
	d.due(now, &out)
	d.self.expected = d.Wake(now)
	return out
}

// judge lets an outcome change the sight of its subject.
func (d *Detector) judge(now time.Time, f flight, o Outcome, out *Output) {
	w := f.watch
	before := w.sight
	if o.Stalled {
		d.self.late(now, d.period)
	}
	switch o.Result {
	case Replied:
		w.replied(now, f, o)
	case NotSent:
		w.notSent(o.Trouble)
	case Lost:
		if f.void || o.Stalled || now.Before(d.self.quarantine) {
			return
		}
		w.lost(now, f)
	}
	if crossed := w.crossed(); w.sight != before || crossed {
		out.Reports = append(out.Reports, d.report(now, w))
	}
	if w.sight == Down && before != Down {
		d.self.loopNext = now
	}
}

// due sends what is to be sent by now.
func (d *Detector) due(now time.Time, out *Output) {
	for _, w := range d.watches {
		if !w.next.After(now) {
			w.next = nextPhase(now.Add(d.period/2), w.PhaseOffset, d.period)
			d.send(now, flight{watch: w}, out)
		}
		if w.burst > 0 && !w.burstNext.After(now) {
			w.burst--
			w.burstNext = now.Add(burstSpacing)
			d.send(now, flight{watch: w, extra: true}, out)
		}
	}
	if len(d.watches) > 0 && !d.self.loopNext.After(now) && !d.loopbackInFlight() {
		d.self.loopNext = now.Add(d.loopbackPeriod())
		d.send(now, flight{}, out)
	}
}

func (d *Detector) send(now time.Time, f flight, out *Output) {
	d.lastID++
	f.sent = now
	d.flights[d.lastID] = f
	w := f.watch
	p := Probe{ID: d.lastID, Loopback: w == nil, Timeout: MaxTimeout}
	if w != nil {
		p.Subject, p.Timeout = w.Subject, w.timeout()
	}
	out.Probes = append(out.Probes, p)
}

// Wake returns when Tick is due next: after now, and at the latest half a
// period later, so that the detector notices when its host stands still.
func (d *Detector) Wake(now time.Time) time.Time {
	wake := now.Add(d.period / 2)
	for _, w := range d.watches {
		wake = earlier(wake, w.next)
		if w.burst > 0 {
			wake = earlier(wake, w.burstNext)
		}
	}
	return wake
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Views returns what is seen of every subject, in the order of the assignment.
func (d *Detector) Views(now time.Time) []View {
	views := make([]View, 0, len(d.watches))
	for _, w := range d.watches {
		views = append(views, View{
			Key: w.Key, Evidence: d.report(now, w).Evidence,
			Jitter: w.rtt.deviation, LostOfTen: w.window.lost(), Timeout: w.rtt.measured(),
		})
	}
	return views
}

// report says what is seen of w. An observer that doubts itself says so.
func (d *Detector) report(now time.Time, w *watch) Report {
	e := w.evidence()
	if e.Trouble == "" && e.Sight != Up {
		_, e.Trouble = d.Self(now)
	}
	return Report{Key: w.Key, Evidence: e, LostOfTen: w.window.lost()}
}

// nextPhase returns the first moment at or after t that lies offset into a
// period of the wall clock.
func nextPhase(t time.Time, offset, period time.Duration) time.Time {
	wait := (offset - time.Duration(t.UnixNano())) % period
	if wait < 0 {
		wait += period
	}
	return t.Add(wait)
}
