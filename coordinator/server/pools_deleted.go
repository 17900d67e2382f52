package server

import (
	"maps"
	"slices"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
)

// recall takes over the deleted pools of the table.
func (p *pools) recall(all []member.DeletedPool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range all {
		p.deleted[d.Name] = d
	}
	p.deletions.Add(uint64(len(all)))
}

// drop lets nobody see a pool any more, which was deleted.
func (p *pools) drop(d member.DeletedPool) {
	p.mu.Lock()
	all := slices.DeleteFunc(slices.Clone(p.list()), func(h *host) bool { return h.pool == d.Name })
	p.all.Store(&all)
	p.deleted[d.Name] = d
	p.deletions.Add(1)
	p.mu.Unlock()
	p.bell.ring()
}

// deletion tells of the deletion of a pool, if that is remembered. There may be
// one of that name again.
func (p *pools) deletion(name member.Pool) (member.DeletedPool, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d, ok := p.deleted[name]
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
		return member.DeletedPool{}, false, member.Invalid("request_id", "%q was used for another request", call.RequestID)
	}
	return d, true, nil
}

// deletedSince lists, by name, the pools that were deleted after what somebody
// has of them, or with it: the last revision comes before the deletion is told. A
// new pool of that name begins above it.
func (p *pools) deletedSince(has map[member.Pool]member.Revision) []member.DeletedPool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gone []member.DeletedPool
	for _, name := range slices.Sorted(maps.Keys(has)) {
		if d, ok := p.deleted[name]; ok && has[name] <= d.Position.Revision {
			gone = append(gone, d)
		}
	}
	return gone
}
