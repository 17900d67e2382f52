package xds

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// Pool is one state of a pool. Seq orders the states of all pools.
type Pool struct {
	Seq  uint64
	View *view.View
	// Table is the view's, with the weights of the moment.
	Table *view.Table
}

// publisher keeps what clients are answered from. Only one goroutine may use it,
// but for caches and version.
type publisher struct {
	// prefix begins every version; no two runs of a router have the same.
	prefix string
	// caches are by type.
	caches map[string]*cache.LinearCache
	pools  map[member.Pool]*publication
	// assignments is the version of the cache of assignments.
	assignments uint64
}

// publication is what was last published of a pool.
type publication struct {
	seq   uint64
	names map[string]*named
}

// named is what was last published under one name.
type named struct {
	endpoint string
	// encoded are the resources by type.
	encoded map[string][]byte
	// version is that of the cache of assignments when the assignment changed.
	version uint64
}

// kinds are the types of resource that are served, with their short names. What
// refers to another comes after it.
func kinds() []struct{ url, name string } {
	return []struct{ url, name string }{
		{resource.EndpointType, "eds"}, {resource.ClusterType, "cds"}, {resource.RouteType, "rds"}, {resource.ListenerType, "lds"},
	}
}

func newPublisher() *publisher {
	p := &publisher{
		prefix: rand.Text()[:8] + ".", caches: map[string]*cache.LinearCache{}, pools: map[member.Pool]*publication{},
	}
	for _, k := range kinds() {
		p.caches[k.url] = cache.NewLinearCache(k.url, cache.WithVersionPrefix(p.prefix))
	}
	return p
}

// number returns the number in a version, false if it is not of this run.
func (p *publisher) number(version string) (uint64, bool) {
	digits, ok := strings.CutPrefix(version, p.prefix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil
}

// publish brings the caches to the pools as they are, these and no others. What
// cannot be published keeps no other pool from being so.
func (p *publisher) publish(pools []Pool) error {
	c := changes{updates: map[string]map[string]types.Resource{}}
	left := maps.Clone(p.pools)
	var failed error
	for _, pool := range pools {
		name := pool.View.Pool()
		delete(left, name)
		if known := p.pools[name]; known != nil && known.seq == pool.Seq {
			continue
		}
		if err := p.collect(pool, &c); err != nil {
			failed = errors.Join(failed, fmt.Errorf("publish pool %q: %w", name, err))
		}
	}
	for name, known := range left {
		delete(p.pools, name)
		for resource := range known.names {
			c.removed = append(c.removed, resource)
		}
	}
	return errors.Join(failed, p.apply(c))
}

// collect gathers what has changed of a pool. Names stay for as long as the pool
// does.
func (p *publisher) collect(pool Pool, c *changes) error {
	v := pool.View
	known := p.pools[v.Pool()]
	if known == nil {
		known = &publication{names: map[string]*named{}}
		p.pools[v.Pool()] = known
	}
	known.seq = pool.Seq
	for _, endpoint := range endpointNames(v) {
		if name := nameOf(v.Pool(), endpoint); known.names[name] == nil {
			known.names[name] = &named{endpoint: endpoint, encoded: map[string][]byte{}}
		}
	}
	for name, n := range known.names {
		before := n.encoded[resource.EndpointType]
		for url, r := range resourcesOf(pool, name, n) {
			if err := c.put(n, url, name, r); err != nil {
				return fmt.Errorf("encode %q: %w", name, err)
			}
		}
		if !bytes.Equal(before, n.encoded[resource.EndpointType]) {
			n.version = p.assignments + 1
		}
	}
	return nil
}

// apply changes the caches.
func (p *publisher) apply(c changes) error {
	for _, k := range kinds() {
		if len(c.updates[k.url]) == 0 && len(c.removed) == 0 {
			continue
		}
		if k.url == resource.EndpointType {
			p.assignments++
		}
		if err := p.caches[k.url].UpdateResources(c.updates[k.url], c.removed); err != nil {
			return fmt.Errorf("update %s: %w", k.name, err)
		}
	}
	return nil
}

// changes are what is to be done to the caches.
type changes struct {
	// updates are by type and name.
	updates map[string]map[string]types.Resource
	removed []string
}

// put adds a resource if it differs from what was last published.
func (c *changes) put(n *named, url, name string, r types.Resource) error {
	encoded, err := encode(r)
	if err != nil {
		return err
	}
	if bytes.Equal(encoded, n.encoded[url]) {
		return nil
	}
	n.encoded[url] = encoded
	if c.updates[url] == nil {
		c.updates[url] = map[string]types.Resource{}
	}
	c.updates[url][name] = r
	return nil
}
