package ring_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

// circle is the naive model: the members in ring order, starting anywhere.
type circle []member.ID

func (c circle) splice(id, at member.ID) (circle, bool) {
	if slices.Contains(c, id) {
		return c, false
	}
	if len(c) == 0 {
		return circle{id}, true
	}
	i := slices.Index(c, at)
	if i < 0 {
		return c, false
	}
	return slices.Insert(slices.Clone(c), i+1, id), true
}

func (c circle) unlink(ids ...member.ID) circle {
	return slices.DeleteFunc(slices.Clone(c), func(id member.ID) bool { return slices.Contains(ids, id) })
}

// order starts at the smallest id, as Ring.Order.
func (c circle) order() []member.ID {
	if len(c) == 0 {
		return nil
	}
	i := slices.Index(c, slices.Min(c))
	return slices.Concat(c[i:], c[:i])
}

func (c circle) rows() []ring.Row {
	order := c.order()
	rows := make([]ring.Row, len(order))
	for i, id := range order {
		rows[i].ID = id
		if n := len(order); n > 1 {
			rows[i].Buddies = member.Buddies{First: order[(i+1)%n], Second: order[(i+n-1)%n]}
		}
	}
	return rows
}

func names(n int) []member.ID {
	ids := make([]member.ID, n)
	for i := range ids {
		ids[i] = member.ID(fmt.Sprintf("s%02d", i))
	}
	return ids
}

// build returns the ring of a model. The model's order is also the order in
// which its members come.
func build(t rapid.TB, c circle) *ring.Ring {
	r, err := ring.FromRows(c.rows())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func equal(t rapid.TB, what string, want circle, got *ring.Ring) {
	t.Helper()
	if diff := cmp.Diff(want.order(), got.Order()); diff != "" {
		t.Fatalf("%s: order (-want +got):\n%s", what, diff)
	}
	rows := got.Rows()
	if diff := cmp.Diff(want.rows(), rows, nilIsEmpty); diff != "" {
		t.Fatalf("%s: rows (-want +got):\n%s", what, diff)
	}
	if problems := ring.Check(rows); len(problems) > 0 {
		t.Fatalf("%s: %v", what, problems)
	}
	if got.Len() != len(want) {
		t.Fatalf("%s: Len is %d, want %d", what, got.Len(), len(want))
	}
}

var nilIsEmpty = cmp.Transformer("nilIsEmpty", func(rows []ring.Row) []ring.Row {
	return append([]ring.Row{}, rows...)
})

// TestRingAsModel drives a ring with drafts that are applied or dropped, and a
// slice beside it.
func TestRingAsModel(t *testing.T) {
	t.Parallel()
	all := names(12)
	rapid.Check(t, func(t *rapid.T) {
		model := circle(nil)
		r := ring.New()
		for range rapid.IntRange(1, 12).Draw(t, "drafts") {
			draft, next := r.Draft(), slices.Clone(model)
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				next = change(t, draft, next, all)
				sameDraft(t, next, draft, all)
			}
			before := r.Rows()
			if changed, want := draft.Changed(), differ(model, next); !slices.Equal(changed, want) {
				t.Fatalf("Changed is %v, want %v", changed, want)
			}
			if diff := cmp.Diff(before, r.Rows()); diff != "" {
				t.Fatalf("a draft changed its ring:\n%s", diff)
			}
			if rapid.Bool().Draw(t, "apply") {
				draft.Apply()
				model = next
			}
			equal(t, "ring", model, r)
			member, ok := r.Choose(rapid.Uint64().Draw(t, "choose"))
			if ok != (len(model) > 0) || ok && !slices.Contains(model, member) {
				t.Fatalf("Choose returns %q, %v of %v", member, ok, model)
			}
		}
	})
}

// change makes one change of a draft and of the model.
func change(t *rapid.T, draft *ring.Draft, model circle, all []member.ID) circle {
	if rapid.Bool().Draw(t, "splice") {
		id, at := rapid.SampledFrom(all).Draw(t, "id"), rapid.SampledFrom(all).Draw(t, "at")
		next, ok := model.splice(id, at)
		if got := draft.Splice(id, at); got != ok {
			t.Fatalf("Splice(%s, %s) is %v in %v", id, at, got, model)
		}
		return next
	}
	gone := rapid.SliceOfN(rapid.SampledFrom(all), 0, len(all)).Draw(t, "gone")
	draft.Unlink(gone...)
	return model.unlink(gone...)
}

func sameDraft(t *rapid.T, model circle, draft *ring.Draft, all []member.ID) {
	if draft.Len() != len(model) {
		t.Fatalf("draft has Len %d, want %d", draft.Len(), len(model))
	}
	want := map[member.ID]member.Buddies{}
	for _, row := range model.rows() {
		want[row.ID] = row.Buddies
	}
	for _, id := range all {
		got, ok := draft.Buddies(id)
		if _, is := want[id]; ok != is || draft.Has(id) != is || ok && got != want[id] {
			t.Fatalf("draft has %s: %v %v, want %v %v", id, ok, got, is, want[id])
		}
	}
}

