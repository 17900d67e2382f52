package client

import (
	"fmt"
	"time"

	"github.com/buddyring/buddyring/internal/member"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// State is how a server is preferred. Lower ones are preferred: a server gets
// work only when none of a lower state can have it.
type State uint8

// The states. SUSPECT servers are missed by two observers. SERVICE_DOWN ones have
// a host that is well and a service that is not; they are in a pool's list only
// when so many are that the checks may be wrong. HELD_BACK ones the coordinator
// has removed, but the router keeps as a last resort, because too many went at
// once.
const (
	Active      = State(view.StateActive)
	Suspect     = State(view.StateSuspect)
	ServiceDown = State(view.StateServiceDown)
	HeldBack    = State(view.StateHeldBack)
)

// String returns the name, such as "held_back".
func (s State) String() string { return view.State(s).String() }

// Server is a server that may get work.
type Server struct {
	ID string
	// Incarnation tells memberships of the same id apart.
	Incarnation uint64
	Endpoints   []Endpoint
	State       State
	Zone        string
	// Weight is the share of new work relative to 100.
	Weight uint32
	Labels map[string]string
}

// Endpoint is where clients reach a server.
type Endpoint struct {
	// Name may be empty.
	Name string
	// Address is HOST:PORT.
	Address string
	// Protocol is a hint such as "http"; may be empty.
	Protocol string
}

// View is a pool at one moment. It must not be changed.
type View struct {
	Pool string
	// StoreID, Epoch and Revision say which state of which database this is. The
	// states of servers may change within a revision.
	StoreID         string
	Epoch, Revision uint64
	// Servers are in order of preference, by id within one state.
	Servers []Server
}

// Status says where what is known of a pool comes from.
type Status struct {
	// Router is the one that is followed at this moment; empty for none.
	Router string
	// Confirmed is when the coordinator has last confirmed, to a router that this
	// program followed, that the view is the present one. Zero where nothing is
	// known.
	Confirmed time.Time
	// Failure is why no router is followed; nil while one is.
	Failure error
}

func toServer(e view.Entry) Server {
	s := Server{
		ID: string(e.Server.ID), Incarnation: uint64(e.Server.Incarnation), State: State(e.State),
		Zone: e.Server.Zone, Weight: e.Server.Weight, Labels: e.Server.Labels,
	}
	for _, ep := range e.Server.Endpoints {
		s.Endpoints = append(s.Endpoints, Endpoint(ep))
	}
	return s
}

// parseServers refuses a list that would break the picks.
func parseServers(in []*routerv1.Server) ([]view.Entry, error) {
	out := make([]view.Entry, len(in))
	for i, s := range in {
		e, err := parseServer(s)
		if err != nil {
			return nil, fmt.Errorf("server %q: %w", s.GetServerId(), err)
		}
		out[i] = e
	}
	return out, nil
}

func parseServer(in *routerv1.Server) (view.Entry, error) {
	id, err := member.ParseID("server_id", in.GetServerId())
	if err != nil {
		return view.Entry{}, err
	}
	s := &view.Server{
		ID: id, Incarnation: member.Incarnation(in.GetIncarnation()), Phase: member.PhaseActive,
		Zone: in.GetZone(), Weight: member.DefaultWeight, Labels: in.GetLabels(),
	}
	if in.Weight != nil {
		s.Weight = min(in.GetWeight(), member.MaxWeight)
	}
	for _, ep := range in.GetEndpoints() {
		if err := member.CheckHostPort("endpoints.address", ep.GetAddress()); err != nil {
			return view.Entry{}, err
		}
		s.Endpoints = append(s.Endpoints, member.Endpoint{
			Name: ep.GetName(), Address: ep.GetAddress(), Protocol: ep.GetProtocol(),
		})
	}
	return view.Entry{Server: s, State: parseState(in.GetState())}, nil
}

// parseState maps states of a newer router to the one that is used last.
func parseState(s routerv1.State) view.State {
	switch s {
	case routerv1.State_STATE_ACTIVE:
		return view.StateActive
	case routerv1.State_STATE_SUSPECT:
		return view.StateSuspect
	case routerv1.State_STATE_SERVICE_DOWN:
		return view.StateServiceDown
	case routerv1.State_STATE_HELD_BACK, routerv1.State_STATE_UNSPECIFIED:
	}
	return view.StateHeldBack
}
