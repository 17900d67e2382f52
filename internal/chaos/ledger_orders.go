package chaos

import (
	"fmt"
	"slices"

	"github.com/buddyring/buddyring/internal/history"
)

// order is what an operator has asked for; done says that it was acknowledged.
type order struct {
	what history.Operation
	done bool
}

// promise is what was acknowledged last of a side pool.
type promise struct {
	// sure is false while something is asked for, and after it if it was not
	// acknowledged.
	sure, there bool
	// settings are those of a pool that is there, reason is why it is as it is.
	settings, reason string
}

// events are the kinds of the one event of an operator's change of a server.
func events() map[history.Kind]string {
	return map[history.Kind]string{
		history.Intend: "intent", history.Drain: "intent", history.Resume: "intent", history.Update: "updated",
		history.Replace: "replaced", history.Remove: "removed",
	}
}

// ordered notes that an operator asks for something.
func (l *ledger) ordered(what history.Operation, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if what.Pool == chaosPool {
		l.orders[reason] = order{what: what}
		return
	}
	p := l.promises[what.Pool]
	p.sure = p.sure && what.Kind == history.Intend
	l.promises[what.Pool] = p
}

// done notes that it was acknowledged.
func (l *ledger) done(what history.Operation, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged[what.Kind]++
	if what.Pool == chaosPool {
		l.orders[reason] = order{what, true}
		if what.Kind == history.Intend && what.Intent != (history.Intent{}) {
			l.intents++
		}
		return
	}
	if what.Kind != history.Intend {
		there := what.Kind != history.Delete
		l.promises[what.Pool] = promise{sure: true, there: there, settings: what.Value, reason: reason}
	}
}

// promised reports whether a side pool was there when something was acknowledged
// last.
func (l *ledger) promised(pool string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.promises[pool].there
}

// compareOrders says which acknowledged changes are not in the events, and which
// changes are there twice. told counts the events of each kind and reason.
func (l *ledger) compareOrders(told map[string]uint64) (wrong []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kinds := events()
	for reason, o := range l.orders {
		n := told[kinds[o.what.Kind]+" "+reason]
		// Of what was wanted already there is no event.
		if n > 1 || n == 0 && o.done && o.what.Kind != history.Resume {
			wrong = append(wrong, fmt.Sprintf("%s of %s with %q is %d times in the history; acknowledged: %v", o.what.Kind, o.what.Server, reason, n, o.done))
		}
	}
	slices.Sort(wrong)
	return wrong
}

// comparePools says which side pools are not as it was acknowledged. settings are
// those of all pools, deleted is why pools are none any more.
func (l *ledger) comparePools(settings, deleted map[string]string) (wrong []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for pool, p := range l.promises {
		has, is := settings[pool]
		switch {
		case !p.sure:
		case p.there != is || has != p.settings:
			wrong = append(wrong, fmt.Sprintf("pool %s was acknowledged with settings %q, and has %q", pool, p.settings, has))
		case !p.there && deleted[pool] != p.reason:
			wrong = append(wrong, fmt.Sprintf("pool %s was deleted for %q, the table says %q", pool, p.reason, deleted[pool]))
		}
	}
	slices.Sort(wrong)
	return wrong
}
