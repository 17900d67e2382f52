package server

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// routerTwice is how long two runs of one router may be subscribed before an alarm:
// longer than it takes to notice that the host of the earlier one is gone.
const routerTwice = time.Minute

// routerRun is one run of a router's program. There is one at a time, but for
// that of a host which went without a word and is not missed yet, and but for two
// routers that were given the same id.
type routerRun struct {
	streams int
	since   time.Time
	applied map[member.Pool]member.Position
	held    []heldServer
}

// begin adds a stream of a run, which has these revisions. A run that is alone goes
// on from what its router had confirmed, as far as it still has that; one beside
// another has confirmed nothing yet.
func (k *router) begin(name string, has map[member.Pool]member.Revision, now time.Time) {
	r := k.runs[name]
	if r == nil {
		r = &routerRun{since: now, applied: map[member.Pool]member.Position{}}
		if len(k.runs) == 0 {
			r.applied, r.held = k.applied, k.held
		}
		k.runs[name] = r
	}
	r.streams++
	confirmed := r.applied
	r.applied = make(map[member.Pool]member.Position, len(confirmed))
	for pool, p := range confirmed {
		p.Revision = min(p.Revision, has[pool])
		r.applied[pool] = p
	}
	k.combine()
}

// end takes a stream of a run away. What the last run had stays.
func (k *router) end(name string) {
	r := k.runs[name]
	if r.streams--; r.streams > 0 {
		return
	}
	delete(k.runs, name)
	if len(k.runs) > 0 {
		k.combine()
	}
}

// take takes over what a run has applied and what it keeps.
func (k *router) take(name string, a ack, now time.Time) {
	r := k.runs[name]
	r.held = a.held
	for _, p := range a.applied {
		r.applied[p.pool] = p.Position
	}
	k.combine()
	for _, p := range a.applied {
		if all, ok := k.applied[p.pool]; ok {
			k.remember(p.pool, all.Revision, now)
		}
	}
}

// combine makes of what each run has applied what all have.
func (k *router) combine() {
	k.held = nil
	all := map[member.Pool]member.Position{}
	first := true
	for _, r := range k.runs {
		k.held = append(k.held, r.held...)
		for pool, p := range r.applied {
			if before, ok := all[pool]; first || ok && p.Revision < before.Revision {
				all[pool] = p
			}
		}
		for pool := range all {
			if _, ok := r.applied[pool]; !ok {
				delete(all, pool)
			}
		}
		first = false
	}
	slices.SortFunc(k.held, func(a, b heldServer) int { return cmp.Or(cmp.Compare(a.pool, b.pool), cmp.Compare(a.id, b.id)) })
	k.held = slices.Compact(k.held)
	k.applied = all
}

// keeps reports whether a router keeps a server as a last resort.
func (k *router) keeps(pool member.Pool, id member.ID) bool {
	return slices.Contains(k.held, heldServer{pool, id})
}

// lookTwice raises the alarm of two routers with one id, and ends it.
func (r *routers) lookTwice(k *router, now time.Time) {
	key := member.AlarmKey{Name: alarmRouterTwice, Subject: string(k.id)}
	var since time.Time
	for _, run := range k.runs {
		if run.since.After(since) {
			since = run.since
		}
	}
	switch {
	case len(k.runs) < 2:
		r.alarms.clear(key, now)
	case now.Sub(since) >= routerTwice:
		r.alarms.raise(member.Alarm{
			Name: alarmRouterTwice, Subject: string(k.id), Since: since,
			Text: fmt.Sprintf("%d routers subscribe as %s: give each an --id of its own; a drain waits for both", len(k.runs), k.id),
		})
	}
}
