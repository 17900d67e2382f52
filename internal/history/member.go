package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// membership is the state of one server.
type membership struct {
	ended, in bool
	// run, note and incarnation are those of a member, highest is the highest
	// incarnation so far.
	run, note            string
	incarnation, highest uint64
}

func memberModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return membership{} },
		Step: func(state, input, _ any) (bool, any) {
			m, _ := state.(membership)
			ok := m.step(input)
			return ok, m
		},
		DescribeOperation: describe,
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

// step does what the input says, and reports whether that is possible. An
// operation of unknown outcome does something, or comes after the end: at any
// other time it would only make more orders of the same outcome.
func (m *membership) step(input any) bool {
	if g, ok := input.(glance); ok {
		return m.in == g.there && (!g.there || m.run == g.row.Run && m.incarnation == g.row.Incarnation && m.note == g.row.Note)
	}
	o, _ := input.(Operation)
	if m.ended {
		return !o.Known
	}
	switch o.Kind {
	case theEnd:
		m.ended = true
		return true
	case Hello:
		return m.hello(o)
	case Leave, Remove, Lost, Replace:
		return m.goes(o)
	case Over:
		return !m.in || m.incarnation != o.Incarnation
	case Update:
		m.note = o.Value
		return m.in
	case stands:
		return m.in && (o.Incarnation == 0 || m.incarnation == o.Incarnation)
	case Delete:
		was := m.in
		m.in, m.run, m.note, m.incarnation = false, "", "", 0
		return was || o.Known
	case Intend, Drain, Resume, Create, Configure, Read, Ask:
	}
	return false
}

// hello welcomes a run: as the member that it is, or as a new incarnation.
func (m *membership) hello(o Operation) bool {
	r := o.Result
	if m.in && m.run == o.Run {
		return r.Resumed && r.Incarnation == m.incarnation
	}
	// A try before the one that was answered may have been what made it a member.
	if r.Resumed && !o.Retried || r.Incarnation <= m.highest {
		return false
	}
	m.in, m.run, m.note, m.incarnation, m.highest = true, o.Run, "", r.Incarnation, r.Incarnation
	return true
}

func (m *membership) goes(o Operation) bool {
	// Who leaves and is no member any more is told that it has left.
	if o.Kind == Leave && o.Known && !m.in && o.Incarnation <= m.highest {
		return true
	}
	if !m.in || o.Kind == Lost && m.run != o.Run || o.Kind != Lost && m.incarnation != o.Incarnation {
		return false
	}
	m.in, m.run, m.note, m.incarnation = false, "", "", 0
	return true
}

// birth is an incarnation that somebody has seen.
type birth struct {
	incarnation uint64
	by          time.Duration
}

// settleHellos finds out what became of hellos without an answer. One whose run
// is seen as an incarnation that nobody was welcomed as took effect before that
// was seen. Of others nobody has seen anything: they may as well not have been.
func settleHellos(ops []Operation, reads []reading) []Operation {
	births := birthsOf(ops, reads)
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b Operation) int { return cmp.Compare(a.Call, b.Call) })
	settled := ops[:0]
	for _, o := range ops {
		if o.Kind == Hello && !o.Known {
			list := births[o.Run]
			if len(list) == 0 || list[0].by < o.Call {
				continue
			}
			births[o.Run] = list[1:]
			o.Known, o.Return, o.Result = true, list[0].by, Result{Incarnation: list[0].incarnation}
		}
		settled = append(settled, o)
	}
	return settled
}

// birthsOf are the incarnations of each run that were seen and not welcomed, in
// their order, and when they had been seen first.
func birthsOf(ops []Operation, reads []reading) map[string][]birth {
	welcomed := map[uint64]bool{}
	births := map[string][]birth{}
	for _, o := range ops {
		switch {
		case o.Kind != Hello || !o.Known:
		case o.Result.Resumed && !o.Retried:
			births[o.Run] = append(births[o.Run], birth{o.Result.Incarnation, o.Return})
		default:
			welcomed[o.Result.Incarnation] = true
		}
	}
	for _, r := range reads {
		if r.saw.there {
			births[r.saw.row.Run] = append(births[r.saw.row.Run], birth{r.saw.row.Incarnation, r.answer})
		}
	}
	for run, list := range births {
		slices.SortFunc(list, func(a, b birth) int {
			return cmp.Or(cmp.Compare(a.incarnation, b.incarnation), cmp.Compare(a.by, b.by))
		})
		list = slices.CompactFunc(list, func(a, b birth) bool { return a.incarnation == b.incarnation })
		births[run] = slices.DeleteFunc(list, func(b birth) bool { return welcomed[b.incarnation] })
	}
	return births
}
