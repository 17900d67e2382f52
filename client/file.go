package client

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/statedir"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// fileKind is what statedir.Seal puts in front of the JSON document.
const fileKind = "buddyring-client-view 1"

// saved is what a program keeps over a restart.
type saved struct {
	pool member.Pool
	list *list
	// confirmed is when the coordinator has last confirmed the list.
	confirmed time.Time
}

type fileJSON struct {
	Pool        string    `json:"pool"`
	ConfirmedAt time.Time `json:"confirmed_at"`
	// View is a message of a watch: the snapshot that gives the list.
	View json.RawMessage `json:"view"`
}

func encode(s saved) ([]byte, error) {
	view, err := protojson.Marshal(toMessage(s.list))
	if err != nil {
		return nil, fmt.Errorf("encode view: %w", err)
	}
	body, err := json.Marshal(fileJSON{Pool: string(s.pool), ConfirmedAt: s.confirmed.UTC().Round(0), View: view})
	if err != nil {
		return nil, fmt.Errorf("encode view: %w", err)
	}
	return statedir.Seal(fileKind, body), nil
}

// decode is the inverse of encode. Whatever is not such a file, whole and
// unchanged, or of another pool, is statedir.ErrCorrupt.
func decode(pool member.Pool, data []byte) (saved, error) {
	body, err := statedir.Unseal(fileKind, data)
	if err != nil {
		return saved{}, err
	}
	var doc fileJSON
	if err := json.Unmarshal(body, &doc); err != nil {
		return saved{}, fmt.Errorf("%w: %w", statedir.ErrCorrupt, err)
	}
	if doc.Pool != string(pool) {
		return saved{}, fmt.Errorf("%w: it is of the pool %q", statedir.ErrCorrupt, doc.Pool)
	}
	msg := &routerv1.WatchResponse{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(doc.View, msg); err != nil {
		return saved{}, fmt.Errorf("%w: %w", statedir.ErrCorrupt, err)
	}
	var none *list
	l, err := none.after(msg)
	if err != nil {
		return saved{}, fmt.Errorf("%w: %w", statedir.ErrCorrupt, err)
	}
	if l == nil {
		return saved{}, fmt.Errorf("%w: it has no view", statedir.ErrCorrupt)
	}
	return saved{pool: pool, list: l, confirmed: doc.ConfirmedAt}, nil
}

func toMessage(l *list) *routerv1.WatchResponse {
	snapshot := &routerv1.WatchSnapshot{}
	for _, e := range l.entries {
		snapshot.Servers = append(snapshot.Servers, toProto(e))
	}
	return &routerv1.WatchResponse{
		Freshness: &routerv1.Freshness{
			StoreId: l.storeID, Epoch: uint64(l.position.Epoch), Revision: uint64(l.position.Revision),
		},
		Message: &routerv1.WatchResponse_Snapshot{Snapshot: snapshot},
	}
}

func toProto(e view.Entry) *routerv1.Server {
	s := &routerv1.Server{
		ServerId: string(e.Server.ID), Incarnation: uint64(e.Server.Incarnation), State: toState(e.State),
		Zone: e.Server.Zone, Weight: &e.Server.Weight, Labels: e.Server.Labels,
	}
	for _, ep := range e.Server.Endpoints {
		s.Endpoints = append(s.Endpoints, &routerv1.Endpoint{Name: ep.Name, Address: ep.Address, Protocol: ep.Protocol})
	}
	return s
}

func toState(s view.State) routerv1.State {
	switch s {
	case view.StateActive:
		return routerv1.State_STATE_ACTIVE
	case view.StateSuspect:
		return routerv1.State_STATE_SUSPECT
	case view.StateServiceDown:
		return routerv1.State_STATE_SERVICE_DOWN
	case view.StateHeldBack:
	}
	return routerv1.State_STATE_HELD_BACK
}
