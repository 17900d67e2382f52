package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/quota"
	"github.com/buddyring/buddyring/router/door"
	"github.com/buddyring/buddyring/router/view"
)

const (
	// maxWait is how long a request may wait for a change, and how long it does
	// where it does not say.
	maxWait = 5 * time.Minute
	// waitJitter is which part of a wait may be added to it, so that clients that
	// came together do not come again together.
	waitJitter = 16
	// indexBytes of the hash make an index.
	indexBytes = 12
)

// New returns a door. Its metrics are on the registry from then on.
func New(deps Deps) *Door {
	return &Door{
		pools: deps.Pools, metrics: newMetrics(deps.Registry), waiting: quota.NewCounter(quota.Halves(maxWaiters)),
		jitter: func(atMost time.Duration) time.Duration {
			return rand.N(max(1, atMost)) //nolint:gosec // jitter
		},
	}
}

// body is an encoded answer. Its index is a hash of its content: it is the same
// for the same content on every router and after every restart, and changes with
// everything that clients can see.
type body struct {
	text  []byte
	index string
}

// encode returns the answer that says v.
func encode(v any) *body {
	text, err := json.Marshal(v)
	if err != nil {
		// Nothing that is encoded here can fail.
		text = []byte("null")
	}
	sum := sha256.Sum256(text)
	return &body{append(text, '\n'), hex.EncodeToString(sum[:indexBytes])}
}

// poolJSON is the answer about one pool.
type poolJSON struct {
	Pool     string `json:"pool"`
	StoreID  string `json:"store_id"`
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
	// Index is that of the other fields.
	Index string `json:"index,omitempty"`
	// Servers are in order of preference.
	Servers []serverJSON `json:"servers"`
}

type serverJSON struct {
	ServerID    string            `json:"server_id"`
	Incarnation uint64            `json:"incarnation"`
	State       string            `json:"state"`
	Zone        string            `json:"zone,omitempty"`
	Weight      uint32            `json:"weight"`
	Labels      map[string]string `json:"labels,omitempty"`
	Endpoints   []member.Endpoint `json:"endpoints"`
}

// filter is which servers of a pool are asked for; "" is any.
type filter struct{ endpoint, zone string }

// newPool returns what a filter leaves of a pool.
func newPool(state *door.State, f filter) poolJSON {
	v := state.View
	at := v.Position()
	p := poolJSON{
		Pool: string(v.Pool()), StoreID: v.StoreID(), Epoch: uint64(at.Epoch), Revision: uint64(at.Revision), Servers: []serverJSON{},
	}
	for _, e := range state.Table.Entries() {
		s := serverJSON{
			ServerID: string(e.Server.ID), Incarnation: uint64(e.Server.Incarnation), State: e.State.String(),
			Zone: e.Server.Zone, Weight: e.Server.Weight, Labels: e.Server.Labels,
		}
		for _, ep := range e.Server.Endpoints {
			if f.endpoint == "" || f.endpoint == ep.Name {
				s.Endpoints = append(s.Endpoints, ep)
			}
		}
		if len(s.Endpoints) > 0 && (f.zone == "" || f.zone == e.Server.Zone) {
			p.Servers = append(p.Servers, s)
		}
	}
	return p
}

// bodyOf returns the encoded answer. What nobody has is not kept: names that are
// made up take no memory.
func bodyOf(s *door.State, f filter) *body {
	fresh := func() *body {
		p := newPool(s, f)
		p.Index = encode(p).index
		return &body{encode(p).text, p.Index}
	}
	if !has(s.Table, f) {
		return fresh()
	}
	return door.Made(s, f, fresh)
}

// has reports whether a server is what a filter asks for.
func has(t *view.Table, f filter) bool {
	for _, e := range t.Entries() {
		if f.zone != "" && f.zone != e.Server.Zone {
			continue
		}
		if f.endpoint == "" {
			return true
		}
		for _, ep := range e.Server.Endpoints {
			if ep.Name == f.endpoint {
				return true
			}
		}
	}
	return false
}

// poolRequest is a request for one pool.
type poolRequest struct {
	pool   member.Pool
	filter filter
	// index is what the client has; "" does not wait.
	index string
	wait  time.Duration
}

func parsePoolRequest(r *http.Request) (req poolRequest, err error) {
	if req.pool, err = member.ParsePool("pool", strings.TrimPrefix(r.URL.Path, "/v1/pools/")); err != nil {
		return req, err
	}
	q, err := parseQuery(r, "endpoint", "zone", "index", "wait")
	if err != nil {
		return req, err
	}
	if req.filter.endpoint, err = parseEndpoint(q); err != nil {
		return req, err
	}
	if zone := q["zone"]; zone != "" {
		if _, err := member.ParseID("zone", zone); err != nil {
			return req, err
		}
		req.filter.zone = zone
	}
	req.index, req.wait = q["index"], maxWait
	if len(req.index) > 2*indexBytes {
		return req, member.Invalid("index", "must be what an earlier answer gave as its index")
	}
	if wait := q["wait"]; wait != "" {
		d, err := time.ParseDuration(wait)
		if err != nil || d < 0 {
			return req, member.Invalid("wait", "%.40q is not a length of time such as 30s", wait)
		}
		req.wait = min(d, maxWait)
	}
	return req, nil
}

