package server

import (
	"errors"
	"fmt"
	"testing"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// Whatever shows that the table is not what the machine takes it for ends the term;
// a change in doubt is neither made nor not made.
func TestWhatComesOfACommit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err   error
		name  string
		fatal error
	}{
		"none":                    {nil, "committed", nil},
		"another leads":           {member.ErrFenced, "fenced", member.ErrFenced},
		"another revision":        {member.ErrStale, "fenced", member.ErrStale},
		"no pool":                 {member.ErrNotFound, "fenced", member.ErrNotFound},
		"no database":             {member.ErrUnavailable, "rejected", nil},
		"in doubt":                {fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, member.ErrUnavailable), "unknown", nil},
		"in doubt, another leads": {fmt.Errorf("%w: %w", store.ErrOutcomeUnknown, member.ErrFenced), "fenced", member.ErrFenced},
		"settled":                 {errNotMade, "rejected", nil},
		"a defect":                {errors.New("no such column"), "rejected", nil},
	} {
		o := outcomeOf(member.Change{Pool: "p", ID: "c"}, c.err)
		if o.name != c.name || !errors.Is(o.fatal, c.fatal) || (c.name == "unknown") != (o.input == nil) {
			t.Errorf("%s: %s, %v, fatal %v; want %s, fatal %v", name, o.name, o.input, o.fatal, c.name, c.fatal)
		}
		_, fenced := o.input.(pool.Fenced)
		_, committed := o.input.(pool.Committed)
		_, rejected := o.input.(pool.Rejected)
		if fenced != (c.name == "fenced") || committed != (c.name == "committed") || rejected != (c.name == "rejected") {
			t.Errorf("%s: the machine is told %T", name, o.input)
		}
	}
}
