package server

import (
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// toServers returns the servers that have an endpoint of a name, "" for all, in
// order of preference.
func toServers(t *view.Table, endpoint string) []*routerv1.Server {
	out := make([]*routerv1.Server, 0, len(t.Entries()))
	for _, e := range t.Entries() {
		if s := toServer(e, endpoint); len(s.GetEndpoints()) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// toServer returns an entry with its endpoints of a name, "" for all.
func toServer(e view.Entry, endpoint string) *routerv1.Server {
	s := &routerv1.Server{
		ServerId: string(e.Server.ID), Incarnation: uint64(e.Server.Incarnation), State: toState(e.State),
		Zone: e.Server.Zone, Weight: &e.Server.Weight, Labels: e.Server.Labels,
	}
	for _, ep := range e.Server.Endpoints {
		if endpoint == "" || ep.Name == endpoint {
			s.Endpoints = append(s.Endpoints, &routerv1.Endpoint{Name: ep.Name, Address: ep.Address, Protocol: ep.Protocol})
		}
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
		return routerv1.State_STATE_HELD_BACK
	default:
		return routerv1.State_STATE_UNSPECIFIED
	}
}

func toChoice(c view.Choice) *routerv1.Choice {
	return &routerv1.Choice{
		ServerId: string(c.Server.ID), Incarnation: uint64(c.Server.Incarnation), Address: c.Address, State: toState(c.State),
	}
}
