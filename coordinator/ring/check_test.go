package ring_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/ring"
	"github.com/buddyring/buddyring/internal/member"
)

// TestCheckFindsEveryCorruption changes one thing about valid rows.
func TestCheckFindsEveryCorruption(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		model := circle(rapid.Permutation(names(rapid.IntRange(1, 9).Draw(t, "n"))).Draw(t, "ring"))
		good := model.rows()
		if problems := ring.Check(good); len(problems) > 0 {
			t.Fatalf("valid rows: %v", problems)
		}
		bad := slices.Clone(good)
		i := rapid.IntRange(0, len(bad)-1).Draw(t, "row")
		other := rapid.SampledFrom(append(names(10), "", "stranger")).Draw(t, "other")
		switch rapid.SampledFrom([]string{"first", "second", "id", "missing", "twice"}).Draw(t, "corruption") {
		case "first":
			bad[i].First = other
		case "second":
			bad[i].Second = other
		case "id":
			bad[i].ID = other
		case "missing":
			bad = slices.Delete(bad, i, i+1)
		case "twice":
			bad = append(bad, bad[i])
		}
		if slices.Equal(bad, good) || len(bad) == 0 {
			return
		}
		if len(good) == 1 && len(bad) == 1 && bad[0].Buddies == (member.Buddies{}) {
			return // A lone server by another name is a valid ring.
		}
		problems := ring.Check(bad)
		if len(problems) == 0 {
			t.Fatalf("nothing found in %v", bad)
		}
		if _, err := ring.FromRows(bad); err == nil {
			t.Fatal("a ring was built of them")
		}
		for _, p := range problems {
			if p.Kind == "" || p.String() == "" {
				t.Fatalf("problem %#v", p)
			}
		}
	})
}

// TestCheckFindsTwoCycles: each row may agree with its neighbours, and yet the
// ring is two.
func TestCheckFindsTwoCycles(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.Permutation(names(rapid.IntRange(6, 12).Draw(t, "n"))).Draw(t, "ring")
		cut := rapid.IntRange(3, len(all)-3).Draw(t, "cut")
		rows := append(circle(all[:cut]).rows(), circle(all[cut:]).rows()...)
		problems := ring.Check(rows)
		if len(problems) != 1 || problems[0].Kind != ring.BrokenCycle {
			t.Fatalf("two cycles: %v", problems)
		}
	})
}

func TestCheckNamesTheProblem(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		rows []ring.Row
		want []ring.Problem
	}{
		"none": {},
		"alone with a buddy": {
			[]ring.Row{row("a", "b", "")},
			[]ring.Problem{{ID: "a", Kind: ring.Asymmetric, Text: `a is alone but has buddies "b" and ""`}},
		},
		"twice": {
			[]ring.Row{row("a", "b", "b"), row("b", "a", "a"), row("b", "a", "a")},
			[]ring.Problem{{ID: "b", Kind: ring.BrokenCycle, Text: "b is there twice"}},
		},
		"own buddy": {
			[]ring.Row{row("a", "a", "a"), row("b", "b", "b")},
			[]ring.Problem{
				{ID: "a", Kind: ring.Asymmetric, Text: "a is its own buddy"},
				{ID: "b", Kind: ring.Asymmetric, Text: "b is its own buddy"},
			},
		},
		"two of three": {
			[]ring.Row{row("a", "b", "b"), row("b", "a", "a"), row("c", "a", "b")},
			[]ring.Problem{
				{ID: "a", Kind: ring.Asymmetric, Text: `a has "b" as both buddies in a ring of 3`},
				{ID: "b", Kind: ring.Asymmetric, Text: `b has "a" as both buddies in a ring of 3`},
				{ID: "c", Kind: ring.Asymmetric, Text: `c has first buddy a, whose second buddy is "b"`},
				{ID: "c", Kind: ring.Asymmetric, Text: `c has second buddy b, whose first buddy is "a"`},
			},
		},
		"stranger": {
			[]ring.Row{row("a", "b", "x"), row("b", "a", "a")},
			[]ring.Problem{
				{ID: "a", Kind: ring.Asymmetric, Text: `a has second buddy "x", which is no member`},
				{ID: "b", Kind: ring.Asymmetric, Text: `b has first buddy a, whose second buddy is "x"`},
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, ring.Check(test.rows)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRackProblems(t *testing.T) {
	t.Parallel()
	sites := map[member.ID]ring.Site{
		"a1": {"a", "1"}, "a1x": {"a", "1"}, "a1y": {"a", "1"}, "a2": {"a", "2"}, "b1": {"b", "1"}, "b2": {"b", "2"},
		"u": {}, "v": {}, "z": {Zone: "a"},
	}
	tests := map[string]struct {
		order []member.ID
		want  []member.ID
	}{
		"apart":                      {order: []member.ID{"a1", "a2", "a1x", "b1"}},
		"neighbours":                 {[]member.ID{"a1", "a1x", "a2", "b1"}, []member.ID{"a1"}},
		"neighbours across the end":  {[]member.ID{"a1", "a2", "b1", "a1x"}, []member.ID{"a1x"}},
		"sorted by id":               {[]member.ID{"u", "a1x", "a1", "v", "a2", "b1", "a1y", "b2"}, []member.ID{"a1x"}},
		"half in one rack, apart":    {order: []member.ID{"a1", "u", "a1x", "v"}},
		"half in one rack, together": {[]member.ID{"a1", "a1x", "u", "v"}, []member.ID{"a1"}},
		"more than half: cannot be":  {order: []member.ID{"a1", "a1x", "a1y", "u", "v"}},
		"the same rack of two zones": {order: []member.ID{"a1", "b1", "a2", "b2"}},
		"unset racks are each alone": {order: []member.ID{"u", "v", "z"}},
		"two":                        {order: []member.ID{"a1", "a1x"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []member.ID
			for _, p := range ring.RackProblems(test.order, func(id member.ID) ring.Site { return sites[id] }) {
				if p.Kind != ring.RackNeighbours {
					t.Errorf("kind %q", p.Kind)
				}
				got = append(got, p.ID)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
