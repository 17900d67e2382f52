package view_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// model is the naive twin of a view: maps and sentences of the design instead
// of sorted slices and sharing.
type model struct {
	known bool
	store string
	pos   member.Position
	rows  map[member.ID]*view.Server
	held  map[member.ID]*view.Server
	marks map[markKey]*markModel
	// epoch is the highest of any mark.
	epoch member.Epoch
}

type markKey struct {
	id          member.ID
	incarnation member.Incarnation
}

type markModel struct {
	member.Mark
	until time.Time
	seen  bool
}

func newModel() *model {
	return &model{
		rows: map[member.ID]*view.Server{}, held: map[member.ID]*view.Server{}, marks: map[markKey]*markModel{},
	}
}

func routable(s *view.Server) bool {
	return s != nil && s.Phase == member.PhaseActive && s.Weight > 0 && len(s.Endpoints) > 0
}

// states are those of the rows that get work.
func (m *model) states() map[member.ID]view.State {
	all := map[member.ID]view.State{}
	bad := 0
	for id, s := range m.rows {
		if s.Weight == 0 || len(s.Endpoints) == 0 || s.Phase != member.PhaseActive && s.Phase != member.PhaseServiceDown {
			continue
		}
		all[id] = view.StateActive
		mark := m.marks[markKey{id, s.Incarnation}]
		switch {
		case s.Phase == member.PhaseServiceDown || mark != nil && mark.ServiceDown:
			all[id] = view.StateServiceDown
			bad++
		case mark != nil && mark.Suspect:
			all[id] = view.StateSuspect
			bad++
		}
	}
	if bad*2 <= len(all) {
		maps.DeleteFunc(all, func(_ member.ID, s view.State) bool { return s == view.StateServiceDown })
	}
	return all
}

func (m *model) working() []member.ID { return slices.Collect(maps.Keys(m.states())) }

// active counts the rows that get work, whatever the marks say.
func (m *model) active() int {
	n := 0
	for _, s := range m.rows {
		if routable(s) {
			n++
		}
	}
	return n
}

func (m *model) snapshot(s view.Snapshot) error {
	if m.known && m.store == s.StoreID && s.Position.Epoch < m.pos.Epoch {
		return member.ErrFenced
	}
	otherHistory := m.known && (s.OtherHistory || m.store != s.StoreID || s.Position.Revision < m.pos.Revision)
	before, old := m.working(), m.rows
	m.known, m.store, m.pos = true, s.StoreID, s.Position
	m.rows = map[member.ID]*view.Server{}
	for _, row := range s.Servers {
		m.rows[row.ID] = row
	}
	if otherHistory {
		m.marks, m.epoch = map[markKey]*markModel{}, 0
	}
	if otherHistory || s.Recent {
		if 2*m.active() < len(before) {
			for _, id := range before {
				if !routable(m.rows[id]) {
					m.held[id] = old[id]
				}
			}
		}
	}
	m.settle()
	return nil
}

func (m *model) delta(d view.Delta) error {
	if d.To.Epoch < m.pos.Epoch {
		return member.ErrFenced
	}
	if !m.known || d.From != m.pos.Revision || d.To.Revision < d.From {
		return view.ErrGap
	}
	before, old := m.working(), maps.Clone(m.rows)
	verdicts := map[member.ID]bool{}
	for _, r := range d.Removed {
		if row := m.rows[r.ID]; row != nil && row.Incarnation <= r.Incarnation {
			delete(m.rows, r.ID)
			verdicts[r.ID] = verdicts[r.ID] || r.Cause.ByVerdict()
		}
	}
	for _, row := range d.Put {
		m.rows[row.ID] = row
	}
	m.pos = d.To
	lost := slices.DeleteFunc(slices.Clone(before), func(id member.ID) bool {
		return !verdicts[id] || routable(m.rows[id])
	})
	if len(lost)*2 > len(before) {
		for _, id := range lost {
			m.held[id] = old[id]
		}
	}
	for _, r := range d.Removed {
		if h := m.held[r.ID]; h != nil && !r.Cause.ByVerdict() && h.Incarnation <= r.Incarnation {
			delete(m.held, r.ID)
		}
	}
	if d.MassChangeConfirmed {
		clear(m.held)
	}
	m.settle()
	return nil
}

