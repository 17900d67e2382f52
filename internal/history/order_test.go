package history_test

import (
	"testing"

	"github.com/buddyring/buddyring/internal/history"
)

func drain(value string, incarnation uint64) history.Operation {
	o := gone(history.Drain, incarnation)
	o.Intent = wanted(value)
	return o
}

func replace(value string, incarnation uint64, by string) history.Operation {
	o := drain(value, incarnation)
	o.Kind, o.By = history.Replace, by
	return o
}

func update(note string) history.Operation {
	return history.Operation{Kind: history.Update, Server: "s", Value: note}
}

func noted(note string) history.Row {
	r := row("x", 2)
	r.Note = note
	return r
}

func phased(phase string) history.Row {
	r := row("x", 2)
	r.Phase = phase
	return r
}

func pool(kind history.Kind, settings string) history.Operation {
	return history.Operation{Kind: kind, Value: settings}
}

func settings(revision uint64, value string) history.Operation {
	o := read(revision)
	o.Result.Settings = value
	return o
}

// TestOrders judges short histories of what operators do, by hand.
func TestOrders(t *testing.T) {
	t.Parallel()
	join, resume := hello("x", 0, 2, false), history.Operation{Kind: history.Resume, Server: "s"}
	missing := history.Operation{Kind: history.Read, Result: history.Result{Missing: true}}
	type ops = map[string]history.Operation
	// The rest of a pool of two, whose ring is left alone.
	beside := func(r history.Row) []history.Row {
		r.First, r.Second = "t", "t"
		return []history.Row{r, {ID: "t", Run: "y", Incarnation: 3, Phase: "active", First: "s", Second: "s"}}
	}
	other := hello("y", 0, 3, false)
	other.Server = "t"
	alone := history.Row{ID: "t", Run: "y", Incarnation: 3, Phase: "active"}
	judgeAll(t, map[string]judged{
		"a drain that is read":      {"a+ a- d+ d- r+ r-", ops{"a": join, "d": drain("drain x", 2), "r": wishes(3, "drain x", phased("draining"))}, ""},
		"a drain that is lost":      {"a+ a- d+ d- r+ r-", ops{"a": join, "d": drain("drain x", 2), "r": read(3, phased("active"))}, history.Linearizable},
		"a drain without an answer": {"a+ a- d+ r+ r- s+ s-", ops{"a": join, "d": drain("drain x", 2), "r": read(2, row("x", 2)), "s": wishes(3, "drain x", phased("draining"))}, ""},
		"and one that comes and goes": {
			"a+ a- d+ r+ r- s+ s-", ops{"a": join, "d": drain("drain x", 2), "r": wishes(3, "drain x", phased("draining")), "s": read(4, row("x", 2))}, history.Linearizable,
		},
		"a drain of a stranger":         {"b+ b- d+ d-", ops{"b": other, "d": drain("drain x", 2)}, history.Linearizable},
		"one of an earlier incarnation": {"a+ a- b+ b- d+ d-", ops{"a": join, "b": hello("y", 0, 3, false), "d": drain("drain x", 2)}, history.Linearizable},
		"a drain that is wished and not obeyed": {
			"a+ a- d+ d- r+ r-", ops{"a": join, "d": drain("drain x", 2), "r": wishes(3, "drain x", phased("active"))}, history.Obeyed,
		},
		"draining though nobody wants it": {"a+ a- r+ r-", ops{"a": join, "r": read(3, phased("draining"))}, history.Obeyed},
		"draining since it wants to leave": {
			"a+ a- l+ r+ r-", ops{"a": join, "l": gone(history.Leave, 2), "r": read(3, phased("draining"))}, "",
		},
		"resumed": {
			"a+ a- d+ d- u+ u- r+ r-", ops{"a": join, "d": drain("drain x", 2), "u": resume, "r": read(4, row("x", 2))}, "",
		},
		"a drain that comes back": {
			"a+ a- d+ d- u+ u- r+ r-", ops{"a": join, "d": drain("drain x", 2), "u": resume, "r": wishes(5, "drain x", phased("draining"))}, history.Linearizable,
		},
		"a resume that is lost in the row": {
			"a+ a- d+ d- u+ u- r+ r-", ops{"a": join, "d": drain("drain x", 2), "u": resume, "r": read(4, phased("draining"))}, history.Obeyed,
		},
		"a resume without an answer, late": {
			"a+ a- d+ d- u+ r+ r- s+ s-",
			ops{"a": join, "d": drain("drain x", 2), "u": resume, "r": wishes(3, "drain x", phased("draining")), "s": read(4, row("x", 2))},
			"",
		},
		"a resume of nothing":           {"u+ u- r+ r-", ops{"u": resume, "r": read(2)}, ""},
		"a resume of a ban":             {"b+ b- u+ u-", ops{"b": intend("banned x", 2), "u": resume}, history.Linearizable},
		"a wish that is ended":          {"a+ a- b+ b- r+ r-", ops{"a": intend("banned x", 2), "b": intend("", 3), "r": read(3)}, ""},
		"an ended wish that comes back": {"a+ a- b+ b- r+ r-", ops{"a": intend("banned x", 2), "b": intend("", 3), "r": wishes(4, "banned x")}, history.Linearizable},
		"a banned member":               {"a+ a- b+ b- r+ r-", ops{"a": join, "b": intend("banned x", 3), "r": wishes(3, "banned x", row("x", 2))}, history.Obeyed},
		"replaced":                      {"a+ a- b+ b- c+ c- r+ r-", ops{"a": join, "b": other, "c": replace("banned x", 2, "t"), "r": wishes(4, "banned x", alone)}, ""},
		"replaced, and there":           {"a+ a- b+ b- c+ c- r+ r-", ops{"a": join, "b": other, "c": replace("banned x", 2, "t"), "r": read(4, beside(row("x", 2))...)}, history.Linearizable},
		"replaced, and not banned":      {"a+ a- b+ b- c+ c- r+ r-", ops{"a": join, "b": other, "c": replace("banned x", 2, "t"), "r": read(4, alone)}, history.Linearizable},
		"replaced by a stranger":        {"a+ a- c+ c-", ops{"a": join, "c": replace("banned x", 2, "t")}, history.Linearizable},
		"replaced without an answer":    {"a+ a- b+ b- c+ r+ r-", ops{"a": join, "b": other, "c": replace("banned x", 2, "t"), "r": wishes(4, "banned x", alone)}, ""},
		"a replacement that never was":  {"a+ a- b+ b- c+ r+ r-", ops{"a": join, "b": other, "c": replace("banned x", 2, "t"), "r": read(4, beside(row("x", 2))...)}, ""},
		"taken out twice": {
			"a+ a- b+ b- c+ c- d+ d-", ops{"a": join, "b": other, "c": replace("banned x", 2, "t"), "d": gone(history.Remove, 2)}, history.Linearizable,
		},
		"a note that is read":    {"a+ a- u+ u- r+ r-", ops{"a": join, "u": update("1"), "r": read(3, noted("1"))}, ""},
		"a note that is lost":    {"a+ a- u+ u- r+ r-", ops{"a": join, "u": update("1"), "r": read(3, row("x", 2))}, history.Linearizable},
		"a note that comes back": {"a+ a- u+ u- v+ v- r+ r-", ops{"a": join, "u": update("1"), "v": update("2"), "r": read(4, noted("1"))}, history.Linearizable},
		"a note without an answer, late": {
			"a+ a- u+ v+ v- r+ r- s+ s-", ops{"a": join, "u": update("1"), "v": update("2"), "r": read(4, noted("2")), "s": read(5, noted("1"))}, "",
		},
		"a note that is written twice": {
			"a+ a- u+ r+ r- v+ v- s+ s-", ops{"a": join, "u": update("1"), "r": read(3, noted("1")), "v": update("2"), "s": read(5, noted("1"))}, history.Linearizable,
		},
		"a note about a stranger": {"u+ u-", ops{"u": update("1"), "h": join}, history.Linearizable},
		"a note that the next join keeps": {
			"a+ a- u+ u- b+ b- r+ r-", ops{"a": hello("y", 0, 1, false), "u": update("1"), "b": hello("x", 0, 2, false), "r": read(3, noted("1"))}, history.Linearizable,
		},
		"a pool that is read":            {"c+ c- r+ r-", ops{"c": pool(history.Create, "1"), "r": settings(1, "1")}, ""},
		"a pool that is lost":            {"c+ c- r+ r-", ops{"c": pool(history.Create, "1"), "r": missing}, history.Linearizable},
		"a pool without an answer":       {"c+ r+ r- s+ s-", ops{"c": pool(history.Create, "1"), "r": missing, "s": settings(1, "1")}, ""},
		"a pool that is made twice":      {"c+ c- d+ d-", ops{"c": pool(history.Create, "1"), "d": pool(history.Create, "2")}, history.Linearizable},
		"a pool that nobody made":        {"d+ d- r+ r-", ops{"d": pool(history.Delete, ""), "r": missing}, history.Linearizable},
		"settings that are read":         {"c+ c- s+ s- r+ r-", ops{"c": pool(history.Create, "1"), "s": pool(history.Configure, "2"), "r": settings(2, "2")}, ""},
		"settings that are lost":         {"c+ c- s+ s- r+ r-", ops{"c": pool(history.Create, "1"), "s": pool(history.Configure, "2"), "r": settings(2, "1")}, history.Linearizable},
		"settings without an answer":     {"c+ c- s+ r+ r-", ops{"c": pool(history.Create, "1"), "s": pool(history.Configure, "2"), "r": settings(1, "1")}, ""},
		"a pool that is deleted":         {"c+ c- d+ d- r+ r-", ops{"c": pool(history.Create, "1"), "d": pool(history.Delete, ""), "r": missing}, ""},
		"a deleted pool that comes back": {"c+ c- d+ d- r+ r-", ops{"c": pool(history.Create, "1"), "d": pool(history.Delete, ""), "r": settings(1, "1")}, history.Linearizable},
		"a new pool with the settings of the old one": {
			"c+ c- d+ d- e+ e- r+ r-",
			ops{"c": pool(history.Create, "1"), "d": pool(history.Delete, ""), "e": pool(history.Create, "2"), "r": settings(5, "1")},
			history.Linearizable,
		},
		"a wish that ends with its pool": {
			"c+ c- w+ w- d+ d- r+ r-", ops{"c": pool(history.Create, ""), "w": intend("banned x", 2), "d": pool(history.Delete, ""), "r": missing}, "",
		},
		"a wish of a deleted pool in the new one": {
			"c+ c- w+ w- d+ d- e+ e- r+ r-",
			ops{"c": pool(history.Create, ""), "w": intend("banned x", 2), "d": pool(history.Delete, ""), "e": pool(history.Create, ""), "r": wishes(5, "banned x")},
			history.Linearizable,
		},
		"a member of a deleted pool in the new one": {
			"c+ c- a+ a- d+ d- e+ e- r+ r-",
			ops{"c": pool(history.Create, ""), "a": join, "d": pool(history.Delete, ""), "e": pool(history.Create, ""), "r": read(5, row("x", 2))},
			history.Linearizable,
		},
	})
}
