package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/agent/prober"
)

const (
	// maxExaminations is how many questions of a session are worked on at a time.
	maxExaminations = 64
	// maxInFlight is how many probes and connects of examinations are under way at
	// a time. Twenty probes to each of a dozen dead servers are 240.
	maxInFlight = 512
)

var errBusy = errors.New("this agent is busy with too many questions")

// examine works on a question beside everything else. A watched server is
// waited for as long as its own link needs.
func (s *session) examine(ctx context.Context, q question) {
	if t := s.watcher.sees().timeout(q.detail.Subject.Key); t > 0 {
		q.detail.Timeout = t
	}
	select {
	case s.slots <- struct{}{}:
	default:
		s.answer(q, detector.Answer{Final: true, Evidence: detector.Evidence{
			Sight: detector.CannotJudge, Trouble: errBusy.Error(),
		}})
		return
	}
	s.work.Go(func() error {
		defer func() { <-s.slots }()
		s.watcher.examine(ctx, q.detail, func(a detector.Answer) { s.answer(q, a) })
		return nil
	})
}

func (s *session) answer(q question, a detector.Answer) {
	if a.Final {
		s.metrics.answers.WithLabelValues(sightName(a.Evidence.Sight)).Inc()
	}
	s.put(s.outbox, toAnswer(q, a, s.watcher.sees().score))
}

// examine runs one examination to its end, or until ctx ends.
func (w *watcher) examine(ctx context.Context, q detector.Question, answer func(detector.Answer)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := detector.Examine(time.Now(), q)
	probes, spacing := e.Schedule()
	fire := w.prober.Volley(ctx, targetOf(q.Subject), probes, spacing)
	outcomes := make(chan detector.Outcome)
	connects := make(chan detector.Connect)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !e.Done() {
		var f detector.Findings
		select {
		case <-ctx.Done():
			return
		case o := <-outcomes:
			f = e.Outcome(time.Now(), o)
		case c := <-connects:
			f = e.Connected(c)
		case <-timer.C:
			f = e.Tick(time.Now())
		}
		for _, p := range f.Probes {
			w.probes.Go(func() { w.tellOutcome(ctx, p, w.once(p, fire), outcomes) })
		}
		if len(f.Dial.To) > 0 {
			w.probes.Go(func() { w.connect(ctx, f.Dial, connects) })
		}
		for _, a := range f.Answers {
			answer(a)
		}
		timer.Reset(time.Until(e.Wake()))
	}
}

// once makes one probe of an examination, if there is room for it.
func (w *watcher) once(p detector.Probe, fire func(i int, timeout time.Duration) prober.Result) prober.Result {
	if !w.room.TryAcquire(1) {
		return prober.Result{Outcome: prober.NotSent, Err: errBusy}
	}
	defer w.room.Release(1)
	return fire(int(p.ID-1), p.Timeout)
}

// connect tries the TCP connects of an examination, if there is room for them.
func (w *watcher) connect(ctx context.Context, d detector.Dial, outcomes chan<- detector.Connect) {
	c := detector.ConnectNotSent
	if n := int64(len(d.To)); w.room.TryAcquire(n) {
		c = connected(w.prober.Connect(ctx, d.To, d.Timeout))
		w.room.Release(n)
	}
	if ctx.Err() == nil {
		w.metrics.connects.WithLabelValues(connectName(c)).Inc()
	}
	select {
	case outcomes <- c:
	case <-ctx.Done():
	}
}

func connected(r prober.Result) detector.Connect {
	switch {
	case r.Outcome == prober.Replied:
		return detector.ConnectAnswered
	case r.Outcome == prober.Lost && !r.Late:
		return detector.ConnectUnanswered
	}
	return detector.ConnectNotSent
}

func connectName(c detector.Connect) string {
	switch c {
	case detector.ConnectAnswered:
		return "answered"
	case detector.ConnectUnanswered:
		return "unanswered"
	case detector.ConnectNone, detector.ConnectNotSent:
	}
	return "not_sent"
}
