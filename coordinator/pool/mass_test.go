package pool_test

import (
	"container/heap"
	"fmt"
	"testing"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// mass is a large pool in virtual time, without the checks of a desk: agents
// report and answer as they do, and some hosts are gone.
type mass struct {
	m       *pool.Machine
	now     time.Time
	events  events
	seq     int
	gone    map[member.ID]bool
	rows    map[member.ID]member.Server
	session map[pool.SessionID]member.ID
	stream  map[member.ID]pool.SessionID
	timer   time.Time
	removed int
	// challenged counts the streams that were asked for an echo.
	challenged int
	// braked is when the alarm was raised.
	braked time.Time
}

// newMass is a pool of n servers, each where site says.
func newMass(t *testing.T, n int, site func(i int) (zone, rack string)) *mass {
	t.Helper()
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	w := &mass{
		now: start, gone: map[member.ID]bool{}, rows: map[member.ID]member.Server{},
		session: map[pool.SessionID]member.ID{}, stream: map[member.ID]pool.SessionID{},
	}
	state := member.PoolState{
		Name: "web", Position: member.Position{Epoch: 1, Revision: 10}, Settings: member.DefaultSettings(), ReferenceSize: n,
	}
	for i := range n {
		h := agent(numbered(i))
		h.Spec.Zone, h.Spec.Rack = site(i)
		state.Servers = append(state.Servers, member.Server{
			ID: h.ID, Incarnation: 1, Phase: member.PhaseActive, First: numbered((i + 1) % n), Second: numbered((i + n - 1) % n),
			Spec: h.Spec, BootID: h.BootID, InstanceID: h.InstanceID, Since: start.Add(-time.Hour), JoinedAt: start.Add(-time.Hour),
		})
		w.rows[h.ID] = state.Servers[i]
	}
	m, err := pool.New(state, pool.Config{Seed: 1, Now: start})
	if err != nil {
		t.Fatal(err)
	}
	w.m = m
	for i := range n {
		h := agent(numbered(i))
		h.Session, h.Incarnation = pool.SessionID(i+1), 1
		h.Spec = state.Servers[i].Spec
		w.session[h.Session], w.stream[h.ID] = h.ID, h.Session
		w.step(h)
		w.step(pool.Digest{Session: h.Session})
	}
	w.run(20 * time.Second)
	return w
}

func (w *mass) at(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{w.now.Add(d), w.seq, do})
}