// differ lists the members of the second circle that are new or have other
// buddies than in the first.
func differ(before, after circle) []member.ID {
	old := map[member.ID]member.Buddies{}
	for _, row := range before.rows() {
		old[row.ID] = row.Buddies
	}
	var ids []member.ID
	for _, row := range after.rows() {
		if was, had := old[row.ID]; !had || was != row.Buddies {
			ids = append(ids, row.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// TestUnlinkDependsOnTheSetOnly is R4, R12 and R13 for any set at once.
func TestUnlinkDependsOnTheSetOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		model := circle(rapid.Permutation(names(rapid.IntRange(1, 20).Draw(t, "n"))).Draw(t, "ring"))
		gone := rapid.SliceOfDistinct(rapid.SampledFrom(names(22)), rapid.ID).Draw(t, "gone")
		shuffled := rapid.Permutation(gone).Draw(t, "shuffled")
		oneByOne, atOnce := build(t, model), build(t, model)
		d := oneByOne.Draft()
		for _, id := range gone {
			d.Unlink(id)
		}
		d.Apply()
		d = atOnce.Draft()
		d.Unlink(shuffled...)
		d.Apply()
		equal(t, "one by one", model.unlink(gone...), oneByOne)
		equal(t, "at once", model.unlink(gone...), atOnce)
		if len(model) > 0 && oneByOne.Len() > 0 {
			a, _ := oneByOne.Choose(7)
			b, _ := atOnce.Choose(7)
			if a != b {
				t.Fatalf("equal rings draw %s and %s", a, b)
			}
		}
	})
}

// TestSpliceIsR9: the newcomer becomes the chosen server's first buddy, takes
// over its former one, and the chosen server as its second.
func TestSpliceIsR9(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		model := circle(rapid.Permutation(names(rapid.IntRange(3, 12).Draw(t, "n"))).Draw(t, "ring"))
		at := rapid.SampledFrom(model).Draw(t, "at")
		r := build(t, model)
		chosen, _ := r.Buddies(at)
		d := r.Draft()
		if !d.Splice("new", at) {
			t.Fatal("not spliced")
		}
		d.Apply()
		for id, want := range map[member.ID]member.Buddies{
			"new": {First: chosen.First, Second: at},
			at:    {First: "new", Second: chosen.Second},
		} {
			if got, _ := r.Buddies(id); got != want {
				t.Fatalf("%s has %v, want %v", id, got, want)
			}
		}
		if third, _ := r.Buddies(chosen.First); third.Second != "new" {
			t.Fatalf("%s has second buddy %s, want new", chosen.First, third.Second)
		}
	})
}

func TestSmallRings(t *testing.T) {
	t.Parallel()
	r := ring.New()
	for i, want := range [][]ring.Row{
		{row("a", "", "")},
		{row("a", "b", "b"), row("b", "a", "a")},
		{row("a", "c", "b"), row("c", "b", "a"), row("b", "a", "c")},
	} {
		d := r.Draft()
		d.Splice(member.ID("abc"[i:i+1]), "a")
		d.Apply()
		if diff := cmp.Diff(want, r.Rows()); diff != "" {
			t.Errorf("%d servers (-want +got):\n%s", i+1, diff)
		}
	}
	for _, want := range [][]ring.Row{
		{row("b", "c", "c"), row("c", "b", "b")},
		{row("c", "", "")},
		{},
	} {
		d := r.Draft()
		d.Unlink(r.Order()[0])
		d.Apply()
		if diff := cmp.Diff(want, r.Rows(), nilIsEmpty); diff != "" {
			t.Errorf("%d servers (-want +got):\n%s", len(want), diff)
		}
	}
}

func row(id, first, second member.ID) ring.Row {
	return ring.Row{ID: id, Buddies: member.Buddies{First: first, Second: second}}
}

// TestFromRowsKeepsRows also takes rows in any order.
func TestFromRowsKeepsRows(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		model := circle(rapid.Permutation(names(rapid.IntRange(0, 12).Draw(t, "n"))).Draw(t, "ring"))
		r, err := ring.FromRows(rapid.Permutation(model.rows()).Draw(t, "rows"))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "ring", model, r)
	})
}

// TestSameOperationsSameRing: the order of a map must not show, in the ring or
// in what it draws.
func TestSameOperationsSameRing(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (order []member.ID, draws []member.ID) {
		random := rand.New(rand.NewPCG(seed, 0))
		r := ring.New()
		for i := range 300 {
			d := r.Draft()
			for range random.IntN(4) {
				at, _ := d.Place(ring.Site{Rack: "r1"}, random.Uint64, func(member.ID) ring.Site { return ring.Site{Rack: "r2"} })
				d.Splice(member.ID(fmt.Sprintf("s%03d", random.IntN(100))), at)
			}
			if id, ok := r.Choose(random.Uint64()); ok && i%3 == 0 {
				other, _ := r.Choose(random.Uint64())
				d.Unlink(id, other)
			}
			d.Apply()
			if id, ok := r.Choose(random.Uint64()); ok {
				draws = append(draws, id)
			}
		}
		return r.Order(), draws
	}
	for seed := range uint64(20) {
		order, draws := run(seed)
		for range 3 {
			again, drawsAgain := run(seed)
			if !slices.Equal(order, again) || !slices.Equal(draws, drawsAgain) {
				t.Fatalf("seed %d: two runs differ", seed)
			}
		}
	}
}
