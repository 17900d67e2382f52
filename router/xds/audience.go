package xds

import (
	"context"
	"fmt"
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
		behind = a.prune(behind)
	}
	return 0, nil
}

// waitedFor is a stream and the version of the assignments that it has to answer.
type waitedFor struct {
	*stream
	needs uint64
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

// behind returns the streams that do not know some pool as it is published.
func (a *audience) behind(seqs map[member.Pool]uint64) []waitedFor {
	a.mu.Lock()
	defer a.mu.Unlock()
	var behind []waitedFor
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
			behind = append(behind, waitedFor{s, needs})
		}
	}
	return behind
}

// prune drops the last streams as far as they have caught up or are gone: each is
// looked at until it has, and then no more, for thousands may answer one by one.
func (a *audience) prune(behind []waitedFor) []waitedFor {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(behind) > 0 && a.done(behind[len(behind)-1]) {
		behind = behind[:len(behind)-1]
	}
	return behind
}

// done reports whether a stream has caught up or is gone. It needs the lock.
func (a *audience) done(w waitedFor) bool {
	_, here := a.streams[w.stream]
	return !here || w.settled(w.needs)
}

// giveUp waits no longer for those that have not caught up, and returns how many
// they are.
func (a *audience) giveUp(behind []waitedFor) (laggards int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range behind {
		if !a.done(w) {
			a.laggards[w.stream] = struct{}{}
			laggards++
		}
	}
	return laggards
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
