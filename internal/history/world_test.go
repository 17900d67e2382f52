package history_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/history"
)

// world is a pool in which everything goes as it should, with all who have a part
// in it. It makes the histories that are judged, and broken.
type world struct {
	rng *rand.Rand
	rec *history.Recorder
	now time.Time

	epoch uint64
	// base is the revision at which the present leader began.
	base uint64
	// states are the members at each revision, changes the ids of the changes, epochs
	// those of their leaders.
	states  []map[string]history.Row
	changes []string
	epochs  []uint64
	intents map[string]history.Intent
	// told are the incarnations that somebody has heard of.
	told map[uint64]bool

	watchers []*watcher
	counter  int
}

// watcher is a subscriber and where it stands.
type watcher struct {
	name string
	feed *history.Feed
	at   history.Position
}

func newWorld(seed uint64) *world {
	begin := time.Unix(0, 0)
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 0)), rec: history.NewRecorder(begin), now: begin, epoch: 1,
		states: []map[string]history.Row{{}}, changes: []string{"c0"}, epochs: []uint64{1}, intents: map[string]history.Intent{}, told: map[uint64]bool{},
	}
	for n := range 3 {
		w.watchers = append(w.watchers, &watcher{name: fmt.Sprint("watcher-", n)})
	}
	return w
}

func (w *world) tick() time.Time {
	w.now = w.now.Add(time.Millisecond)
	return w.now
}

func (w *world) head() uint64 { return uint64(len(w.states) - 1) }

func (w *world) members() map[string]history.Row { return w.states[w.head()] }

// name returns one that was never given.
func (w *world) name(prefix string) string {
	w.counter++
	return fmt.Sprint(prefix, w.counter)
}

// change makes the next revision of the members in ring order.
func (w *world) change(order []history.Row) {
	next := map[string]history.Row{}
	for i, r := range order {
		r.First, r.Second = "", ""
		if len(order) > 1 {
			r.First, r.Second = order[(i+1)%len(order)].ID, order[(i+len(order)-1)%len(order)].ID
		}
		next[r.ID] = r
	}
	w.states, w.changes, w.epochs = append(w.states, next), append(w.changes, w.name("c")), append(w.epochs, w.epoch)
}

// order are the members in ring order.
func (w *world) order() []history.Row {
	all := w.members()
	if len(all) == 0 {
		return nil
	}
	start := slices.Sorted(maps.Keys(all))[0]
	order := []history.Row{all[start]}
	for id := all[start].First; id != "" && id != start; id = all[id].First {
		order = append(order, all[id])
	}
	return order
}

func (w *world) call(o history.Operation) *history.Call {
	o.Pool = "p"
	if o.Client == "" {
		o.Client = o.Server
	}
	return w.rec.Call(o, w.tick())
}

// hello lets a run of a server join, or resume.
func (w *world) hello(id, run string, answered bool) {
	c := w.call(history.Operation{Kind: history.Hello, Server: id, Run: run})
	old, is := w.members()[id]
	result := history.Result{Epoch: w.epoch, Resumed: is && old.Run == run, Incarnation: old.Incarnation}
	if !result.Resumed {
		order := slices.DeleteFunc(w.order(), func(r history.Row) bool { return r.ID == id })
		result.Incarnation, result.Revision = w.head()+1, w.head()+1
		w.change(append(order, history.Row{ID: id, Run: run, Incarnation: result.Incarnation, Phase: "active"}))
	}
	if answered {
		w.told[result.Incarnation] = true
		c.Return(result, w.tick())
	}
}

// goes takes a member out.
func (w *world) goes(kind history.Kind, id string, answered bool) {
	c := w.call(history.Operation{Kind: kind, Server: id, Incarnation: w.members()[id].Incarnation, Client: string(kind) + id})
	w.change(slices.DeleteFunc(w.order(), func(r history.Row) bool { return r.ID == id }))
	result := history.Result{}
	if kind == history.Remove {
		result.Revision = w.head()
	}
	if answered {
		c.Return(result, w.tick())
	}
}

func (w *world) intend(id string, answered bool) {
	value := wanted(w.name("wish "))
	c := w.call(history.Operation{Kind: history.Intend, Server: id, Intent: value, Client: "operator"})
	w.intents = maps.Clone(w.intents)
	w.intents[id] = value
	w.change(w.order())
	if answered {
		c.Return(history.Result{Revision: w.head()}, w.tick())
	}
}

func (w *world) read() {
	c := w.call(history.Operation{Kind: history.Read, Client: "table"})
	for _, r := range w.members() {
		w.told[r.Incarnation] = true
	}
	c.Return(history.Result{
		Epoch: w.epoch, Revision: w.head(), ChangeID: w.changes[w.head()], Rows: w.rows(w.members()), Intents: w.intents,
	}, w.tick())
}

