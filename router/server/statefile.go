package server

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/statedir"
	"github.com/buddyring/buddyring/router/view"
)

// stateKind is what statedir.Seal puts in front of the JSON document.
const stateKind = "buddyring-router-view 1"

// state is what a router keeps over a restart. Soft marks are not in it: they
// would have expired.
type state struct {
	storeID string
	pools   []savedPool
}

// savedPool is a view, and when the coordinator last confirmed it.
type savedPool struct {
	view      *view.View
	confirmed time.Time
}

type stateJSON struct {
	StoreID string     `json:"store_id"`
	Pools   []poolJSON `json:"pools"`
}

type poolJSON struct {
	Pool        string       `json:"pool"`
	StoreID     string       `json:"store_id"`
	Epoch       uint64       `json:"epoch"`
	Revision    uint64       `json:"revision"`
	ChangeID    string       `json:"change_id,omitempty"`
	ConfirmedAt time.Time    `json:"confirmed_at"`
	Servers     []serverJSON `json:"servers"`
	Held        []serverJSON `json:"held,omitempty"`
}

type serverJSON struct {
	ID          string            `json:"server_id"`
	Incarnation uint64            `json:"incarnation"`
	Phase       string            `json:"phase"`
	Endpoints   []member.Endpoint `json:"endpoints,omitempty"`
	Zone        string            `json:"zone,omitempty"`
	Weight      uint32            `json:"weight"`
	Labels      map[string]string `json:"labels,omitempty"`
}

func encodeState(s state) ([]byte, error) {
	doc := stateJSON{StoreID: s.storeID, Pools: make([]poolJSON, 0, len(s.pools))}
	for _, p := range s.pools {
		position := p.view.Position()
		doc.Pools = append(doc.Pools, poolJSON{
			Pool: string(p.view.Pool()), StoreID: p.view.StoreID(),
			Epoch: uint64(position.Epoch), Revision: uint64(position.Revision), ChangeID: p.view.ChangeID(),
			ConfirmedAt: p.confirmed.UTC().Round(0),
			Servers:     toServersJSON(p.view.Rows()), Held: toServersJSON(p.view.Held()),
		})
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode state: %w", err)
	}
	return statedir.Seal(stateKind, body), nil
}

func toServersJSON(in []*view.Server) []serverJSON {
	out := make([]serverJSON, len(in))
	for i, s := range in {
		out[i] = serverJSON{
			ID: string(s.ID), Incarnation: uint64(s.Incarnation), Phase: s.Phase.String(), Endpoints: s.Endpoints,
			Zone: s.Zone, Weight: s.Weight, Labels: s.Labels,
		}
	}
	return out
}

// decodeState is the inverse of encodeState. Whatever is not such a file, whole
// and unchanged, is statedir.ErrCorrupt.
func decodeState(data []byte) (state, error) {
	body, err := statedir.Unseal(stateKind, data)
	if err != nil {
		return state{}, err
	}
	var doc stateJSON
	if err := json.Unmarshal(body, &doc); err != nil {
		return state{}, fmt.Errorf("%w: %w", statedir.ErrCorrupt, err)
	}
	out := state{storeID: doc.StoreID}
	for _, p := range doc.Pools {
		pool, err := p.parse()
		if err != nil {
			return state{}, fmt.Errorf("%w: pool %q: %w", statedir.ErrCorrupt, p.Pool, err)
		}
		out.pools = append(out.pools, pool)
	}
	return out, nil
}

func (p poolJSON) parse() (savedPool, error) {
	name, err := member.ParsePool("pool", p.Pool)
	if err != nil {
		return savedPool{}, err
	}
	rows, err := parseServersJSON(p.Servers)
	if err != nil {
		return savedPool{}, err
	}
	held, err := parseServersJSON(p.Held)
	if err != nil {
		return savedPool{}, err
	}
	v := view.Restore(name, view.Snapshot{
		StoreID:  p.StoreID,
		Position: member.Position{Epoch: member.Epoch(p.Epoch), Revision: member.Revision(p.Revision)},
		ChangeID: p.ChangeID,
		Servers:  rows,
	}, held)
	return savedPool{view: v, confirmed: p.ConfirmedAt}, nil
}

func parseServersJSON(in []serverJSON) ([]*view.Server, error) {
	out := make([]*view.Server, len(in))
	for i, s := range in {
		phase, err := member.ParsePhase(s.Phase)
		if err != nil {
			return nil, err
		}
		out[i] = &view.Server{
			ID: member.ID(s.ID), Incarnation: member.Incarnation(s.Incarnation), Phase: phase, Endpoints: s.Endpoints,
			Zone: s.Zone, Weight: s.Weight, Labels: s.Labels,
		}
		if err := checkServer(out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}
