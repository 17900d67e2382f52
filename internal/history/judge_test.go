package history_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/history"
)

const within = time.Minute

func TestGoodHistories(t *testing.T) {
	t.Parallel()
	var kinds []history.MessageKind
	for seed := range uint64(30) {
		h := good(seed)
		for _, f := range history.Judge(h, within).Findings {
			t.Errorf("seed %d: %s", seed, f)
		}
		for _, s := range h.Streams {
			for _, m := range s.Messages {
				kinds = append(kinds, m.Kind)
			}
		}
	}
	for _, kind := range []history.MessageKind{history.Compacted, history.Snapshot, history.Delta, history.Synced, history.Bookmark} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("no %s in all histories", kind)
		}
	}
}

// breaks are what can be wrong with a watch stream, and the rule that it breaks.
// Each is done to every message where it can be, in one good history each.
func breaks() map[string]struct {
	rule history.Rule
	// do breaks the stream at message i, or reports that it cannot.
	do func(s *history.Stream, i int) bool
} {
	is := func(s *history.Stream, i int, kinds ...history.MessageKind) bool {
		for n, kind := range kinds {
			if i+n >= len(s.Messages) || s.Messages[i+n].Kind != kind {
				return false
			}
		}
		return true
	}
	resumes := func(s *history.Stream, i int) bool {
		return len(s.Resume) == 1 && !slices.ContainsFunc(s.Messages[:i], func(m history.Message) bool {
			return m.Kind == history.Delta || m.Kind == history.Compacted || m.Kind == history.Bookmark
		})
	}
	edit := func(change func(*history.Message), kind history.MessageKind) func(*history.Stream, int) bool {
		return func(s *history.Stream, i int) bool {
			if !is(s, i, kind) {
				return false
			}
			change(&s.Messages[i])
			return true
		}
	}
	// editAll edits all that are left: what is compared with what others saw must
	// have been seen by them.
	editAll := func(change func(*history.Message), kind history.MessageKind) func(*history.Stream, int) bool {
		return func(s *history.Stream, i int) bool {
			if !is(s, i, kind) {
				return false
			}
			for ; i < len(s.Messages); i++ {
				if s.Messages[i].Kind == kind {
					change(&s.Messages[i])
				}
			}
			return true
		}
	}
	return map[string]struct {
		rule history.Rule
		do   func(*history.Stream, int) bool
	}{
		"two changes in the wrong order": {history.Ordered, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Delta, history.Delta) {
				return false
			}
			s.Messages[i], s.Messages[i+1] = s.Messages[i+1], s.Messages[i]
			return true
		}},
		"a change again": {history.Unique, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Delta) {
				return false
			}
			s.Messages = slices.Insert(s.Messages, i+1, s.Messages[i])
			return true
		}},
		"a change in two parts": {history.Atomic, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Delta) || len(s.Messages[i].Put) < 2 {
				return false
			}
			first, second := s.Messages[i], s.Messages[i]
			first.Put, second.Put, second.Gone = first.Put[:1], second.Put[1:], nil
			second.From = second.Position.Revision
			s.Messages = slices.Replace(s.Messages, i, i+1, first, second)
			return true
		}},
		"a change left out": {history.Reliable, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Delta, history.Delta) || resumes(s, i) {
				return false
			}
			s.Messages = slices.Delete(s.Messages, i, i+1)
			return true
		}},
		"the first change after the resume point left out": {history.Resumable, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Delta, history.Delta) || !resumes(s, i) {
				return false
			}
			s.Messages = slices.Delete(s.Messages, i, i+1)
			return true
		}},
		"a snapshot where the resume point is known": {history.Resumable, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Compacted, history.Snapshot) {
				return false
			}
			s.Messages = slices.Delete(s.Messages, i, i+1)
			return true
		}},
		"a resume point of the same leader given up": {history.Resumable, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Compacted) {
				return false
			}
			s.Resume[0].Epoch = s.Messages[0].Position.Epoch
			return true
		}},
		"a bookmark ahead of the changes": {history.Bookmarkable, edit(func(m *history.Message) { m.Positions[0].Revision++ }, history.Bookmark)},
		"a bookmark behind them":          {history.Bookmarkable, edit(func(m *history.Message) { m.Positions[0].Revision-- }, history.Bookmark)},
		"a bookmark of a pool that has not come": {history.Bookmarkable, edit(func(m *history.Message) {
			m.Positions[0].Pool = "q"
		}, history.Bookmark)},
		"marks of an old epoch":    {history.Fenced, edit(func(m *history.Message) { m.Position.Epoch-- }, history.Synced)},
		"a change of an old epoch": {history.Fenced, edit(func(m *history.Message) { m.Position.Epoch-- }, history.Delta)},
		"another change at that revision": {history.OneHistory, editAll(func(m *history.Message) {
			m.Position.ChangeID = "another"
		}, history.Delta)},
		"another history": {history.OneHistory, edit(func(m *history.Message) { m.OtherHistory = true }, history.Compacted)},
		"rows that were not written so": {history.OneHistory, editAll(func(m *history.Message) {
			for i := range m.Put {
				m.Put[i].Phase = "held"
			}
		}, history.Delta)},
		"a buddy that is none": {history.Ring, func(s *history.Stream, i int) bool {
			if !is(s, i, history.Delta) || len(s.Messages[i].Put) == 0 {
				return false
			}
			s.Messages[i].Put[0].First = "nobody"
			return true
		}},
	}
}

