package history

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	// undecidedLimit is how many servers may be left undecided before the others
	// are not looked at any more.
	undecidedLimit = 3
	// chartLimit is how many charts there are at most.
	chartLimit = 10
)

// linearizable looks for an order of the operations, apart for each server, each
// intent and each pool: operations about different ones commute. Answers of coordinators
// are not among them: a leader of the past shows the past until it knows.
func linearizable(all []Operation, within time.Duration) (found []Finding, charts []Chart) {
	undecided := 0
	for _, p := range partitions(all) {
		if undecided == undecidedLimit {
			return append(found, Finding{Undecided, p.pool, "nor was there time for servers after " + p.name}), charts
		}
		ops := p.operations()
		switch porcupine.CheckOperationsTimeout(p.model, ops, within) {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			undecided++
			found = append(found, Finding{Undecided, p.name, fmt.Sprintf("within %s its %d operations were not shown to have an order, nor to have none", within, len(ops))})
		case porcupine.Illegal:
			found = append(found, Finding{Linearizable, p.name, fmt.Sprintf("its %d operations have no order", len(ops))})
		}
		if len(charts) == chartLimit {
			continue
		}
		_, info := porcupine.CheckOperationsVerbose(p.model, ops, within)
		charts = append(charts, Chart{Name: p.name, model: p.model, info: info})
	}
	return found, charts
}

// partition is what was asked about one server, one id's intent, or one pool.
type partition struct {
	pool, name string
	model      porcupine.Model
	ops        []Operation
	reads      []reading
}

// reading is what a read of the pool says of one server, one intent, or the pool.
type reading struct {
	client       string
	call, answer time.Duration
	saw          glance
}

type glance struct {
	there  bool
	row    Row
	intent Intent
	// settings are those of a pool.
	settings string
}

// partitions are those of all pools whose changes were recorded: one that was
// only read changes as others want.
func partitions(all []Operation) (parts []partition) {
	byPool := map[string]*poolOperations{}
	for _, o := range all {
		p := byPool[o.Pool]
		if p == nil {
			p = &poolOperations{members: map[string][]Operation{}, intents: map[string][]Operation{}}
			byPool[o.Pool] = p
		}
		p.add(o)
	}
	for _, pool := range sortedKeys(byPool) {
		parts = append(parts, byPool[pool].partitions(pool)...)
	}
	return parts
}

// poolOperations are those of one pool: about the pool, by server, and by id of an
// intent.
type poolOperations struct {
	reads, pool       []Operation
	members, intents  map[string][]Operation
	changed, intended bool
}

func (p *poolOperations) add(o Operation) {
	switch o.Kind {
	case Ask, stands:
	case Read:
		p.read(o)
	case Hello, Leave, Remove, Lost, Over, theEnd:
		p.changed = true
		fallthrough
	case Update:
		p.members[o.Server] = append(p.members[o.Server], o)
	case Intend, Resume:
		p.intend(o)
	case Drain, Replace:
		p.intend(o)
		p.admit(o)
	case Create, Configure, Delete:
		p.pool = append(p.pool, o)
	}
}

func (p *poolOperations) read(o Operation) {
	if !o.Known {
		return
	}
	p.reads = append(p.reads, o)
	for _, r := range o.Result.Rows {
		mention(p.members, r.ID)
	}
	for id := range o.Result.Intents {
		mention(p.intents, id)
	}
}

func (p *poolOperations) intend(o Operation) {
	p.intended = true
	p.intents[o.Server] = append(p.intents[o.Server], o)
}

// stands is the kind of an operation that wants a server to be a member, of an
// incarnation if it names one.
const stands Kind = "stands"

// admit takes what an operation means to members.
func (p *poolOperations) admit(o Operation) {
	member := o
	member.Kind = stands
	if o.Kind == Replace {
		p.members[o.Server] = append(p.members[o.Server], o)
		member.Server, member.Incarnation = o.By, 0
	}
	if o.Known {
		p.members[member.Server] = append(p.members[member.Server], member)
	}
}

// mention makes sure that what was seen is judged, even if nobody asked for it.
func mention(all map[string][]Operation, id string) {
	if _, known := all[id]; !known {
		all[id] = nil
	}
}