// settle drops what has become void with the rows.
func (m *model) settle() {
	maps.DeleteFunc(m.held, func(id member.ID, _ *view.Server) bool {
		row := m.rows[id]
		return row != nil && row.Phase != member.PhaseJoining && row.Phase != member.PhaseHeld
	})
	maps.DeleteFunc(m.marks, func(k markKey, _ *markModel) bool { return !m.concerns(k) })
}

func (m *model) concerns(k markKey) bool {
	row := m.rows[k.id]
	return !m.known || uint64(k.incarnation) > uint64(m.pos.Revision) || row != nil && row.Incarnation == k.incarnation
}

func (m *model) mark(in member.Mark, now time.Time) {
	k := markKey{in.ID, in.Incarnation}
	if in.Epoch < max(m.epoch, m.pos.Epoch) || !m.concerns(k) {
		return
	}
	m.epoch = in.Epoch
	if old := m.marks[k]; old != nil && old.Epoch == in.Epoch && old.Seq > in.Seq {
		return
	}
	until := now.Add(in.TTL)
	if !in.Suspect && !in.ServiceDown {
		until = now.Add(30 * time.Second)
	}
	m.marks[k] = &markModel{Mark: in, until: until, seen: true}
}

func (m *model) entries() []string {
	var lines []string
	for id, state := range m.states() {
		lines = append(lines, line(state, m.rows[id]))
	}
	for _, s := range m.held {
		lines = append(lines, line(view.StateHeldBack, s))
	}
	slices.Sort(lines)
	return lines
}

func line(state view.State, s *view.Server) string {
	return fmt.Sprintf("%d %s@%d w%d", state, s.ID, s.Incarnation, s.Weight)
}

func entryLines(t *view.Table) []string {
	lines := make([]string, 0, len(t.Entries()))
	for _, e := range t.Entries() {
		lines = append(lines, line(e.State, e.Server))
	}
	return lines
}

// world generates the messages of a coordinator, most of them sensible.
type world struct {
	t     *rapid.T
	model *model
	view  *view.View
	now   time.Time
	past  []past
}

// past is a view that somebody may still hold, and what it was.
type past struct {
	view *view.View
	was  []string
}

func (w *world) row(id member.ID, rev member.Revision) *view.Server {
	s := &view.Server{
		ID: id, Incarnation: member.Incarnation(rev),
		Phase: rapid.SampledFrom([]member.Phase{
			member.PhaseActive, member.PhaseActive, member.PhaseActive, member.PhaseActive,
			member.PhaseJoining, member.PhaseHeld, member.PhaseDraining, member.PhaseServiceDown,
		}).Draw(w.t, "phase"),
		Weight: rapid.SampledFrom([]uint32{100, 100, 100, 50, 0}).Draw(w.t, "weight"),
	}
	if rapid.IntRange(0, 9).Draw(w.t, "endpoint") > 0 {
		s.Endpoints = []member.Endpoint{{Address: "192.0.2.1:80"}}
	}
	if old := w.model.rows[id]; old != nil && rapid.Bool().Draw(w.t, "update") {
		s.Incarnation = old.Incarnation
	}
	return s
}

func (w *world) ids(label string) []member.ID {
	return rapid.SliceOfNDistinct(rapid.SampledFrom([]member.ID{"a", "b", "c", "d", "e", "f"}), 0, 6, rapid.ID).Draw(w.t, label)
}

func (w *world) epoch(around member.Epoch) member.Epoch {
	return member.Epoch(max(0, int(around)+rapid.SampledFrom([]int{0, 0, 0, 0, 1, -1}).Draw(w.t, "epoch")))
}

