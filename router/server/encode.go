package server

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/router/view"
)

// toServers returns the servers that have an endpoint of a name, "" for all, in
// order of preference of a client in a zone, "" for anywhere.
func toServers(t *view.Table, endpoint, zone string) []*routerv1.Server {
	out := make([]*routerv1.Server, 0, len(t.Entries()))
	add := func(near bool) {
		for _, e := range t.Entries() {
			if near != (e.State == view.StateActive && e.Server.Zone == zone) {
				continue
			}
			if s := toServer(e, endpoint); len(s.GetEndpoints()) > 0 {
				out = append(out, s)
			}
		}
	}
	add(true)
	add(false)
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

// What every call asks for is encoded by hand, field by field: Pick is as fast as
// gRPC itself only if nothing is built that is thrown away a microsecond later.
// The numbers are those of router.proto; a test compares with what protobuf makes
// of the same messages.

// appendString appends a string field that may be empty.
func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// appendUint appends a number field that may be 0.
func appendUint(b []byte, field protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
}

// appendMessage appends a message field of less than 2 MiB that fill appends the
// fields of.
func appendMessage(b []byte, field protowire.Number, fill func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	// A length may be longer than it need be: room for it is left here.
	const room = 3
	start := len(b) + room
	b = fill(append(b, 0x80, 0x80, 0))
	n := len(b) - start
	b[start-3], b[start-2], b[start-1] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)
	return b
}

// appendChoice appends the fields of a Choice.
func appendChoice(b []byte, c view.Choice) []byte {
	b = appendString(b, 1, string(c.Server().ID))
	b = appendUint(b, 2, uint64(c.Server().Incarnation))
	b = appendString(b, 3, c.Address())
	return appendUint(b, 4, uint64(toState(c.State())))
}

// appendAge appends the fields of Freshness that differ from answer to answer.
func appendAge(b []byte, age time.Duration, stale bool) []byte {
	b = appendMessage(b, 4, func(b []byte) []byte {
		b = appendUint(b, 1, uint64(age/time.Second))
		return appendUint(b, 2, uint64(age%time.Second))
	})
	return protowire.AppendVarint(protowire.AppendTag(b, 5, protowire.VarintType), protowire.EncodeBool(stale))
}