func (p *poolOperations) partitions(pool string) (parts []partition) {
	if len(p.pool) > 0 {
		reads := p.readings(func(r Result) glance { return glance{there: !r.Missing, settings: r.Settings} })
		parts = append(parts, partition{pool, "pool " + pool, poolModel(), p.pool, reads})
	}
	ends := slices.DeleteFunc(slices.Clone(p.pool), func(o Operation) bool { return o.Kind != Delete })
	if p.changed {
		for _, id := range sortedKeys(p.members) {
			reads := p.readings(func(r Result) glance {
				i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.ID == id })
				if i < 0 {
					return glance{}
				}
				return glance{there: true, row: r.Rows[i]}
			})
			ops := slices.Concat(settleHellos(p.doubtThePast(p.members[id]), reads), ends)
			parts = append(parts, partition{pool, pool + "/" + id, memberModel(), ops, reads})
		}
	}
	if p.intended {
		for _, id := range sortedKeys(p.intents) {
			reads := p.readings(func(r Result) glance { return glance{intent: r.Intents[id]} })
			ops := slices.Concat(settleIntents(p.intents[id], reads), ends)
			parts = append(parts, partition{pool, pool + "/intent of " + id, intentModel(), ops, reads})
		}
	}
	return parts
}

// doubtThePast takes the word of a leader of the past for none: one that does not
// know yet that it was succeeded may resume whoever has not heard of it either,
// from a picture of the past. It changes nothing by that.
func (p *poolOperations) doubtThePast(ops []Operation) []Operation {
	ops = slices.Clone(ops)
	for i := range ops {
		o := &ops[i]
		if o.Kind == Hello && o.Known && o.Result.Resumed && slices.ContainsFunc(p.reads, func(r Operation) bool {
			return r.Result.Epoch > o.Result.Epoch && r.Call < o.Return
		}) {
			o.Known = false
		}
	}
	return ops
}

func (p *poolOperations) readings(saw func(Result) glance) []reading {
	all := make([]reading, len(p.reads))
	for i, o := range p.reads {
		all[i] = reading{o.Client, o.Call, o.Return, saw(o.Result)}
	}
	return all
}

// theEnd is the kind of an operation after all others.
const theEnd Kind = "end"

// operations are those for porcupine. What has had no effect by the end may be
// put after it.
func (p partition) operations() []porcupine.Operation {
	var last time.Duration
	for _, o := range p.ops {
		last = max(last, o.Call, o.Return)
	}
	for _, r := range p.reads {
		last = max(last, r.answer)
	}
	clients := map[string]int{}
	var all []porcupine.Operation
	add := func(client string, call, answer time.Duration, input any) {
		if _, known := clients[client]; !known {
			clients[client] = len(clients)
		}
		all = append(all, porcupine.Operation{ClientId: clients[client], Input: input, Call: int64(call), Return: int64(answer)})
	}
	for _, o := range p.ops {
		answer := o.Return
		if !o.Known {
			answer = last + 2
		}
		add(o.Client, o.Call, answer, o)
	}
	for _, r := range p.reads {
		add(r.client, r.call, r.answer, r.saw)
	}
	add("the end", last+1, last+2, Operation{Kind: theEnd, Known: true})
	slices.SortStableFunc(all, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return all
}

// describe says for people what an operation did.
func describe(input, _ any) string {
	if g, ok := input.(glance); ok {
		switch {
		case g.row.ID != "":
			return fmt.Sprintf("read: incarnation %d of run %s, note %q", g.row.Incarnation, g.row.Run, g.row.Note)
		case g.there:
			return "read: settings " + g.settings
		case g.intent != Intent{}:
			return "read: " + g.intent.Wish + ", " + g.intent.Reason
		}
		return "read: nothing"
	}
	o, _ := input.(Operation)
	text := string(o.Kind)
	switch {
	case o.Kind == Hello:
		text = fmt.Sprintf("hello of run %s: incarnation %d, resumed: %v", o.Run, o.Result.Incarnation, o.Result.Resumed)
	case o.Kind == Lost:
		text = "lost: run " + o.Run
	case o.Value != "":
		text += fmt.Sprintf(" %q", o.Value)
	case o.Intent != Intent{}:
		text += fmt.Sprintf(" %s, %q", o.Intent.Wish, o.Intent.Reason)
	}
	if o.Kind != Hello && o.Incarnation != 0 {
		text += fmt.Sprintf(" incarnation %d", o.Incarnation)
	}
	if !o.Known {
		text += ": no answer"
	}
	return text
}
