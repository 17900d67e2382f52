package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// wish is the state of one id's intent.
type wish struct {
	ended  bool
	intent Intent
}

func intentModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return wish{} },
		Step: func(state, input, _ any) (bool, any) {
			w, _ := state.(wish)
			ok := w.step(input)
			return ok, w
		},
		DescribeOperation: describe,
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

func (w *wish) step(input any) bool {
	if g, ok := input.(glance); ok {
		return w.intent == g.intent
	}
	o, _ := input.(Operation)
	if w.ended {
		return !o.Known
	}
	before := w.intent
	switch o.Kind {
	case theEnd:
		w.ended = true
	case Intend, Drain, Replace:
		w.intent = o.Intent
	case Resume:
		if w.intent.Wish != "" && w.intent.Wish != wishDrain {
			return false
		}
		w.intent = Intent{}
	case Delete:
		w.intent = Intent{}
	case Hello, Leave, Remove, Lost, Over, Update, Create, Configure, Read, Ask, stands:
		return false
	}
	return o.Known || w.intent != before
}

// What may be wanted, as far as rows follow it.
const (
	wishDrain  = "drain"
	wishBanned = "banned"
)

// settleIntents finds out what became of those without an answer, as
// settleHellos does. Of those that want nothing, and of drains, which
// may be why a resume was possible, it is left open.
func settleIntents(ops []Operation, reads []reading) []Operation {
	by := map[Intent]time.Duration{}
	for _, r := range reads {
		if at, known := by[r.saw.intent]; !known || r.answer < at {
			by[r.saw.intent] = r.answer
		}
	}
	ops = slices.Clone(ops)
	settled := ops[:0]
	for _, o := range ops {
		if !o.Known && o.Intent != (Intent{}) {
			at, seen := by[o.Intent]
			switch {
			case !seen && o.Kind == Drain:
				settled = append(settled, o)
				continue
			case !seen:
				continue
			}
			// One that was seen before it was asked for has no order, which is right.
			o.Known, o.Return = true, max(at, o.Call)
		}
		settled = append(settled, o)
	}
	return settled
}
