package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buddyring/buddyring/internal/history"
	"github.com/buddyring/buddyring/internal/member"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// client watches a pool at a router as clients do, breaks off, resumes, now and then
// at another router, and writes down all that it is told.
type client struct {
	routers []*realRouter
	history *history.Recorder
	rng     *rand.Rand
	id      string
	pool    string
	home    *realRouter

	mu sync.Mutex
	// at, storeID and run are where it stands: what router told it so that servers
	// get work, in which state.
	at           history.Position
	storeID, run string
	router       *realRouter
	servers      map[string]history.Row
}

// newClients are those of each router.
func newClients(r *run) (all []*client) {
	for _, router := range r.real.routers {
		for _, pool := range []string{chaosPool, chaosPool, realPool, sidePools()[0]} {
			id := fmt.Sprintf("client-%d", len(all)+1)
			all = append(all, &client{
				routers: r.real.routers, history: r.history, rng: r.random(id), id: id, pool: pool, home: router,
				servers: map[string]history.Row{},
			})
		}
	}
	return all
}

// live holds one stream after the other until ctx ends.
func (c *client) live(ctx context.Context) {
	for ctx.Err() == nil {
		router := c.home
		if c.rng.IntN(8) == 0 {
			router = c.routers[c.rng.IntN(len(c.routers))]
		}
		if err := c.stream(ctx, router); errors.Is(err, member.ErrNotFound) {
			c.forget()
			sleep(ctx, c.draw(time.Second))
		}
		sleep(ctx, c.draw(retryTime))
	}
}

func (c *client) draw(limit time.Duration) time.Duration {
	return time.Duration(c.rng.Int64N(int64(limit)))
}

// forget makes it one that has been told nothing.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.storeID, c.run, c.router, c.servers = history.Position{}, "", "", nil, map[string]history.Row{}
}

// stream holds one stream and returns how it ended.
func (c *client) stream(ctx context.Context, router *realRouter) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.draw(streamTime), errEnough)
	defer cancel()
	quiet := time.AfterFunc(quietTime, cancel)
	defer quiet.Stop()
	request, record := c.request(router)
	feed := c.history.Open(record, time.Now())
	stream, err := router.client.Watch(ctx, request)
	if err != nil {
		return err
	}
	lazy := c.rng.IntN(4) == 0
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		quiet.Reset(quietTime)
		told := c.told(m)
		feed.Receive(told, time.Now())
		c.take(router, told)
		if lazy {
			sleep(ctx, c.draw(time.Second))
		}
	}
}

// request resumes, or begins anew now and then.
func (c *client) request(router *realRouter) (*routerv1.WatchRequest, history.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	request, record := &routerv1.WatchRequest{Pool: c.pool}, history.Stream{Watcher: c.id, Router: router.name}
	if c.at.Revision != 0 && c.rng.IntN(6) != 0 {
		record.StoreID, record.Run, record.Resume = c.storeID, c.run, []history.Position{c.at}
		request.Resume = &routerv1.ResumePoint{StoreId: c.storeID, Epoch: c.at.Epoch, Revision: c.at.Revision, Run: c.run}
	}
	return request, record
}

// told is a message as it is written down.
func (c *client) told(m *routerv1.WatchResponse) history.Message {
	f := m.GetFreshness()
	out := history.Message{
		Kind: history.Bookmark, StoreID: f.GetStoreId(),
		Position: history.Position{Pool: c.pool, Epoch: f.GetEpoch(), Revision: f.GetRevision()},
	}
	switch m := m.GetMessage().(type) {
	case *routerv1.WatchResponse_Snapshot:
		out.Kind, out.Run, out.Put = history.Snapshot, m.Snapshot.GetRun(), working(m.Snapshot.GetServers())
	case *routerv1.WatchResponse_Delta:
		out.Kind, out.Put, out.Gone = history.Delta, working(m.Delta.GetPut()), m.Delta.GetRemoved()
	}
	return out
}

// working are servers that may get work, and their states.
func working(servers []*routerv1.Server) []history.Row {
	var list []history.Row
	for _, s := range servers {
		list = append(list, history.Row{
			ID: s.GetServerId(), Incarnation: s.GetIncarnation(), Note: s.GetLabels()[noteLabel],
			Phase: strings.ToLower(strings.TrimPrefix(s.GetState().String(), "STATE_")),
		})
	}
	return list
}

// take goes on to where a message leads.
func (c *client) take(router *realRouter, m history.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Kind == history.Snapshot {
		c.run, c.servers = m.Run, map[string]history.Row{}
	}
	c.router, c.storeID, c.at = router, m.StoreID, m.Position
	for _, id := range m.Gone {
		delete(c.servers, id)
	}
	for _, r := range m.Put {
		c.servers[r.ID] = r
	}
}

// has reports whether it has got as far as these revisions, and then knows what its
// router answers to others.
func (c *client) has(ctx context.Context, revisions map[string]uint64) bool {
	c.mu.Lock()
	router, at, servers := c.router, c.at, maps.Clone(c.servers)
	c.mu.Unlock()
	revision, is := revisions[c.pool]
	if !is {
		return true
	}
	if router == nil || at.Revision < revision {
		return false
	}
	res, err := router.resolve(ctx, c.pool)
	return err == nil && res.GetFreshness().GetRevision() == at.Revision && len(res.GetServers()) == len(servers) &&
		!slices.ContainsFunc(working(res.GetServers()), func(r history.Row) bool { return servers[r.ID] != r })
}