// TestBrokenStreams breaks good histories, each in one place, and expects that
// the rule is named.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	for name, b := range breaks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tried := 0
			for seed := uint64(0); tried < 8 && seed < 40; seed++ {
				h := good(seed)
				for n := range slices.Backward(h.Streams) {
					s := &h.Streams[n]
					i := 0
					for i < len(s.Messages) && !b.do(s, i) {
						i++
					}
					if i == len(s.Messages) {
						continue
					}
					tried++
					expect(t, h, b.rule)
					break
				}
			}
			if tried < 5 {
				t.Errorf("only %d histories could be broken so", tried)
			}
		})
	}
}

func expect(t *testing.T, h history.History, rule history.Rule) {
	t.Helper()
	v := history.Judge(h, within)
	if !slices.ContainsFunc(v.Findings, func(f history.Finding) bool { return f.Rule == rule }) {
		t.Errorf("no breach of %q is found among %v", rule, v.Findings)
	}
}

// script makes a history of operations whose times are their places: "a" is
// called at the first "a+" and returns at "a-".
func script(order string, ops map[string]history.Operation) history.History {
	var h history.History
	for place, word := range strings.Fields(order) {
		name, at := word[:len(word)-1], time.Duration(place+1)
		o := ops[name]
		switch word[len(word)-1] {
		case '+':
			o.Call = at
		case '-':
			o.Return, o.Known = at, true
		}
		ops[name] = o
	}
	for name, o := range ops {
		o.Pool, o.Client = "p", name
		h.Operations = append(h.Operations, o)
	}
	slices.SortFunc(h.Operations, func(a, b history.Operation) int { return int(a.Call - b.Call) })
	return h
}

func hello(run string, held, incarnation uint64, resumed bool) history.Operation {
	o := history.Operation{Kind: history.Hello, Server: "s", Run: run, Incarnation: held}
	o.Result = history.Result{Incarnation: incarnation, Resumed: resumed, Epoch: 1}
	if !resumed {
		o.Result.Revision = incarnation
	}
	return o
}

func gone(kind history.Kind, incarnation uint64) history.Operation {
	return history.Operation{Kind: kind, Server: "s", Incarnation: incarnation}
}

func read(revision uint64, rows ...history.Row) history.Operation {
	return history.Operation{Kind: history.Read, Result: history.Result{Epoch: 1, Revision: revision, Rows: rows}}
}

func row(run string, incarnation uint64) history.Row {
	return history.Row{ID: "s", Run: run, Incarnation: incarnation, Phase: "active"}
}

func intend(value string, revision uint64) history.Operation {
	return history.Operation{Kind: history.Intend, Server: "s", Intent: wanted(value), Result: history.Result{Revision: revision}}
}

// wanted is an intent of which the wish and the reason are two words.
func wanted(value string) history.Intent {
	wish, reason, _ := strings.Cut(value, " ")
	return history.Intent{Wish: wish, Reason: reason}
}

func wishes(revision uint64, value string, rows ...history.Row) history.Operation {
	o := read(revision, rows...)
	o.Result.Intents = map[string]history.Intent{"s": wanted(value)}
	return o
}

