package history_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/buddyring/buddyring/internal/history"
)

// router follows the world, and tells its clients who gets work.
type router struct {
	name, run string
	// at is the revision of its view, disk the one that another run begins with.
	at, disk uint64
	suspects map[string]bool
}

// patron is a client of a router.
type patron struct {
	name   string
	router *router
	run    string
	feed   *history.Feed
	at     history.Position
	has    map[string]history.Row
}

// audience are two routers of a world and their clients.
type audience struct {
	*world

	rng     *rand.Rand
	routers []*router
	patrons []*patron
}

func newAudience(seed uint64) *audience {
	a := &audience{world: newWorld(seed), rng: rand.New(rand.NewPCG(seed, 1))}
	for n := range 2 {
		a.routers = append(a.routers, &router{name: fmt.Sprint("router-", n), run: a.name("router-run-")})
	}
	for n := range 4 {
		a.patrons = append(a.patrons, &patron{name: fmt.Sprint("client-", n), router: a.routers[n%2]})
	}
	return a
}

// work are the servers that a router says get work.
func (a *audience) work(r *router) map[string]history.Row {
	all := map[string]history.Row{}
	for id, row := range a.states[r.at] {
		state := "active"
		if r.suspects[id] {
			state = "suspect"
		}
		all[id] = history.Row{ID: id, Incarnation: row.Incarnation, Phase: state}
	}
	if r.at%3 == 0 {
		all["held"] = history.Row{ID: "held", Incarnation: 1, Phase: "held_back"}
	}
	return all
}

func (a *audience) tell(p *patron, m history.Message) {
	m.StoreID, m.Position = "s", history.Position{Pool: "p", Epoch: a.epochs[p.router.at], Revision: p.router.at}
	if m.Kind == history.Snapshot {
		m.Run, p.run, p.has = p.router.run, p.router.run, map[string]history.Row{}
	}
	now := a.work(p.router)
	if m.Kind == history.Snapshot || m.Kind == history.Delta {
		for _, r := range a.rows(now) {
			if p.has[r.ID] != r {
				m.Put = append(m.Put, r)
			}
		}
		for _, r := range a.rows(p.has) {
			if _, stays := now[r.ID]; !stays {
				m.Gone = append(m.Gone, r.ID)
			}
		}
	}
	p.has, p.at = now, m.Position
	p.feed.Receive(m, a.tick())
}

func (a *audience) step() {
	a.world.step()
	for _, r := range a.routers {
		switch a.rng.IntN(12) {
		case 0:
			// It starts again, with what is on its disk.
			r.run, r.at, r.suspects = a.name("router-run-"), r.disk, nil
		case 1:
			r.disk = r.at
		case 2:
			r.suspects = map[string]bool{fmt.Sprint("s", a.rng.IntN(6)): true}
		default:
			r.at += uint64(a.rng.IntN(int(a.head() - r.at + 1)))
		}
	}
	for _, p := range a.patrons {
		a.serve(p)
	}
}

func (a *audience) serve(p *patron) {
	if p.feed != nil && p.run == p.router.run && a.rng.IntN(8) != 0 {
		a.tell(p, history.Message{Kind: history.Delta})
		a.tell(p, history.Message{Kind: history.Bookmark})
		return
	}
	s := history.Stream{Watcher: p.name}
	if a.rng.IntN(4) == 0 {
		p.router = a.routers[a.rng.IntN(2)]
	}
	s.Router = p.router.name
	if p.at.Pool != "" && a.rng.IntN(4) != 0 {
		s.StoreID, s.Resume, s.Run = "s", []history.Position{p.at}, p.run
	}
	p.feed = a.rec.Open(s, a.tick())
	if s.Resume != nil && p.run == p.router.run {
		a.tell(p, history.Message{Kind: history.Delta})
		return
	}
	a.tell(p, history.Message{Kind: history.Snapshot})
}

// watched is a history without a fault, with clients.
func watched(seed uint64) history.History {
	a := newAudience(seed)
	for range 80 {
		a.step()
	}
	a.read()
	return a.rec.History()
}

func TestGoodHistoriesOfClients(t *testing.T) {
	t.Parallel()
	resumed, compared := 0, 0
	for seed := range uint64(20) {
		h := watched(seed)
		v := history.Judge(h, within)
		for _, f := range v.Findings {
			t.Errorf("seed %d: %s", seed, f)
		}
		compared += v.Compared
		for _, s := range h.Streams {
			if s.Router != "" && len(s.Messages) > 0 && s.Messages[0].Kind == history.Delta {
				resumed++
			}
		}
	}
	if resumed < 20 || compared < 500 {
		t.Errorf("%d streams were resumed, %d messages compared", resumed, compared)
	}
}

