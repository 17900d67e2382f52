package ring

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/buddyring/buddyring/internal/member"
)

// Problem is one thing that is wrong with rows.
type Problem struct {
	// ID is the row, or "" for the whole ring.
	ID   member.ID
	Kind ProblemKind
	Text string
}

func (p Problem) String() string { return p.Text }

// ProblemKind names a problem.
type ProblemKind string

// The kinds of problems.
const (
	Asymmetric     ProblemKind = "asymmetric"
	BrokenCycle    ProblemKind = "broken_cycle"
	RackNeighbours ProblemKind = "rack_neighbours"
)

// Check proves that rows are one symmetric cycle: of one row without buddies;
// or of two that are both buddies of each other; or of three and more with two
// distinct buddies each. It returns all asymmetric rows, or else the break.
func Check(rows []Row) []Problem {
	by := make(map[member.ID]member.Buddies, len(rows))
	for _, r := range rows {
		if _, twice := by[r.ID]; twice {
			return []Problem{{r.ID, BrokenCycle, fmt.Sprintf("%s is there twice", r.ID)}}
		}
		by[r.ID] = r.Buddies
	}
	if len(rows) == 0 {
		return nil
	}
	if len(rows) == 1 {
		if only := rows[0]; only.First != "" || only.Second != "" {
			return []Problem{{only.ID, Asymmetric, fmt.Sprintf("%s is alone but has buddies %q and %q", only.ID, only.First, only.Second)}}
		}
		return nil
	}
	if problems := asymmetries(rows, by); len(problems) > 0 {
		return problems
	}
	if n := cycleLength(rows[0].ID, by); n != len(rows) {
		return []Problem{{"", BrokenCycle, fmt.Sprintf("the cycle through %s has %d of %d servers", rows[0].ID, n, len(rows))}}
	}
	return nil
}

func asymmetries(rows []Row, by map[member.ID]member.Buddies) []Problem {
	var problems []Problem
	wrong := func(id member.ID, format string, args ...any) {
		problems = append(problems, Problem{id, Asymmetric, fmt.Sprintf(format, args...)})
	}
	for _, r := range rows {
		switch {
		case r.First == r.ID || r.Second == r.ID:
			wrong(r.ID, "%s is its own buddy", r.ID)
		case len(rows) > 2 && r.First == r.Second:
			wrong(r.ID, "%s has %q as both buddies in a ring of %d", r.ID, r.First, len(rows))
		}
		if next, ok := by[r.First]; !ok {
			wrong(r.ID, "%s has first buddy %q, which is no member", r.ID, r.First)
		} else if next.Second != r.ID {
			wrong(r.ID, "%s has first buddy %s, whose second buddy is %q", r.ID, r.First, next.Second)
		}
		if prev, ok := by[r.Second]; !ok {
			wrong(r.ID, "%s has second buddy %q, which is no member", r.ID, r.Second)
		} else if prev.First != r.ID {
			wrong(r.ID, "%s has second buddy %s, whose first buddy is %q", r.ID, r.Second, prev.First)
		}
	}
	return problems
}

func cycleLength(start member.ID, by map[member.ID]member.Buddies) int {
	n := 1
	for id := by[start].First; id != start && n <= len(by); id = by[id].First {
		n++
	}
	return n
}

// RackProblems lists the members whose first buddy shares their rack although
// the members' racks would allow a ring without such neighbours (no rack holds
// more than half of them).
func RackProblems(order []member.ID, site func(member.ID) Site) []Problem {
	if len(order) < 3 {
		return nil
	}
	count := map[Site]int{}
	for _, id := range order {
		if s := site(id); s.Rack != "" {
			count[s]++
		}
	}
	for _, n := range count {
		if 2*n > len(order) {
			return nil
		}
	}
	var problems []Problem
	for i, id := range order {
		next := order[(i+1)%len(order)]
		if site(id).sameRack(site(next)) {
			problems = append(problems, Problem{id, RackNeighbours, fmt.Sprintf("%s and its first buddy %s share rack %s", id, next, site(id).Rack)})
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return cmp.Compare(a.ID, b.ID) })
	return problems
}
