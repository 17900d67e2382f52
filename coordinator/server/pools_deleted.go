package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// untoldFor is how long a deletion is told of that the history does not have. It is
	// shorter than keepEvents: what was told is not told again once it is pruned.
	// untoldLimit bounds the events that are looked at, the newest.
	untoldFor   = 24 * time.Hour
	untoldLimit = 1000
	// tellPause is the pause before the history is looked at again.
	tellPause = time.Second
)

// recall takes over the deleted pools of the table.
func (p *pools) recall(all []member.DeletedPool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.present.Store(p.present.Load().without(all...))
}

// drop lets nobody see a pool any more, which was deleted.
func (p *pools) drop(d member.DeletedPool) {
	p.mu.Lock()
	p.present.Store(p.present.Load().without(d))
	p.mu.Unlock()
	p.bell.ring()
}

// without returns the roster after deletions.
func (r *roster) without(gone ...member.DeletedPool) *roster {
	next := &roster{deletions: r.deletions + len(gone), deleted: map[member.Pool]member.DeletedPool{}}
	maps.Copy(next.deleted, r.deleted)
	for _, d := range gone {
		next.deleted[d.Name] = d
	}
	isGone := func(h *host) bool {
		return slices.ContainsFunc(gone, func(d member.DeletedPool) bool { return d.Name == h.pool })
	}
	next.all = slices.DeleteFunc(slices.Clone(r.all), isGone)
	return next
}

// names lists, by name, the pools that there are or were.
func (r *roster) names() []member.Pool {
	names := slices.Collect(maps.Keys(r.deleted))
	for _, h := range r.all {
		names = append(names, h.pool)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// deletion tells of the deletion of a pool, if that is remembered. There may be
// one of that name again.
func (p *pools) deletion(name member.Pool) (member.DeletedPool, bool) {
	d, ok := p.present.Load().deleted[name]
	return d, ok
}

// deletedBy returns the deletion of a pool by an earlier call with the same
// request id.
func (p *pools) deletedBy(name member.Pool, call pool.Call) (d member.DeletedPool, found bool, err error) {
	d, found = p.deletion(name)
	switch {
	case !found || call.RequestID == "" || d.Request.ID != call.RequestID:
		return member.DeletedPool{}, false, nil
	case d.Request.Hash != call.Hash:
		return member.DeletedPool{}, false, usedBefore(call.RequestID)
	}
	return d, true, nil
}

// deletedSince lists, by name, the pools that were deleted after what somebody
// has of them, or with it: the last revision comes before the deletion is told. A
// new pool of that name begins above it.
func (r *roster) deletedSince(has map[member.Pool]member.Revision) []member.DeletedPool {
	var gone []member.DeletedPool
	for _, name := range slices.Sorted(maps.Keys(has)) {
		if d, ok := r.deleted[name]; ok && has[name] <= d.Position.Revision {
			gone = append(gone, d)
		}
	}
	return gone
}

// eventOf tells of a deletion in the history of the default pool.
func eventOf(d member.DeletedPool) member.Event {
	text := fmt.Sprintf("pool %s was deleted at revision %d", d.Name, d.Position.Revision)
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	return member.Event{Kind: member.EventPoolDeleted, Actor: d.Actor, Text: text}
}

// tellInherited tells of the deletions that earlier leaders have made and not told of:
// the history has them some seconds later, in another change.
func (t *term) tellInherited(ctx context.Context) {
	for len(t.inherited) > 0 {
		told, err := t.deps.Store.Events(ctx, store.EventQuery{
			Pool: member.DefaultPool, Kinds: []member.EventKind{member.EventPoolDeleted}, Limit: untoldLimit,
		})
		if err == nil {
			for _, e := range untold(t.inherited, told, time.Now()) {
				t.own.note("", e)
			}
			return
		}
		select {
		case <-time.After(tellPause):
		case <-ctx.Done():
			return
		}
	}
}

// untold returns the events of the deletions, but old ones, that are not among those
// that the history has.
func untold(deleted []member.DeletedPool, told []member.Event, now time.Time) []member.Event {
	texts := map[string]bool{}
	for _, e := range told {
		texts[e.Text] = true
	}
	var events []member.Event
	for _, d := range deleted {
		if now.Sub(d.At) < untoldFor && !isTold(d, texts) {
			events = append(events, eventOf(d))
		}
	}
	return events
}

// isTold reports whether one of the texts tells of a deletion, perhaps before restores,
// which have added to the revision and not to the text.
func isTold(d member.DeletedPool, texts map[string]bool) bool {
	for !texts[eventOf(d).Text] {
		if d.Position.Revision < store.RestoreStep {
			return false
		}
		d.Position.Revision -= store.RestoreStep
	}
	return true
}
