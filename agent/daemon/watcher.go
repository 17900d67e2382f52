package daemon

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/agent/prober"
)

// Prober sends probes and waits for their end; see prober.Prober.
type Prober interface {
	Probe(ctx context.Context, t prober.Target, timeout time.Duration) prober.Result
	Volley(ctx context.Context, t prober.Target, n int, spacing time.Duration) func(i int, timeout time.Duration) prober.Result
	Connect(ctx context.Context, to []netip.AddrPort, timeout time.Duration) prober.Result
}

// sighting is everything that the watcher sees. It is immutable.
type sighting struct {
	views []detector.View
	// score and trouble are what the agent thinks of itself.
	score   int
	trouble string
}

// timeout is how long to wait for a reply of a server, or 0 if it is not
// watched or has not replied yet.
func (s sighting) timeout(k detector.Key) time.Duration {
	for _, v := range s.views {
		if v.Key == k {
			return v.Timeout
		}
	}
	return 0
}

// sink takes what the watcher has to report, without blocking.
type sink func(detector.Report)

// watcher drives a detector: one goroutine owns it, and each probe has its own.
type watcher struct {
	prober   Prober
	loopback prober.Target
	log      *slog.Logger
	metrics  *metrics

	assigned chan Assignment
	attached chan sink
	seen     atomic.Pointer[sighting]
	probes   sync.WaitGroup
	// room bounds what examinations have in flight.
	room *semaphore.Weighted
}

func newWatcher(p Prober, loopback prober.Target, log *slog.Logger, m *metrics) *watcher {
	w := &watcher{
		prober: p, loopback: loopback, log: log, metrics: m,
		assigned: make(chan Assignment), attached: make(chan sink),
		room: semaphore.NewWeighted(maxInFlight),
	}
	w.seen.Store(&sighting{})
	return w
}

// sees returns what is seen now. It does not block.
func (w *watcher) sees() sighting { return *w.seen.Load() }

// assign replaces whom to watch.
func (w *watcher) assign(ctx context.Context, a Assignment) {
	select {
	case w.assigned <- a:
	case <-ctx.Done():
	}
}

// attach makes s the place for reports, in place of the one before, and reports
// everything that is seen at present to it. A nil sink drops them.
func (w *watcher) attach(ctx context.Context, s sink) {
	select {
	case w.attached <- s:
	case <-ctx.Done():
	}
}

// run watches until ctx ends. Probes end soon after; wait for them when nobody
// examines any more.
func (w *watcher) run(ctx context.Context) {
	d := detector.New()
	outcomes := make(chan detector.Outcome)
	timer := time.NewTimer(0)
	defer timer.Stop()
	report := sink(nil)
	for {
		var out detector.Output
		select {
		case <-ctx.Done():
			return
		case a := <-w.assigned:
			out = d.Assign(time.Now(), a.Period, subjects(a))
		case s := <-w.attached:
			report = s
			for _, r := range known(d.Views(time.Now())) {
				w.tell(report, r)
			}
		case o := <-outcomes:
			out = d.Outcome(time.Now(), o)
		case <-timer.C:
			out = d.Tick(time.Now())
		}
		w.look(d)
		for _, p := range out.Probes {
			w.probes.Go(func() { w.probe(ctx, p, outcomes) })
		}
		for _, r := range out.Reports {
			w.log.Info("sight changed", "server_id", r.ID, "incarnation", r.Incarnation,
				"sight", sightName(r.Evidence.Sight), "sent", r.Evidence.Sent, "lost", r.Evidence.Lost, "lost_of_ten", r.LostOfTen,
				"trouble", r.Evidence.Trouble)
			w.tell(report, r)
		}
		now := time.Now()
		timer.Reset(d.Wake(now).Sub(now))
	}
}

func (w *watcher) tell(to sink, r detector.Report) {
	if to != nil {
		w.metrics.reports.WithLabelValues(sightName(r.Evidence.Sight)).Inc()
		to(r)
	}
}

func (w *watcher) look(d *detector.Detector) {
	now := time.Now()
	s := &sighting{views: d.Views(now)}
	s.score, s.trouble = d.Self(now)
	w.seen.Store(s)
	w.metrics.saw(*s)
}

// known are the reports that a newcomer has missed.
func known(views []detector.View) []detector.Report {
	var reports []detector.Report
	for _, v := range views {
		if v.Evidence.Sight != detector.Unknown {
			reports = append(reports, detector.Report{Key: v.Key, Evidence: v.Evidence, LostOfTen: v.LostOfTen})
		}
	}
	return reports
}

func subjects(a Assignment) []detector.Subject {
	out := make([]detector.Subject, 0, len(a.Subjects))
	for _, s := range a.Subjects {
		out = append(out, s.Subject)
	}
	return out
}

// probe sends one probe and hands its outcome to the detector.
func (w *watcher) probe(ctx context.Context, p detector.Probe, outcomes chan<- detector.Outcome) {
	target := targetOf(p.Subject)
	if p.Loopback {
		target = w.loopback
	}
	w.tellOutcome(ctx, p, w.prober.Probe(ctx, target, p.Timeout), outcomes)
}

func targetOf(s detector.Subject) prober.Target {
	return prober.Target{Addresses: s.Addresses, Probe: s.Probe}
}

// tellOutcome hands the result of a probe to whoever asked for it.
func (w *watcher) tellOutcome(ctx context.Context, p detector.Probe, r prober.Result, outcomes chan<- detector.Outcome) {
	if ctx.Err() != nil {
		return
	}
	if !p.Loopback {
		w.metrics.probed(r)
	}
	select {
	case outcomes <- outcome(p, r):
	case <-ctx.Done():
	}
}

func outcome(p detector.Probe, r prober.Result) detector.Outcome {
	o := detector.Outcome{Probe: p.ID, RTT: r.RTT, Stalled: r.Late}
	switch r.Outcome {
	case prober.Replied:
		o.Result = detector.Replied
	case prober.Lost:
		o.Result = detector.Lost
	case prober.NotSent:
		o.Result = detector.NotSent
		o.Trouble = r.Err.Error()
	}
	return o
}
