package history

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Rule is what a history must keep.
type Rule string

// The rules.
const (
	// Linearizable: the operations could have happened one after the other, each
	// between its call and its return.
	Linearizable Rule = "linearizable"
	// Undecided: the time did not suffice to say that. It is no success.
	Undecided Rule = "undecided"
	// Advancing: revisions and epochs do not go back from what has returned
	// to what is called afterwards, and a later change has a later revision.
	Advancing Rule = "advancing"
	// OneHistory: a revision is one change with one outcome, whoever tells it.
	OneHistory Rule = "one history"
	// Ring: the members are one symmetric cycle at every revision.
	Ring Rule = "ring"
	// Obeyed: what operators want of a server shows in its row.
	Obeyed Rule = "obeyed"
	// Fenced: nobody is told anything of a lower epoch than it has seen.
	Fenced Rule = "fenced"
	// Told: a client knows who gets work by the rows of its revision.
	Told Rule = "told"

	// Ordered: changes come by revision; none comes after a later one.
	Ordered Rule = "ordered"
	// Unique: no change comes twice.
	Unique Rule = "unique"
	// Atomic: a message has whole revisions.
	Atomic Rule = "atomic"
	// Reliable: no change is left out between two that come.
	Reliable Rule = "reliable"
	// Resumable: a stream goes on from the resume point, or says that it cannot,
	// and only where it cannot.
	Resumable Rule = "resumable"
	// Bookmarkable: what a bookmark names has come, and nothing more.
	Bookmarkable Rule = "bookmarkable"
)

// Finding is a breach of a rule.
type Finding struct {
	Rule Rule
	// Where is the pool, server or watcher that it is about.
	Where string
	// Text is one plain sentence.
	Text string
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Rule, f.Where, f.Text) }

// Verdict is what a history comes to.
type Verdict struct {
	// Findings are the breaches; none where all is well.
	Findings []Finding
	// Charts show some of the operations that are not linearizable.
	Charts []Chart
	// Operations, Unknown and Messages count what was judged; Unknown are the
	// operations without an answer, Compared the messages to clients after which it
	// is known who gets work.
	Operations, Unknown, Messages, Compared int
}

// Chart shows operations and how far they could be put in order.
type Chart struct {
	// Name is the server that they are about.
	Name string

	model porcupine.Model
	info  porcupine.LinearizationInfo
}

// Write writes the chart as a page for browsers.
func (c Chart) Write(w io.Writer) error {
	if err := porcupine.Visualize(c.model, c.info, w); err != nil {
		return fmt.Errorf("draw operations of %s: %w", c.Name, err)
	}
	return nil
}

// Judge judges a history. It takes no longer than within to look for an order of
// the operations; where that does not suffice, the verdict is Undecided.
func Judge(h History, within time.Duration) Verdict {
	v := Verdict{Operations: len(h.Operations)}
	for _, o := range h.Operations {
		if !o.Known {
			v.Unknown++
		}
	}
	for _, s := range h.Streams {
		v.Messages += len(s.Messages)
	}
	states := newStates()
	v.add(advancing(h.Operations))
	v.add(states.operations(h.Operations))
	v.add(obeyed(h.Operations))
	v.add(watch(h.Streams, states))
	findings, compared := clients(h.Streams, states)
	v.add(findings)
	v.Compared = compared
	findings, charts := linearizable(h.Operations, within)
	v.add(findings)
	v.Charts = charts
	return v
}

func (v *Verdict) add(findings []Finding) { v.Findings = append(v.Findings, findings...) }

// advancing finds revisions and epochs that go back. What has returned before an
// operation was called is in what the operation sees; a change that was called
// then is after it.
func advancing(all []Operation) []Finding {
	byPool := map[string][]moment{}
	for i := range all {
		o := &all[i]
		if !o.Known || o.Result.Revision == 0 || o.Kind == Ask {
			continue
		}
		byPool[o.Pool] = append(byPool[o.Pool], moment{o.Call, false, o}, moment{o.Return, true, o})
	}
	var found []Finding
	for _, pool := range sortedKeys(byPool) {
		found = append(found, goesBack(pool, byPool[pool])...)
	}
	return found
}

// moment is the call or the return of an operation.
type moment struct {
	at       time.Duration
	returned bool
	op       *Operation
}

func goesBack(pool string, moments []moment) (found []Finding) {
	// At one moment all calls come first: what returns then was not before them.
	slices.SortStableFunc(moments, func(a, b moment) int {
		return cmp.Or(cmp.Compare(a.at, b.at), compareBool(a.returned, b.returned))
	})
	var highest, epoch *Operation
	type floor struct{ revision, epoch *Operation }
	floors := map[*Operation]floor{}
	for _, m := range moments {
		o := m.op
		if !m.returned {
			floors[o] = floor{highest, epoch}
			continue
		}
		before := floors[o]
		if r := before.revision; r != nil && (o.Result.Revision < r.Result.Revision || o.Result.Revision == r.Result.Revision && o.Kind != Read) {
			found = append(found, Finding{Advancing, pool, fmt.Sprintf("%s has revision %d; %s had returned with %d before it was called",
				o, o.Result.Revision, r, r.Result.Revision)})
		}
		if e := before.epoch; e != nil && o.Kind == Read && o.Result.Epoch < e.Result.Epoch {
			found = append(found, Finding{Advancing, pool, fmt.Sprintf("%s has epoch %d; %s had returned with %d before it was called",
				o, o.Result.Epoch, e, e.Result.Epoch)})
		}
		if highest == nil || o.Result.Revision > highest.Result.Revision {
			highest = o
		}
		// A leader of the past may welcome somebody who has heard of no later one.
		if o.Kind == Read && (epoch == nil || o.Result.Epoch > epoch.Result.Epoch) {
			epoch = o
		}
	}
	return found
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// String names the operation for people.
func (o *Operation) String() string {
	text := string(o.Kind)
	if o.Server != "" {
		text += " of " + o.Server
	}
	if o.By != "" {
		text += " by " + o.By
	}
	if why := o.Value + o.Intent.Reason; why != "" {
		text += fmt.Sprintf(" (%q)", why)
	}
	return fmt.Sprintf("%s, asked by %s at %s", text, o.Client, o.Call)
}
