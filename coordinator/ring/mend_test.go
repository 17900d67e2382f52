package ring_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

// What both sides say is kept; of the rest, as much as makes one cycle.
func TestMend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rows []ring.Row
		want []member.ID
	}{
		"nobody":              {nil, nil},
		"one that has lost":   {[]ring.Row{row("a", "b", "c")}, []member.ID{"a"}},
		"two that have lost":  {[]ring.Row{row("a", "c", "c"), row("b", "", "")}, []member.ID{"a", "b"}},
		"a row is gone":       {[]ring.Row{row("a", "b", "e"), row("b", "c", "a"), row("d", "e", "c"), row("e", "a", "d")}, []member.ID{"a", "b", "d", "e"}},
		"one side is wrong":   {[]ring.Row{row("a", "c", "d"), row("c", "b", "d"), row("b", "d", "c"), row("d", "a", "b")}, []member.ID{"a", "c", "b", "d"}},
		"no second buddies":   {[]ring.Row{row("a", "c", ""), row("b", "a", ""), row("c", "b", "")}, []member.ID{"a", "c", "b"}},
		"no first buddies":    {[]ring.Row{row("a", "", "b"), row("b", "", "c"), row("c", "", "a")}, []member.ID{"a", "c", "b"}},
		"its own buddies":     {[]ring.Row{row("a", "a", "a"), row("b", "b", "b"), row("c", "c", "c")}, []member.ID{"a", "b", "c"}},
		"two rings":           {[]ring.Row{row("a", "b", "b"), row("b", "a", "a"), row("c", "d", "d"), row("d", "c", "c")}, []member.ID{"a", "b", "c", "d"}},
		"everybody's darling": {[]ring.Row{row("a", "c", "c"), row("b", "c", "c"), row("c", "a", "b"), row("d", "c", "c")}, []member.ID{"a", "d", "b", "c"}},
	} {
		got := ring.Mend(c.rows)
		if d := cmp.Diff(c.want, got.Order()); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if problems := ring.Check(got.Rows()); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

// Whatever rows say, and in whatever order they come, the ring is whole and
// nobody is left out; and where they are right, nothing changes.
func TestMendedRingsAreWhole(t *testing.T) {
	t.Parallel()
	all := names(8)
	rapid.Check(t, func(t *rapid.T) {
		some := circle(rapid.Permutation(all).Draw(t, "order")[:rapid.IntRange(0, len(all)).Draw(t, "members")])
		rows := some.rows()
		if d := cmp.Diff(some.rows(), ring.Mend(rows).Rows(), nilIsEmpty); d != "" {
			t.Fatalf("a whole ring is changed (-was +is):\n%s", d)
		}
		anybody := rapid.SampledFrom(append([]member.ID{"", "stranger"}, all...))
		for range rapid.IntRange(0, 6).Draw(t, "faults") {
			if len(rows) == 0 {
				break
			}
			at := rapid.IntRange(0, len(rows)-1).Draw(t, "at")
			if rapid.Bool().Draw(t, "lost") {
				rows = slices.Delete(rows, at, at+1)
			} else {
				rows[at].Buddies = member.Buddies{First: anybody.Draw(t, "first"), Second: anybody.Draw(t, "second")}
			}
		}
		mended := ring.Mend(rows)
		if problems := ring.Check(mended.Rows()); len(problems) > 0 || mended.Len() != len(rows) {
			t.Fatalf("%d of %d members: %v", mended.Len(), len(rows), problems)
		}
		for _, r := range rows {
			if !mended.Has(r.ID) {
				t.Fatalf("%s is left out", r.ID)
			}
		}
		slices.Reverse(rows)
		if d := cmp.Diff(mended.Order(), ring.Mend(rows).Order()); d != "" {
			t.Fatalf("the order of rows counts:\n%s", d)
		}
	})
}

// Neighbours who agree stay neighbours.
func TestMendKeepsWhatIsAgreed(t *testing.T) {
	t.Parallel()
	order := circle(names(20))
	rows := order.rows()
	rows[3].First, rows[11].Second = "s17", ""
	if d := cmp.Diff(order.order(), ring.Mend(rows).Order()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// Replace is: cut the newcomer out, and write its name over the other's.
func TestReplaceAsModel(t *testing.T) {
	t.Parallel()
	all := names(6)
	rapid.Check(t, func(t *rapid.T) {
		model := circle(rapid.Permutation(all).Draw(t, "order")[:rapid.IntRange(0, len(all)).Draw(t, "members")])
		r := build(t, model)
		draft := r.Draft()
		old, by := rapid.SampledFrom(all).Draw(t, "old"), rapid.SampledFrom(all).Draw(t, "by")
		want := old != by && slices.Contains(model, old) && slices.Contains(model, by)
		if got := draft.Replace(old, by); got != want {
			t.Fatalf("Replace(%s, %s) is %v in %v", old, by, got, model)
		}
		if want {
			model = model.unlink(by)
			model[slices.Index(model, old)] = by
		}
		draft.Apply()
		equal(t, "ring", model, r)
	})
}