func (w *mass) run(d time.Duration) {
	for end := w.now.Add(d); ; {
		if len(w.events) == 0 || w.events[0].at.After(end) {
			w.now = end
			return
		}
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
}

func (w *mass) step(in ...pool.Input) {
	for _, e := range w.m.Step(w.now, in...) {
		w.do(e)
	}
}

func (w *mass) do(e pool.Effect) {
	switch e := e.(type) {
	case pool.Propose:
		w.at(3*time.Millisecond, func() { w.step(pool.Committed{ChangeID: e.Change.ID}) })
	case pool.Publish:
		w.removed += len(e.Change.Remove)
		for _, row := range e.Change.Put {
			w.rows[row.ID] = row
		}
	case pool.Raise:
		if e.Alarm.Name == "BRAKE" && w.braked.IsZero() {
			w.braked = w.now
		}
	case pool.Challenge:
		w.challenged++
		w.at(time.Millisecond, func() {
			if !w.gone[w.session[e.Session]] {
				w.step(pool.Echo(e))
			}
		})
	case pool.Ask:
		w.at(time.Millisecond, func() { w.answer(e) })
	case pool.Assign:
		w.assigned(w.session[e.Session], e.Assignment)
	case pool.SetTimer:
		if w.timer = e.At; !e.At.IsZero() {
			at := e.At
			w.at(at.Sub(w.now), func() {
				if w.timer.Equal(at) {
					w.step(pool.Tick{})
				}
			})
		}
	}
}

// answer answers as an agent does.
func (w *mass) answer(e pool.Ask) {
	observer, subject := w.session[e.Session], e.Subject.ID
	if w.gone[observer] {
		return
	}
	answer := func(after time.Duration, s pool.Sight, final bool) {
		w.at(after, func() {
			w.step(pool.Answer{Session: e.Session, Round: e.Round, Subject: subject, Incarnation: e.Subject.Incarnation, Evidence: evidence(s), Final: final})
		})
	}
	if !w.gone[subject] {
		answer(time.Millisecond, up, true)
		return
	}
	answer(20*time.Millisecond, down, false)
	answer(e.Over+20*time.Millisecond, down, true)
}

// assigned lets an agent find out about those whom it watches now.
func (w *mass) assigned(observer member.ID, a pool.Assignment) {
	for i, s := range a.Subjects {
		w.at(time.Duration(20+i*250)*time.Millisecond, func() { w.report(observer, s.ID, s.Incarnation) })
	}
}

func (w *mass) report(observer, subject member.ID, inc member.Incarnation) {
	if !w.gone[observer] && w.gone[subject] {
		w.step(pool.Report{Session: w.stream[observer], Subject: subject, Incarnation: inc, Evidence: evidence(down)})
	}
}

// lose takes hosts off the network; their watchers notice within a period, half a
// period apart.
func (w *mass) lose(ids []member.ID) {
	for _, id := range ids {
		w.gone[id] = true
	}
	for i, id := range ids {
		offset := time.Duration(i*37%500) * time.Millisecond
		w.at(offset, func() { w.report(w.rows[id].Second, id, 1) })
		w.at((offset+250*time.Millisecond)%(500*time.Millisecond), func() { w.report(w.rows[id].First, id, 1) })
	}
	for tick := range 20 {
		w.at(time.Duration(tick)*5*time.Second, func() { w.digests() })
	}
}

func (w *mass) digests() {
	for i := range len(w.rows) {
		id := numbered(i)
		if !w.gone[id] {
			w.step(pool.Digest{Session: w.stream[id], Subjects: w.seen(id)})
		}
	}
}

func (w *mass) seen(id member.ID) []pool.SubjectDigest {
	var all []pool.SubjectDigest
	for _, o := range []member.ID{w.rows[id].First, w.rows[id].Second} {
		s := up
		if w.gone[o] {
			s = down
		}
		all = append(all, pool.SubjectDigest{Subject: o, Incarnation: 1, Evidence: evidence(s)})
	}
	return all
}

// Forty of a thousand, such as a rack, leave; a zone of 333 that is cut off stays, with the
// brake on within two seconds; without the brake it would be lost.
func TestMassFailures(t *testing.T) {
	t.Parallel()
	// Neighbours are in different zones, as placement has it.
	zone := func(i int) (string, string) { return fmt.Sprint("z", i%3), fmt.Sprintf("r%d", i/3%25) }
	var cut, forty []member.ID
	for i := range 1000 {
		if z, _ := zone(i); z == "z1" {
			cut = append(cut, numbered(i))
		}
		if i%25 == 0 {
			forty = append(forty, numbered(i))
		}
	}
	for name, test := range map[string]struct {
		lost    []member.ID
		edit    func(*member.Settings)
		removed int
	}{
		"forty":                               {forty, nil, 40},
		"a zone":                              {cut, nil, 0},
		"a zone, without brake and floor":     {cut, off, 333},
		"a zone, with the zone's brake alone": {cut, func(s *member.Settings) { s.BrakePercent = 100 }, 0},
		"forty, with a brake of 1 %":          {forty, func(s *member.Settings) { s.BrakePercent, s.BrakeRackPercent = 1, 1 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newMass(t, 1000, zone)
			if test.edit != nil {
				w.step(pool.UpdateSettings{Call: pool.Call{Token: 1}, Edit: func(s member.Settings) (member.Settings, error) {
					test.edit(&s)
					return s, nil
				}})
				w.run(time.Second)
			}
			begin := w.now
			w.lose(test.lost)
			w.run(30 * time.Second)
			if w.removed != test.removed {
				t.Fatalf("%d of %d are removed, want %d", w.removed, len(test.lost), test.removed)
			}
			if test.removed > 0 {
				return
			}
			if after := w.braked.Sub(begin); w.braked.IsZero() || after > 2*time.Second {
				t.Errorf("the brake is on after %v", after)
			}
			if st := w.m.Status(); st.Suspect != len(test.lost) || !st.Braked {
				t.Errorf("%+v", st)
			}
		})
	}
}