// TestOperations judges short histories by hand.
func TestOperations(t *testing.T) {
	t.Parallel()
	retried := hello("x", 0, 2, true)
	retried.Retried = true
	past := read(3)
	past.Result.Epoch = 0
	later := read(3)
	later.Result.Epoch = 2
	judgeAll(t, map[string]judged{
		"a join that is read": {"a+ a- r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(2, row("x", 2))}, ""},
		"answered before it was committed": {
			"a+ a- r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(1)}, history.Linearizable,
		},
		"an acknowledged join that is lost": {
			"a+ a- r+ r- l+ l-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(2, row("x", 2)), "l": read(3)}, history.Linearizable,
		},
		"read before the answer":      {"a+ r+ r- a-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(2, row("x", 2))}, ""},
		"not read before the answer":  {"a+ r+ r- a-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(1)}, ""},
		"a row that nobody asked for": {"a+ a- r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(3, row("y", 3))}, history.Linearizable},
		"a join without an answer that took effect": {
			"a+ r+ r- l+ l-", map[string]history.Operation{"a": hello("x", 0, 0, false), "r": read(1), "l": read(2, row("x", 2))}, "",
		},
		"and one that did not": {"a+ r+ r-", map[string]history.Operation{"a": hello("x", 0, 0, false), "r": read(1)}, ""},
		"and one that did before it was asked for": {
			"r+ r- a+", map[string]history.Operation{"a": hello("x", 0, 0, false), "r": read(2, row("x", 2))}, history.Linearizable,
		},
		"and one that came and went": {
			"a+ r+ r- l+ l-", map[string]history.Operation{"a": hello("x", 0, 0, false), "r": read(2, row("x", 2)), "l": read(3)}, history.Linearizable,
		},
		"resumed": {"a+ a- b+ b-", map[string]history.Operation{"a": hello("x", 0, 2, false), "b": hello("x", 2, 2, true)}, ""},
		"forgotten by the next leader": {
			"a+ a- b+ b-", map[string]history.Operation{"a": hello("x", 0, 2, false), "b": hello("x", 2, 5, false)}, history.Linearizable,
		},
		"resumed though it was no member": {"a+ a-", map[string]history.Operation{"a": hello("x", 0, 2, true)}, history.Linearizable},
		"joined by a try before":          {"a+ a-", map[string]history.Operation{"a": retried}, ""},
		"another run of it":               {"a+ a- b+ b-", map[string]history.Operation{"a": hello("x", 0, 2, false), "b": hello("y", 0, 5, false)}, ""},
		"an incarnation that comes back": {
			"a+ a- l+ l- b+ b-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Leave, 2), "b": hello("y", 0, 2, false)}, history.Linearizable,
		},
		"left":                           {"a+ a- l+ l- r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Leave, 2), "r": read(3)}, ""},
		"left and there":                 {"a+ a- l+ l- r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Leave, 2), "r": read(3, row("x", 2))}, history.Linearizable},
		"left, then taken out":           {"a+ a- l+ l- m+ m-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Leave, 2), "m": gone(history.Remove, 2)}, history.Linearizable},
		"taken out, then left":           {"a+ a- l+ l- m+ m-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Remove, 2), "m": gone(history.Leave, 2)}, ""},
		"left without having been there": {"l+ l-", map[string]history.Operation{"l": gone(history.Leave, 2)}, history.Linearizable},
		"left while it is another incarnation": {
			"a+ a- b+ b- l+ l-", map[string]history.Operation{"a": hello("x", 0, 2, false), "b": hello("y", 0, 3, false), "l": gone(history.Leave, 2)}, history.Linearizable,
		},
		"left without an answer, late": {
			"a+ a- l+ r+ r- s+ s-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Leave, 2), "r": read(2, row("x", 2)), "s": read(3)}, "",
		},
		"left without an answer, never": {
			"a+ a- l+ r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Leave, 2), "r": read(2, row("x", 2))}, "",
		},
		"gone without anybody's wish": {"a+ a- r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(3)}, history.Linearizable},
		"lost, and taken out": {
			"a+ a- l+ r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": {Kind: history.Lost, Server: "s", Run: "x"}, "r": read(3)}, "",
		},
		"told that it is over": {"a+ a- o+ o-", map[string]history.Operation{"a": hello("x", 0, 2, false), "o": gone(history.Over, 2)}, history.Linearizable},
		"told so rightly": {
			"a+ a- l+ l- o+ o-", map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Remove, 2), "o": gone(history.Over, 2)}, "",
		},
		"welcomed by a leader of the past": {
			"a+ a- l+ l- r+ r- b+ b-",
			map[string]history.Operation{"a": hello("x", 0, 2, false), "l": gone(history.Remove, 2), "r": later, "b": hello("x", 2, 2, true)},
			"",
		},
		"a wish that is read": {"a+ a- r+ r-", map[string]history.Operation{"a": intend("x", 2), "r": wishes(2, "x")}, ""},
		"a wish that is lost": {
			"a+ a- b+ b- r+ r-", map[string]history.Operation{"a": intend("x", 2), "b": intend("y", 3), "r": wishes(3, "x")}, history.Linearizable,
		},
		"a wish without an answer": {
			"a+ a- b+ r+ r- s+ s-", map[string]history.Operation{"a": intend("x", 2), "b": intend("y", 0), "r": wishes(2, "x"), "s": wishes(3, "y")}, "",
		},
		"one that is read before it is wished": {
			"r+ r- b+", map[string]history.Operation{"b": intend("y", 0), "r": wishes(2, "y")}, history.Linearizable,
		},
		"revisions that were given before they were committed": {
			"b+ b- a+ a-", map[string]history.Operation{"a": intend("x", 5), "b": intend("y", 6)}, history.Advancing,
		},
		"two changes in one revision, together": {"a+ b+ b- a-", map[string]history.Operation{"a": intend("x", 5), "b": intend("y", 5)}, ""},
		"and one after the other":               {"a+ a- b+ b-", map[string]history.Operation{"a": intend("x", 5), "b": intend("y", 5)}, history.Advancing},
		"a read that goes back":                 {"r+ r- s+ s-", map[string]history.Operation{"r": read(5), "s": read(4)}, history.Advancing},
		"an epoch that goes back":               {"r+ r- s+ s-", map[string]history.Operation{"r": read(3), "s": past}, history.Advancing},
		"one revision with two outcomes":        {"r+ s+ r- s-", map[string]history.Operation{"r": read(3), "s": read(3, row("x", 2))}, history.OneHistory},
	})
}

// judged is a short history, and the rule that it breaks.
type judged struct {
	order string
	ops   map[string]history.Operation
	rule  history.Rule
}

func judgeAll(t *testing.T, all map[string]judged) {
	t.Helper()
	for name, c := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := script(c.order, c.ops)
			if c.rule != "" {
				expect(t, h, c.rule)
				return
			}
			for _, f := range history.Judge(h, within).Findings {
				t.Error(f)
			}
		})
	}
}

// An order that cannot be found in time is no success.
func TestUndecided(t *testing.T) {
	t.Parallel()
	var h history.History
	for server := range 5 {
		for n := range time.Duration(24) {
			o := intend(fmt.Sprint(n), 0)
			o.Pool, o.Client, o.Server, o.Call, o.Return, o.Known = "p", fmt.Sprint(n), fmt.Sprint(server), n, 100+n, true
			h.Operations = append(h.Operations, o)
		}
	}
	r := wishes(2, "nobody's")
	r.Pool, r.Call, r.Return, r.Known = "p", 500, 501, true
	for server := range 5 {
		r.Result.Intents[fmt.Sprint(server)] = wanted("nobody's")
	}
	h.Operations = append(h.Operations, r)
	begin := time.Now()
	v := history.Judge(h, 20*time.Millisecond)
	undecided := 0
	for _, f := range v.Findings {
		if f.Rule == history.Undecided {
			undecided++
		}
	}
	if undecided != 4 {
		t.Errorf("%d of 5 servers are undecided, or not looked at: %v", undecided, v.Findings)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("that took %s", took)
	}
}

func TestChartShowsTheOperations(t *testing.T) {
	t.Parallel()
	v := history.Judge(script("a+ a- r+ r-", map[string]history.Operation{"a": hello("x", 0, 2, false), "r": read(1)}), within)
	if len(v.Charts) != 1 || v.Charts[0].Name != "p/s" {
		t.Fatalf("charts: %+v", v.Charts)
	}
	var page bytes.Buffer
	if err := v.Charts[0].Write(&page); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(page.String(), "hello of run x") {
		t.Error("the page does not show the hello")
	}
}

// Histories are read from files, which may hold anything.
func FuzzJudge(f *testing.F) {
	for seed := range uint64(3) {
		w := newWorld(seed)
		for range 10 {
			w.step()
		}
		text, err := json.Marshal(w.rec.History())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(_ *testing.T, text []byte) {
		var h history.History
		if json.Unmarshal(text, &h) == nil {
			history.Judge(h, time.Millisecond)
		}
	})
}
