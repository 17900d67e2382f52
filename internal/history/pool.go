package history

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// existence is the state of one pool.
type existence struct {
	ended, there bool
	settings     string
}

func poolModel() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return existence{} },
		Step: func(state, input, _ any) (bool, any) {
			e, _ := state.(existence)
			ok := e.step(input)
			return ok, e
		},
		DescribeOperation: describe,
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
}

func (e *existence) step(input any) bool {
	if g, ok := input.(glance); ok {
		return e.there == g.there && e.settings == g.settings
	}
	o, _ := input.(Operation)
	was := e.there
	switch {
	case e.ended:
		return !o.Known
	case o.Kind == theEnd:
		e.ended = true
		return true
	case o.Kind == Create:
		e.there, e.settings = true, o.Value
		return !was
	case o.Kind == Configure:
		e.settings = o.Value
		return was
	case o.Kind == Delete:
		e.there, e.settings = false, ""
		return was
	}
	return false
}