func parseEndpoint(q query) (string, error) {
	name := q["endpoint"]
	if name == "" {
		return "", nil
	}
	_, err := member.ParsePool("endpoint", name)
	return name, err
}

// getPool answers with one pool, at once or when it is no longer what the client
// has.
func (d *Door) getPool(w http.ResponseWriter, r *http.Request) (int, error) {
	req, err := parsePoolRequest(r)
	if err != nil {
		return 0, err
	}
	state, err := d.pools.Pool(req.pool)
	if err != nil {
		return 0, err
	}
	b := bodyOf(state, req.filter)
	if req.index == b.index && req.wait > 0 {
		if state, b, err = d.await(w, r, req, state); err != nil {
			return 0, err
		}
	}
	now, h := time.Now(), w.Header()
	age, stale := state.Freshness(now)
	h.Set("Buddyring-Index", b.index)
	h.Set("Buddyring-Age", strconv.FormatFloat(age.Seconds(), 'f', 3, 64))
	h.Set("Buddyring-Stale", strconv.FormatBool(stale))
	if stale && state.NotServed(now) {
		h.Set("Buddyring-Not-Served", "true")
	}
	return send(w, r, b)
}

// sourceOf is where a request comes from.
func sourceOf(r *http.Request) netip.Prefix {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Prefix{} // no IP address: a test's own network
	}
	return quota.Source(peer.Addr())
}

// await returns the state of a pool when its answer is no longer the one that the
// client has, or when the client has waited long enough.
func (d *Door) await(w http.ResponseWriter, r *http.Request, req poolRequest, state *door.State) (*door.State, *body, error) {
	from := sourceOf(r)
	if d.waiting.Take(from, 1) != quota.None {
		return nil, nil, &statusError{http.StatusServiceUnavailable, "too many requests wait for changes; ask without an index"}
	}
	defer d.waiting.Return(from, 1)
	d.metrics.waiters.Inc()
	defer d.metrics.waiters.Dec()
	wait := req.wait + d.jitter(req.wait/waitJitter)
	extend(w, wait)
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	for {
		select {
		case <-state.Superseded:
		case <-ctx.Done():
			return state, bodyOf(state, req.filter), nil
		}
		next, err := d.pools.Pool(req.pool)
		if err != nil {
			return nil, nil, err
		}
		state = next
		if b := bodyOf(state, req.filter); b.index != req.index {
			return state, b, nil
		}
	}
}

// extend gives a request the time that it is to wait; without that its
// connection would be closed. A connection that has no deadlines needs none.
func extend(w http.ResponseWriter, wait time.Duration) {
	c, end := http.NewResponseController(w), time.Now().Add(wait+writeTime)
	_, _ = c.SetReadDeadline(end), c.SetWriteDeadline(end)
}

// poolsJSON is the answer about all pools.
type poolsJSON struct {
	Pools []summaryJSON `json:"pools"`
}

type summaryJSON struct {
	Pool     string `json:"pool"`
	StoreID  string `json:"store_id"`
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
	Stale    bool   `json:"stale"`
	// NotServed is that of the contract's Freshness, left out where it is false.
	NotServed bool           `json:"not_served,omitempty"`
	Servers   map[string]int `json:"servers"`
}

// listPools answers with what pools there are.
func (d *Door) listPools(w http.ResponseWriter, r *http.Request) (int, error) {
	if _, err := parseQuery(r); err != nil {
		return 0, err
	}
	states, err := d.pools.Pools()
	if err != nil {
		return 0, err
	}
	now, list := time.Now(), poolsJSON{Pools: []summaryJSON{}}
	for _, s := range states {
		at, table := s.View.Position(), s.Table
		_, stale := s.Freshness(now)
		counts := map[string]int{}
		for _, state := range []view.State{view.StateActive, view.StateSuspect, view.StateServiceDown, view.StateHeldBack} {
			counts[state.String()] = table.Count(state)
		}
		list.Pools = append(list.Pools, summaryJSON{
			string(s.View.Pool()), s.View.StoreID(), uint64(at.Epoch), uint64(at.Revision), stale, stale && s.NotServed(now), counts,
		})
	}
	return send(w, r, encode(list))
}

// parseValues parses a query string; what is wrong with it is the client's.
func parseValues(raw string) (url.Values, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, member.Invalid("query", "%v", err)
	}
	return values, nil
}
