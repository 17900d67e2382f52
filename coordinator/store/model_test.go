package store_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/buddyring/buddyring/coordinator/store"
	"github.com/buddyring/buddyring/internal/member"
)

// model is what a pool's rows should be, kept in the plainest way.
type model struct {
	at       member.Position
	lastID   string
	size     int
	servers  map[member.ID]member.Server
	intents  map[member.ID]member.Intent
	departed map[member.ID]member.Departed
	events   int
}

// commit says what the store must answer, and follows it.
func (m *model) commit(c member.Change) error {
	switch {
	case c.Base.Epoch < m.at.Epoch:
		return member.ErrFenced
	case c.ID == m.lastID && c.Revision() == m.at.Revision:
		return nil
	case c.Base != m.at:
		return member.ErrStale
	}
	for _, r := range c.Remove {
		if s, ok := m.servers[r.ID]; !ok || s.Incarnation != r.Incarnation {
			return member.ErrStale
		}
	}
	for _, r := range c.Remove {
		delete(m.servers, r.ID)
	}
	for _, s := range c.Put {
		m.servers[s.ID] = s
	}
	for _, id := range c.Forget {
		delete(m.intents, id)
	}
	for _, i := range c.Intents {
		m.intents[i.ID] = i
	}
	for _, d := range c.Departed {
		m.departed[d.ID] = d
	}
	if c.ReferenceSize != nil {
		m.size = *c.ReferenceSize
	}
	m.events += len(c.Events)
	m.at.Revision, m.lastID = c.Revision(), c.ID
	return nil
}

// settle says the same of Settle.
func (m *model) settle(c member.Change) (isIn bool, err error) {
	switch {
	case c.Base.Epoch < m.at.Epoch:
		return false, member.ErrFenced
	case c.ID == m.lastID && c.Revision() == m.at.Revision:
		return true, nil
	case c.Base != m.at:
		return false, member.ErrStale
	}
	return false, nil
}

func (m *model) state(pool member.Pool) member.PoolState {
	return member.PoolState{
		Name: pool, Position: m.at, LastChange: m.lastID, Settings: member.DefaultSettings(), ReferenceSize: m.size,
		Servers: slices.SortedFunc(maps.Values(m.servers), func(a, b member.Server) int { return cmp.Compare(a.ID, b.ID) }),
		Intents: slices.SortedFunc(maps.Values(m.intents), func(a, b member.Intent) int { return cmp.Compare(a.ID, b.ID) }),
		Departed: slices.SortedFunc(maps.Values(m.departed), func(a, b member.Departed) int {
			return cmp.Compare(a.ID, b.ID)
		}),
	}
}

// draw makes a change from about where the pool is: also late ones, repeated
// ones, and ones that remove what is not there.
func (m *model) draw(t *rapid.T, pool member.Pool, last member.Change) member.Change {
	if last.ID != "" && rapid.IntRange(0, 5).Draw(t, "repeat") == 0 {
		return last
	}
	c := member.Change{ID: fmt.Sprint("c", rapid.Uint64().Draw(t, "change id")), Pool: pool, Base: m.at}
	if m.at.Revision > 1 && rapid.IntRange(0, 5).Draw(t, "late") == 0 {
		c.Base.Revision--
	}
	if rapid.IntRange(0, 9).Draw(t, "stale epoch") == 0 {
		c.Base.Epoch--
	}
	id := rapid.SampledFrom([]member.ID{"a", "b", "c", "d", "e.f", "e-f"})
	for _, id := range rapid.SliceOfNDistinct(id, 0, 4, rapid.ID).Draw(t, "touched") {
		old, there := m.servers[id]
		switch {
		case rapid.IntRange(0, 2).Draw(t, "remove") == 0:
			r := member.Removal{ID: id, Incarnation: old.Incarnation}
			if !there || rapid.IntRange(0, 9).Draw(t, "wrong incarnation") == 0 {
				r.Incarnation++
			}
			if there || rapid.IntRange(0, 9).Draw(t, "absent") == 0 {
				c.Remove = append(c.Remove, r)
			}
		default:
			c.Put = append(c.Put, rapid.SampledFrom([]member.Server{
				server(id, member.Incarnation(c.Revision())), bare(id, max(1, old.Incarnation)),
			}).Draw(t, "row"))
		}
		c.Events = append(c.Events, member.Event{At: noon, ID: id})
	}
	for _, id := range rapid.SliceOfNDistinct(id, 0, 2, rapid.ID).Draw(t, "wishes") {
		if rapid.Bool().Draw(t, "forget") {
			c.Forget = append(c.Forget, id)
		} else {
			c.Intents = append(c.Intents, member.Intent{ID: id, Wish: member.WishDrain, SetAt: noon.Add(time.Duration(c.Base.Revision) * time.Microsecond)})
		}
		c.Departed = append(c.Departed, member.Departed{ID: id, LeftAt: noon, FlapScore: float64(c.Base.Revision) / 3})
	}
	if size := rapid.IntRange(0, 9).Draw(t, "size"); size > 4 {
		c.ReferenceSize = &size
	}
	return c
}

// TestStoreFollowsTheModel runs random changes, in a pool of its own each time,
// on a store that is led anew and reopened now and then.
func TestStoreFollowsTheModel(t *testing.T) {
	t.Parallel()
	url := freshURL(t)
	s := openStore(t, url)
	epoch := lead(t, s).Epoch
	reopen := func() {
		next, err := store.Open(t.Context(), store.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, epoch = next, lead(t, next).Epoch
	}
	t.Cleanup(func() { _ = s.Close() })
	pools := 0
	rapid.Check(t, func(r *rapid.T) {
		pools++
		pool := member.Pool(fmt.Sprint("pool-", pools))
		p, err := s.CreatePool(t.Context(), epoch, store.NewPool{Name: pool, Settings: member.DefaultSettings()})
		if err != nil {
			r.Fatal(err)
		}
		m := &model{
			at: p.Position, lastID: p.LastChange, servers: map[member.ID]member.Server{}, intents: map[member.ID]member.Intent{},
			departed: map[member.ID]member.Departed{},
		}
		var last member.Change
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			if rapid.IntRange(0, 7).Draw(r, "take the lead") == 0 {
				reopen()
				m.at.Epoch = epoch
			}
			c := m.draw(r, pool, last)
			last = c
			if rapid.IntRange(0, 3).Draw(r, "settle") == 0 {
				want, wantErr := m.settle(c)
				if got, err := s.Settle(t.Context(), c); got != want || !errors.Is(err, wantErr) || (wantErr == nil) != (err == nil) {
					r.Fatalf("settle %+v: %t, %v, want %t, %v", c, got, err, want, wantErr)
				}
				m.check(r, s, pool)
			}
			if want, got := m.commit(c), s.Commit(t.Context(), c); !errors.Is(got, want) || (want == nil) != (got == nil) {
				r.Fatalf("commit of %+v: %v, want %v", c, got, want)
			}
			m.check(r, s, pool)
		}
	})
}

func (m *model) check(r *rapid.T, s *store.Store, pool member.Pool) {
	pools, err := s.LoadPools(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	i := slices.IndexFunc(pools, func(p member.PoolState) bool { return p.Name == pool })
	if d := gocmp.Diff(m.state(pool), pools[i], cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
		r.Fatalf("-model +store:\n%s", d)
	}
	events, err := s.EventsFrom(r.Context(), pool, 1, 1_000)
	if err != nil || len(events) != m.events {
		r.Fatalf("%d events (%v), want %d", len(events), err, m.events)
	}
}