func (w *world) snapshot(*rapid.T) {
	s := view.Snapshot{
		StoreID: rapid.SampledFrom([]string{"s1", "s1", "s1", "s2"}).Draw(w.t, "store"),
		Position: member.Position{
			Epoch:    w.epoch(w.model.pos.Epoch),
			Revision: member.Revision(max(0, int(w.model.pos.Revision)+rapid.IntRange(-3, 5).Draw(w.t, "step"))),
		},
		OtherHistory: rapid.IntRange(0, 7).Draw(w.t, "other history") == 0,
		Recent:       rapid.Bool().Draw(w.t, "recent"),
	}
	for _, id := range w.ids("members") {
		s.Servers = append(s.Servers, w.row(id, s.Position.Revision))
	}
	next, err := w.view.ApplySnapshot(s)
	w.check(next, err, w.model.snapshot(s))
}

func (w *world) delta(*rapid.T) {
	d := view.Delta{
		From:                w.model.pos.Revision,
		MassChangeConfirmed: rapid.IntRange(0, 9).Draw(w.t, "confirmed") == 0,
	}
	if rapid.IntRange(0, 9).Draw(w.t, "gap") == 0 {
		d.From++
	}
	d.To = member.Position{Epoch: w.epoch(w.model.pos.Epoch), Revision: d.From + member.Revision(rapid.IntRange(0, 2).Draw(w.t, "step"))}
	causes := []member.Cause{
		member.CauseCrashed, member.CauseCrashed, member.CauseUnreachable, member.CauseLossy, member.CauseShutdown, member.CauseOperator,
	}
	for _, id := range w.ids("removed") {
		r := member.Removal{ID: id, Cause: rapid.SampledFrom(causes).Draw(w.t, "cause")}
		if row := w.model.rows[id]; row != nil {
			r.Incarnation = row.Incarnation
		}
		d.Removed = append(d.Removed, r)
	}
	for _, id := range w.ids("put") {
		d.Put = append(d.Put, w.row(id, d.To.Revision))
	}
	next, err := w.view.ApplyDelta(d)
	w.check(next, err, w.model.delta(d))
}

func (w *world) marks(*rapid.T) {
	var marks []member.Mark
	for _, id := range w.ids("marked") {
		m := member.Mark{
			ID: id, Suspect: rapid.IntRange(0, 2).Draw(w.t, "suspect") > 0, ServiceDown: rapid.IntRange(0, 2).Draw(w.t, "down") == 0,
			Epoch: w.epoch(max(w.model.epoch, w.model.pos.Epoch)), Seq: rapid.Uint64Range(1, 20).Draw(w.t, "seq"),
			TTL:         time.Duration(rapid.IntRange(1, 30).Draw(w.t, "ttl")) * time.Second,
			Incarnation: member.Incarnation(int(w.model.pos.Revision) + rapid.IntRange(0, 2).Draw(w.t, "ahead")),
		}
		if row := w.model.rows[id]; row != nil && rapid.IntRange(0, 4).Draw(w.t, "other") > 0 {
			m.Incarnation = row.Incarnation
		}
		marks = append(marks, m)
		w.model.mark(m, w.now)
	}
	w.check(w.view.ApplyMarks(marks, w.now), nil, nil)
}

func (w *world) resync(*rapid.T) {
	w.view = w.view.BeginMarks()
	for _, m := range w.model.marks {
		m.seen = false
	}
	w.check(w.view, nil, nil)
}

func (w *world) synced(*rapid.T) {
	epoch := w.epoch(w.model.epoch)
	maps.DeleteFunc(w.model.marks, func(_ markKey, m *markModel) bool { return !m.seen && m.Epoch == epoch })
	for _, m := range w.model.marks {
		m.seen = false
	}
	w.check(w.view.EndMarks(epoch), nil, nil)
}

func (w *world) wait(*rapid.T) {
	w.now = w.now.Add(time.Duration(rapid.IntRange(1, 20).Draw(w.t, "seconds")) * time.Second)
	maps.DeleteFunc(w.model.marks, func(_ markKey, m *markModel) bool { return !m.until.After(w.now) })
	next := w.view.Expire(w.now)
	if at, ok := next.NextExpiry(); ok != (len(w.model.marks) > 0) || ok && !at.After(w.now) {
		w.t.Fatalf("NextExpiry = %v, %v with %d marks at %v", at, ok, len(w.model.marks), w.now)
	}
	w.check(next, nil, nil)
}