// faults are what a router can do wrong to a client, and the rule that it breaks.
// Each is done to every stream of a client where it can be, in one good history each.
func faults() map[string]judgedFault {
	changes := func(s *history.Stream, from int) int {
		for i := from; i < len(s.Messages); i++ {
			if m := s.Messages[i]; m.Kind == history.Delta && len(m.Put)+len(m.Gone) > 0 {
				return i
			}
		}
		return -1
	}
	// onward edits the first change of a stream after its begin.
	onward := func(edit func(s *history.Stream, i int) bool) func(*history.History, *history.Stream) bool {
		return func(_ *history.History, s *history.Stream) bool {
			i := changes(s, 1)
			return i >= 0 && edit(s, i)
		}
	}
	works := func(r history.Row) bool { return r.Phase != "held_back" }
	return map[string]judgedFault{
		"a change left out": {history.Told, onward(func(s *history.Stream, i int) bool {
			if !slices.ContainsFunc(s.Messages[i].Put, works) {
				return false
			}
			first := s.Messages[i].Put[slices.IndexFunc(s.Messages[i].Put, works)]
			for _, m := range s.Messages[:i] {
				if slices.ContainsFunc(m.Put, func(r history.Row) bool { return r.ID == first.ID && r.Incarnation == first.Incarnation }) {
					return false // it had it, in another state
				}
			}
			s.Messages = slices.Delete(s.Messages, i, i+1)
			return true
		})},
		"a server that is gone left there": {history.Told, onward(func(s *history.Stream, i int) bool {
			gone := len(s.Messages[i].Gone)
			s.Messages[i].Gone = slices.DeleteFunc(s.Messages[i].Gone, func(id string) bool { return id != "held" })
			return len(s.Messages[i].Gone) < gone
		})},
		"half of a change": {history.Told, onward(func(s *history.Stream, i int) bool {
			put := s.Messages[i].Put
			s.Messages[i].Put = slices.DeleteFunc(put, func(r history.Row) bool { return r.Incarnation == s.Messages[i].Position.Revision })
			return len(s.Messages[i].Put) < len(put)
		})},
		"a member held back": {history.Told, onward(func(s *history.Stream, i int) bool {
			n := slices.IndexFunc(s.Messages[i].Put, works)
			if n >= 0 {
				s.Messages[i].Put[n].Phase = "held_back"
			}
			return n >= 0
		})},
		"an old note": {history.Told, onward(func(s *history.Stream, i int) bool {
			n := slices.IndexFunc(s.Messages[i].Put, works)
			if n >= 0 {
				s.Messages[i].Put[n].Note = "old"
			}
			return n >= 0
		})},
		"a snapshot that lacks a server": {history.Told, func(_ *history.History, s *history.Stream) bool {
			m := &s.Messages[0]
			n := slices.IndexFunc(m.Put, works)
			if m.Kind == history.Snapshot && n >= 0 {
				m.Put = slices.Delete(m.Put, n, n+1)
			}
			return m.Kind == history.Snapshot && n >= 0
		}},
		"a revision back": {history.Ordered, func(_ *history.History, s *history.Stream) bool {
			i := changes(s, 1)
			if i < 0 || s.Messages[i-1].Position.Revision == 0 {
				return false
			}
			s.Messages[i].Position.Revision = s.Messages[i-1].Position.Revision - 1
			return true
		}},
		"an epoch back": {history.Fenced, onward(func(s *history.Stream, i int) bool {
			if s.Messages[i].Position.Epoch != s.Messages[i-1].Position.Epoch {
				return false
			}
			s.Messages[i].Position.Epoch--
			return true
		})},
		"another store": {history.OneHistory, onward(func(s *history.Stream, i int) bool { s.Messages[i].StoreID = "t"; return true })},
		"another run in the midst of a stream": {history.OneHistory, onward(func(s *history.Stream, i int) bool {
			s.Messages[i].Kind, s.Messages[i].Run = history.Snapshot, "another"
			return true
		})},
		"a change where nothing was resumed": {history.Resumable, func(_ *history.History, s *history.Stream) bool {
			if len(s.Resume) > 0 {
				return false
			}
			s.Messages[0].Kind = history.Delta
			return true
		}},
		"a resume point of another router": {history.Resumable, func(h *history.History, s *history.Stream) bool {
			if len(s.Resume) == 0 || s.Messages[0].Kind != history.Snapshot || runIs(h, s.Router, s.Run) {
				return false
			}
			s.Messages[0].Kind = history.Delta
			return true
		}},
		"a resume point of an earlier run": {history.Resumable, func(h *history.History, s *history.Stream) bool {
			if !outlived(h, s) {
				return false
			}
			s.Messages[0].Kind = history.Delta
			return true
		}},
		"a run that is over": {history.OneHistory, func(h *history.History, s *history.Stream) bool {
			if !outlived(h, s) {
				return false
			}
			s.Messages[0].Run = s.Run
			return true
		}},
	}
}

// outlived reports whether a stream resumes an earlier run of its router, and another
// client had heard of the present one before.
func outlived(h *history.History, s *history.Stream) bool {
	return len(s.Resume) > 0 && s.Messages[0].Kind == history.Snapshot && s.Run != s.Messages[0].Run && runIs(h, s.Router, s.Run) &&
		slices.ContainsFunc(h.Streams, func(o history.Stream) bool {
			return o.Router == s.Router && o.Watcher != s.Watcher && len(o.Messages) > 0 && o.Messages[0].At < s.Opened &&
				o.Messages[0].Run == s.Messages[0].Run
		})
}

type judgedFault struct {
	rule history.Rule
	do   func(*history.History, *history.Stream) bool
}

// runIs reports whether a run is one of a router.
func runIs(h *history.History, router, run string) bool {
	return slices.ContainsFunc(h.Streams, func(s history.Stream) bool {
		return s.Router == router && slices.ContainsFunc(s.Messages, func(m history.Message) bool { return m.Kind == history.Snapshot && m.Run == run })
	})
}

func TestFaultsOfRouters(t *testing.T) {
	t.Parallel()
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for seed := uint64(0); tried < 5 && seed < 40; seed++ {
				h := watched(seed)
				for n := range h.Streams {
					s := &h.Streams[n]
					if s.Router == "" || len(s.Messages) == 0 || !f.do(&h, s) {
						continue
					}
					tried++
					expect(t, h, f.rule)
					break
				}
			}
			if tried < 5 {
				t.Errorf("only %d histories could be broken so", tried)
			}
		})
	}
}
