package xds

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
)

// settleLimit is how long one client may keep the router from acknowledging what
// it has applied.
const settleLimit = 2 * time.Second

// audience are the streams, and what there is for them to know. It is safe for
// concurrent use.
type audience struct {
	// places are those of streams, names what they subscribe to.
	places, names *quota.Counter
	// progress is set when something has been published, or a client has come
	// nearer to that.
	progress chan struct{}

	mu sync.Mutex
	// seqs are the states of the pools that are published, versions those of the
	// cache of assignments when each assignment changed.
	seqs     map[member.Pool]uint64
	versions map[string]uint64
	streams  map[*stream]struct{}
	// laggards are streams that kept the router waiting and have not caught up.
	laggards map[*stream]struct{}
}

func newAudience(streams, names quota.Limits) *audience {
	return &audience{
		places: quota.NewCounter(streams), names: quota.NewCounter(names),
		progress: make(chan struct{}, 1), streams: map[*stream]struct{}{}, laggards: map[*stream]struct{}{},
	}
}

func (a *audience) join(s *stream) error {
	if err := exhausted(a.places.Take(s.from, 1), s.from, "streams"); err != nil {
		return fmt.Errorf("open xDS stream: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams[s] = struct{}{}
	return nil
}

// subscribe lets a stream have so many names more, or fewer.
func (a *audience) subscribe(s *stream, more int) error {
	if err := exhausted(a.names.Take(s.from, more), s.from, "names"); err != nil {
		return fmt.Errorf("subscribe to xDS resources: %w", err)
	}
	return nil
}

// exhausted says which limit was reached, if one was.
func exhausted(reached quota.Limit, from netip.Prefix, of string) error {
	switch reached {
	case quota.Total:
		return fmt.Errorf("%w: the router has no room for more %s", member.ErrExhausted, of)
	case quota.PerSource:
		return fmt.Errorf("%w: %s has half of the router's room for %s", member.ErrExhausted, from, of)
	case quota.None:
	}
	return nil
}

// leave forgets a stream and all that it has asked for.
func (a *audience) leave(s *stream) {
	a.places.Return(s.from, 1)
	a.names.Return(s.from, s.end())
	a.mu.Lock()
	delete(a.streams, s)
	delete(a.laggards, s)
	a.mu.Unlock()
	a.wake()
}

func (a *audience) wake() {
	select {
	case a.progress <- struct{}{}:
	default:
	}
}

// published takes what is in the caches now.
func (a *audience) published(pools map[member.Pool]*publication) {
	seqs, versions := make(map[member.Pool]uint64, len(pools)), map[string]uint64{}
	for name, p := range pools {
		seqs[name] = p.seq
		for resource, n := range p.names {
			versions[resource] = n.version
		}
	}
	a.mu.Lock()
	a.seqs, a.versions = seqs, versions
	a.mu.Unlock()
	a.wake()
}

// await returns when the states are published and all streams know them, but for
// those that it has given up on, whose number it returns.
func (a *audience) await(ctx context.Context, seqs map[member.Pool]uint64) (laggards int, err error) {
	for !a.has(seqs) {
		select {
		case <-a.progress:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	limit := time.NewTimer(settleLimit)
	defer limit.Stop()
	behind := a.behind(seqs)
	for len(behind) > 0 {
		select {
		case <-a.progress:
		case <-limit.C:
			return a.giveUp(behind), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		a.prune(behind)
	}
	return 0, nil
}

// has reports whether the states or later ones are published. Of a pool that is
// not, because it is new or gone, nobody has been told anything.
func (a *audience) has(seqs map[member.Pool]uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for pool, seq := range seqs {
		if have, ok := a.seqs[pool]; a.seqs == nil || ok && have < seq {
			return false
		}
	}
	return true
}

// behind returns the streams that do not know some pool as it is published, and
// the version that they have to answer.
func (a *audience) behind(seqs map[member.Pool]uint64) map[*stream]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	behind := map[*stream]uint64{}
	for s := range a.streams {
		var needs uint64
		for _, name := range s.assignments() {
			pool, _, _ := strings.Cut(name, "/")
			if _, ok := seqs[member.Pool(pool)]; ok {
				needs = max(needs, a.versions[name])
			}
		}
		_, late := a.laggards[s]
		switch settled := s.settled(needs); {
		case settled:
			delete(a.laggards, s)
		case !late:
			behind[s] = needs
		}
	}
	return behind
}

// prune drops the streams that have caught up or are gone.
func (a *audience) prune(behind map[*stream]uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(behind, func(s *stream, version uint64) bool {
		_, here := a.streams[s]
		return !here || s.settled(version)
	})
}

func (a *audience) giveUp(behind map[*stream]uint64) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range behind {
		a.laggards[s] = struct{}{}
	}
	return len(behind)
}

// count returns how many streams there are, and how many of them reject what they
// were last sent.
func (a *audience) count() (all, rejecting int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s := range a.streams {
		if s.rejecting() {
			rejecting++
		}
	}
	return len(a.streams), rejecting
}
