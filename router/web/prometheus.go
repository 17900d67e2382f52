package web

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/door"
	"github.com/buddyring/buddyring/router/view"
)

// targetGroup is one server in the format of Prometheus' HTTP service discovery.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// targetsKey is under what a pool's targets are kept with its state.
type targetsKey struct{ endpoint string }

// targets answers with every server, in whatever phase: who watches servers wants
// to see just those that get no work. A pool that is not there has none; before
// there is any state there is no answer, so that Prometheus keeps what it has.
func (d *Door) targets(w http.ResponseWriter, r *http.Request) (int, error) {
	q, err := parseQuery(r, "pool", "endpoint")
	if err != nil {
		return 0, err
	}
	endpoint, err := parseEndpoint(q)
	if err != nil {
		return 0, err
	}
	only := member.Pool(q["pool"])
	if only != "" {
		if only, err = member.ParsePool("pool", q["pool"]); err != nil {
			return 0, err
		}
	}
	states, err := d.pools.Pools()
	if err != nil {
		return 0, err
	}
	groups := []targetGroup{}
	for _, s := range states {
		if only == "" || only == s.View.Pool() {
			groups = append(groups, targetsOf(s, endpoint)...)
		}
	}
	return send(w, r, encode(groups))
}

func targetsOf(s *door.State, endpoint string) []targetGroup {
	made := func() []targetGroup { return newTargets(s.View, endpoint) }
	if !has(s.Table, filter{endpoint: endpoint}) {
		return made()
	}
	return door.Made(s, targetsKey{endpoint}, made)
}

// newTargets returns the servers that have an endpoint of a name, "" for their
// first.
func newTargets(v *view.View, endpoint string) []targetGroup {
	var groups []targetGroup
	add := func(s *view.Server, state string) {
		for _, e := range s.Endpoints {
			if endpoint == "" || endpoint == e.Name {
				groups = append(groups, targetGroup{[]string{e.Address}, labels(v.Pool(), s, e, state)})
				return
			}
		}
	}
	for _, s := range v.Rows() {
		state := s.Phase.String()
		if i, ok := v.Table().Find(s.ID); ok {
			state = v.Table().Entries()[i].State.String()
		}
		add(s, state)
	}
	for _, s := range v.Held() {
		add(s, view.StateHeldBack.String())
	}
	return groups
}

// metaPrefix makes a label that Prometheus drops after relabelling.
const metaPrefix = "__meta_buddyring_"

func labels(pool member.Pool, s *view.Server, e member.Endpoint, state string) map[string]string {
	out := map[string]string{
		metaPrefix + "pool": string(pool), metaPrefix + "server_id": string(s.ID), metaPrefix + "state": state,
		metaPrefix + "zone": s.Zone, metaPrefix + "weight": strconv.FormatUint(uint64(s.Weight), 10),
		metaPrefix + "endpoint": e.Name, metaPrefix + "protocol": e.Protocol,
	}
	for name, value := range s.Labels {
		out[metaPrefix+"label_"+sanitize(name)] = value
	}
	return out
}

// sanitize makes a label's name one of Prometheus'.
func sanitize(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, name)
}
