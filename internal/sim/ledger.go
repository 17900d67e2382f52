package sim

import (
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// ledger knows the truth about the hosts and follows what is made of it.
type ledger struct {
	began time.Duration
	// At the beginning.
	probes0, replies0, messages0 int
	step0                        time.Duration
	probes, replies              int

	crashes []*crash
	// pending are the crashes that not all routers know of.
	pending []*crash
	// removals counts those by verdict per host, removedAt when the first was.
	removals  map[member.ID]int
	removedAt map[member.ID]time.Duration
	struckAt  map[member.ID]time.Duration
	// cause is that of the first removal, likelihood that of what has led to it.
	cause      map[member.ID]member.Cause
	likelihood map[member.ID]float64
	wrong      []Wrong
	revisions  int

	suspects     map[member.ID]suspicion
	wrongMarks   int
	wrongTime    time.Duration
	sizes        []int
	active       int
	fewestActive int
	allActiveAt  time.Duration
	// welcomedAt is when the last session was accepted.
	welcomedAt time.Duration
	alarms     map[string]int
	raisedNow  map[member.AlarmKey]bool
	counts     map[pool.Counter]int
	brokenRing []string
}

// crash is a host that has gone for good, with when each router avoided it and
// knew that it is removed.
type crash struct {
	host             *host
	at               time.Duration
	avoided, removed []time.Duration
	revision         member.Revision
}

// suspicion is a mark that holds.
type suspicion struct {
	since time.Duration
	wrong bool
}

// Wrong is the removal of a healthy server.
type Wrong struct {
	Server string  `json:"server"`
	AtMS   float64 `json:"at_ms"`
	Text   string  `json:"text"`
}

// begin starts to count.
func (l *ledger) begin(s *Sim) {
	probes, replies := l.probes, l.replies
	before := *l
	*l = newLedger()
	l.began, l.messages0, l.step0 = s.now, s.coordinator.messages, s.coordinator.meter.total
	l.probes0, l.replies0, l.probes, l.replies = probes, replies, probes, replies
	l.wrong, l.wrongMarks, l.brokenRing = before.wrong, before.wrongMarks, before.brokenRing
	l.suspects, l.raisedNow = before.suspects, before.raisedNow
	seen := s.routers[0].view
	l.sizes = []int{len(seen.Rows())}
	l.active = seen.Table().Count(view.StateActive)
	l.fewestActive = l.active
}

func newLedger() ledger {
	return ledger{
		removals: map[member.ID]int{}, removedAt: map[member.ID]time.Duration{}, struckAt: map[member.ID]time.Duration{},
		cause: map[member.ID]member.Cause{}, likelihood: map[member.ID]float64{}, suspects: map[member.ID]suspicion{}, alarms: map[string]int{}, raisedNow: map[member.AlarmKey]bool{},
		counts: map[pool.Counter]int{},
	}
}

// struck notes a fault.
func (l *ledger) struck(s *Sim, f *Fault, h *host) {
	if _, ok := l.struckAt[h.id]; !ok {
		l.struckAt[h.id] = s.now
	}
	if f.Kind == Crash && f.For == 0 {
		c := &crash{host: h, at: s.now, avoided: unknown(s), removed: unknown(s)}
		l.crashes = append(l.crashes, c)
		l.pending = append(l.pending, c)
	}
}

func unknown(s *Sim) []time.Duration {
	return slices.Repeat([]time.Duration{never}, len(s.routers))
}

// published looks at a change that has become durable.
func (l *ledger) published(s *Sim, c member.Change) {
	removed := false
	for _, r := range c.Remove {
		h := s.byID[r.ID]
		l.endSuspicion(s, r.ID)
		for _, cr := range l.crashes {
			if cr.host == h {
				cr.revision = c.Revision()
			}
		}
		if !r.Cause.ByVerdict() {
			continue
		}
		removed = true
		if l.removals[r.ID]++; l.removals[r.ID] == 1 {
			l.removedAt[r.ID], l.cause[r.ID], l.likelihood[r.ID] = s.now, r.Cause, h.likelihood(s.now)
		}
		if !h.mayGo(s.now, s.options.Settings.StallTolerance+s.options.Settings.RemovalGrace) {
			w := Wrong{Server: string(r.ID), AtMS: ms(s.now - s.options.Settle)}
			for _, e := range c.Events {
				if e.Kind == member.EventRemoved && e.ID == r.ID {
					w.Text = e.Text
				}
			}
			l.wrong = append(l.wrong, w)
			s.trace.failed(s)
		}
	}
	if removed {
		l.revisions++
	}
}

// marked follows the suspect marks as they leave the coordinator.
func (l *ledger) marked(s *Sim, m member.Mark) {
	if !m.Suspect {
		l.endSuspicion(s, m.ID)
		return
	}
	if _, known := l.suspects[m.ID]; known {
		return
	}
	sus := suspicion{since: s.now, wrong: !s.byID[m.ID].mayBeSuspect(s.now)}
	if sus.wrong {
		l.wrongMarks++
	}
	l.suspects[m.ID] = sus
}

func (l *ledger) endSuspicion(s *Sim, id member.ID) {
	if sus, ok := l.suspects[id]; ok {
		delete(l.suspects, id)
		if sus.wrong {
			l.wrongTime += s.now - sus.since
		}
	}
}

func (l *ledger) raised(a member.Alarm) {
	l.alarms[a.Name]++
	l.raisedNow[a.Key()] = true
}

func (l *ledger) cleared(k member.AlarmKey) { delete(l.raisedNow, k) }

// applied looks at a router's view after it has changed.
func (l *ledger) applied(s *Sim, r *router) {
	if r == s.routers[0] {
		if n := len(r.view.Rows()); len(l.sizes) == 0 || l.sizes[len(l.sizes)-1] != n {
			l.sizes = append(l.sizes, n)
		}
		l.active = r.view.Table().Count(view.StateActive)
		l.fewestActive = min(l.fewestActive, l.active)
		if l.allActiveAt == 0 && l.active == len(s.hosts) {
			l.allActiveAt = s.now
		}
	}
	if len(l.pending) == 0 {
		return
	}
	index := slices.Index(s.routers, r)
	l.pending = slices.DeleteFunc(l.pending, func(c *crash) bool {
		isMember, preferred := r.gives(c.host.id)
		if !preferred {
			c.avoided[index] = min(c.avoided[index], s.now)
		} else {
			c.avoided[index] = never
		}
		if !isMember {
			c.removed[index] = min(c.removed[index], s.now)
		}
		return latest(c.removed) != never
	})
}

func ms(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond)) / float64(time.Millisecond)
}
