package daemon

import (
	"context"
	"time"

	"github.com/buddyring/buddyring/agent/detector"
)

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
			Sight: detector.CannotJudge, Trouble: "this agent is busy with too many questions",
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
	outcomes := make(chan detector.Outcome)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !e.Done() {
		var f detector.Findings
		select {
		case <-ctx.Done():
			return
		case o := <-outcomes:
			f = e.Outcome(time.Now(), o)
		case <-timer.C:
			f = e.Tick(time.Now())
		}
		for _, p := range f.Probes {
			w.probes.Go(func() { w.probe(ctx, p, outcomes) })
		}
		for _, a := range f.Answers {
			answer(a)
		}
		timer.Reset(time.Until(e.Wake()))
	}
}