// ask asks a standby, which may lag.
func (w *world) ask() {
	c := w.call(history.Operation{Kind: history.Ask, Client: "c2"})
	at := max(w.head(), 3) - uint64(w.rng.IntN(3))
	at = min(at, w.head())
	rows := w.rows(w.states[at])
	for i := range rows {
		rows[i].Incarnation, rows[i].Run = 0, ""
	}
	c.Return(history.Result{Epoch: w.epoch, Revision: at, Rows: rows}, w.tick())
}

func (w *world) rows(all map[string]history.Row) []history.Row {
	rows := make([]history.Row, 0, len(all))
	for _, id := range slices.Sorted(maps.Keys(all)) {
		rows = append(rows, all[id])
	}
	return rows
}

func (w *world) position(revision uint64) history.Position {
	return history.Position{Pool: "p", Epoch: w.epoch, Revision: revision, ChangeID: w.changes[revision]}
}

// open lets a watcher begin a stream, from where it stands or anew.
func (w *world) open(s *watcher) {
	hello := history.Stream{Watcher: s.name}
	anew := s.at.Pool == "" || w.rng.IntN(5) == 0
	if !anew {
		hello.StoreID, hello.Resume = "s", []history.Position{s.at}
	}
	s.feed = w.rec.Open(hello, w.tick())
	w.send(s, history.Message{Kind: history.Start, StoreID: "s", Position: history.Position{Epoch: w.epoch}})
	if anew || s.at.Revision < w.base {
		if !anew {
			w.send(s, history.Message{Kind: history.Compacted, Position: history.Position{Pool: "p"}})
		}
		s.at = w.position(w.head())
		w.send(s, history.Message{Kind: history.Snapshot, Position: s.at, Put: withoutRuns(w.rows(w.members()))})
	}
	s.at.Epoch = w.epoch
	w.send(s, history.Message{Kind: history.Synced, Position: history.Position{Epoch: w.epoch}, SoftSeqs: []uint64{7}})
}

func (w *world) send(s *watcher, m history.Message) { s.feed.Receive(m, w.tick()) }

// feed sends a watcher some of what it does not have.
func (w *world) feed(s *watcher) {
	switch {
	case s.feed == nil || w.rng.IntN(12) == 0:
		w.open(s)
	case s.at.Revision < w.head():
		to := s.at.Revision + 1 + uint64(w.rng.IntN(int(w.head()-s.at.Revision)))
		m := history.Message{Kind: history.Delta, From: s.at.Revision, Position: w.position(to)}
		before, after := w.states[s.at.Revision], w.states[to]
		for _, r := range w.rows(after) {
			if before[r.ID] != r {
				m.Put = append(m.Put, r)
			}
		}
		for _, r := range w.rows(before) {
			if _, stays := after[r.ID]; !stays {
				m.Gone = append(m.Gone, r.ID)
			}
		}
		m.Put = withoutRuns(m.Put)
		s.at = m.Position
		w.send(s, m)
	case w.rng.IntN(3) == 0:
		w.send(s, history.Message{Kind: history.Bookmark, Positions: []history.Position{s.at}})
	}
}

func withoutRuns(rows []history.Row) []history.Row {
	rows = slices.Clone(rows)
	for i := range rows {
		rows[i].Run = ""
	}
	return rows
}

// step lets something happen.
func (w *world) step() {
	id := fmt.Sprint("s", w.rng.IntN(6))
	row, is := w.members()[id]
	answered := w.rng.IntN(5) != 0
	switch k := w.rng.IntN(20); {
	case k < 5:
		w.intend(fmt.Sprint("s", w.rng.IntN(3)), answered)
	case k < 8:
		w.read()
	case k == 8:
		w.ask()
	case k == 9:
		// Another leader.
		w.epoch++
		w.base = w.head()
		for _, s := range w.watchers {
			s.feed = nil
		}
	case k == 10:
		// Nothing comes of it.
		w.call(history.Operation{Kind: history.Hello, Server: id, Run: w.name("run-")})
	case k == 11 && is:
		w.hello(id, row.Run, answered)
	case is && !w.told[row.Incarnation]:
	case k < 14 && is:
		w.goes(history.Remove, id, answered)
	case is:
		w.goes(history.Leave, id, answered)
	default:
		w.hello(id, w.name("run-"), answered)
	}
	for _, s := range w.watchers {
		w.feed(s)
	}
}

// good is a history without a fault.
func good(seed uint64) history.History {
	w := newWorld(seed)
	for range 150 {
		w.step()
	}
	for _, s := range w.watchers {
		for w.feed(s); s.at.Revision < w.head(); {
			w.feed(s)
		}
	}
	w.read()
	return w.rec.History()
}
