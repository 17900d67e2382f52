package chaos

import (
	"testing"

	"github.com/buddyring/buddyring/internal/history"
)

// The ledger finds operators' changes that are lost, and those that were made twice.
func TestLedgerFindsOrdersThatAreLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind  history.Kind
		done  bool
		event string
		times uint64
		wrong bool
	}{
		"acknowledged and there":           {history.Drain, true, "intent", 1, false},
		"acknowledged and lost":            {history.Drain, true, "intent", 0, true},
		"made twice":                       {history.Update, true, "updated", 2, true},
		"made twice without an answer":     {history.Replace, false, "replaced", 2, true},
		"not acknowledged, and there":      {history.Replace, false, "replaced", 1, false},
		"not acknowledged, and not there":  {history.Remove, false, "removed", 0, false},
		"another kind of event":            {history.Remove, true, "intent", 1, true},
		"a resume of what was not drained": {history.Resume, true, "intent", 0, false},
		"a resume twice":                   {history.Resume, true, "intent", 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, what := newLedger(), history.Operation{Kind: c.kind, Pool: chaosPool, Server: "web-1"}
			l.ordered(what, "why")
			if c.done {
				l.done(what, "why")
			}
			if wrong := l.compareOrders(map[string]uint64{c.event + " why": c.times}); (len(wrong) > 0) != c.wrong {
				t.Errorf("found %q", wrong)
			}
		})
	}
}

func TestLedgerFindsPoolsThatAreLost(t *testing.T) {
	t.Parallel()
	create, configure := history.Operation{Kind: history.Create, Value: "1"}, history.Operation{Kind: history.Configure, Value: "2"}
	end, plan := history.Operation{Kind: history.Delete}, history.Operation{Kind: history.Intend, Intent: history.Intent{Wish: "banned"}}
	made, changed := map[string]string{"side": "1"}, map[string]string{"side": "2"}
	for name, c := range map[string]struct {
		// all are acknowledged but the last, if it is open.
		all               []history.Operation
		open              bool
		settings, deleted map[string]string
		wrong             bool
	}{
		"made":                         {[]history.Operation{create}, false, made, nil, false},
		"made and lost":                {[]history.Operation{create}, false, nil, nil, true},
		"made without an answer":       {[]history.Operation{create}, true, nil, nil, false},
		"changed":                      {[]history.Operation{create, configure}, false, changed, nil, false},
		"changed and lost":             {[]history.Operation{create, configure}, false, made, nil, true},
		"changed without an answer":    {[]history.Operation{create, configure}, true, changed, nil, false},
		"deleted":                      {[]history.Operation{create, end}, false, nil, map[string]string{"side": "why"}, false},
		"deleted and there":            {[]history.Operation{create, end}, false, made, map[string]string{"side": "why"}, true},
		"deleted, and nobody says so":  {[]history.Operation{create, end}, false, nil, nil, true},
		"a wish in it changes nothing": {[]history.Operation{create, plan}, true, nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger()
			for i, what := range c.all {
				what.Pool = "side"
				l.ordered(what, "why")
				if i < len(c.all)-1 || !c.open {
					l.done(what, "why")
				}
			}
			if wrong := l.comparePools(c.settings, c.deleted); (len(wrong) > 0) != c.wrong {
				t.Errorf("found %q", wrong)
			}
		})
	}
}

// What a crash has lost is in the report, whatever the end of the experiment adds.
func TestLossesOfCrashesStay(t *testing.T) {
	t.Parallel()
	r := &run{report: Report{Lost: []string{"a join"}}}
	r.loses([]string{"a drain"}, nil)
	if len(r.report.Lost) != 2 {
		t.Errorf("%q", r.report.Lost)
	}
}