func (w *world) confirm(*rapid.T) {
	p := member.Position{
		Epoch:    w.epoch(w.model.pos.Epoch),
		Revision: member.Revision(max(0, int(w.model.pos.Revision)+rapid.SampledFrom([]int{0, 0, 0, 1, -1}).Draw(w.t, "step"))),
	}
	var want error
	switch {
	case p.Epoch < w.model.pos.Epoch:
		want = member.ErrFenced
	case !w.model.known || p.Revision != w.model.pos.Revision:
		want = view.ErrGap
	default:
		w.model.pos = p
	}
	next, err := w.view.Confirm(p)
	w.check(next, err, want)
}

// check compares the view with the model, and all that was ever handed out
// with what it was then.
func (w *world) check(next *view.View, err, want error) {
	if !errors.Is(err, want) {
		w.t.Fatalf("error %v, want %v", err, want)
	}
	if err != nil {
		if next != nil {
			w.t.Fatalf("a view besides the error %v", err)
		}
		next = w.view
	}
	if next != w.view && next.Version() <= w.view.Version() {
		w.t.Fatalf("version %d after %d", next.Version(), w.view.Version())
	}
	w.view = next
	lines := entryLines(next.Table())
	if diff := cmp.Diff(w.model.entries(), append([]string(nil), lines...)); diff != "" {
		w.t.Fatalf("entries (-model +view):\n%s", diff)
	}
	if next.Position() != w.model.pos || next.StoreID() != w.model.store || next.Known() != w.model.known {
		w.t.Fatalf("at %v of %q, known %v; want %v of %q", next.Position(), next.StoreID(), next.Known(), w.model.pos, w.model.store)
	}
	w.past = append(w.past, past{next, lines})
	for _, p := range w.past {
		if now := entryLines(p.view.Table()); !slices.Equal(now, p.was) {
			w.t.Fatalf("an older view changed from %v to %v", p.was, now)
		}
	}
}

func TestView_FollowsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, model: newModel(), view: view.New("default"), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		t.Repeat(map[string]func(*rapid.T){
			"snapshot": w.snapshot, "delta": w.delta, "delta again": w.delta, "delta and again": w.delta,
			"marks": w.marks, "resync": w.resync, "synced": w.synced, "wait": w.wait, "confirm": w.confirm,
		})
	})
}

func TestChanged_TurnsOneTableIntoAnother(t *testing.T) {
	t.Parallel()
	gen := rapid.Custom(func(t *rapid.T) *view.Table {
		var entries []view.Entry
		ids := rapid.SliceOfNDistinct(rapid.SampledFrom(strings.Split("abcdefgh", "")), 0, 8, rapid.ID).Draw(t, "ids")
		for _, id := range ids {
			entries = append(entries, view.Entry{
				Server: &view.Server{
					ID: member.ID(id), Incarnation: 1, Weight: rapid.Uint32Range(1, 2).Draw(t, "weight"),
					Endpoints: []member.Endpoint{{Address: "192.0.2.1:80"}},
				},
				State: view.State(rapid.IntRange(0, 3).Draw(t, "state")),
			})
		}
		return view.NewTable(entries)
	})
	rapid.Check(t, func(t *rapid.T) {
		from, to := gen.Draw(t, "from"), gen.Draw(t, "to")
		got := map[member.ID]view.Entry{}
		for _, e := range from.Entries() {
			got[e.Server.ID] = e
		}
		changed := view.Changed(from, to)
		for _, id := range changed {
			if i, ok := to.Find(id); ok {
				got[id] = to.Entries()[i]
			} else {
				delete(got, id)
			}
		}
		entries := slices.Collect(maps.Values(got))
		if diff := cmp.Diff(entryLines(to), entryLines(view.NewTable(entries))); diff != "" {
			t.Fatalf("after applying %v (-want +got):\n%s", changed, diff)
		}
		if !slices.IsSorted(changed) {
			t.Fatalf("%v is not sorted", changed)
		}
	})
}
