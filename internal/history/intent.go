package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// wish is the state of one id's intent.
type wish struct {
	ended bool
	value string
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
		return w.value == g.value
	}
	o, _ := input.(Operation)
	if o.Kind == theEnd {
		w.ended = true
		return true
	}
	w.value = o.Value
	return !w.ended
}

// settleIntents finds out what became of those without an answer, as
// settleHellos does.
func settleIntents(ops []Operation, reads []reading) []Operation {
	by := map[string]time.Duration{}
	for _, r := range reads {
		if at, known := by[r.saw.value]; !known || r.answer < at {
			by[r.saw.value] = r.answer
		}
	}
	ops = slices.Clone(ops)
	settled := ops[:0]
	for _, o := range ops {
		if !o.Known {
			at, seen := by[o.Value]
			if !seen {
				continue
			}
			// One that was seen before it was asked for has no order, which is right.
			o.Known, o.Return = true, max(at, o.Call)
		}
		settled = append(settled, o)
	}
	return settled
}
