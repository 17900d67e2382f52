package xds_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

func zone(z string) func(*view.Server) { return func(s *view.Server) { s.Zone = z } }

func weight(w uint32) func(*view.Server) { return func(s *view.Server) { s.Weight = w } }

func mark(v *view.View, m member.Mark) *view.View {
	m.Incarnation, m.Epoch, m.TTL = 1, 1, time.Hour
	return v.ApplyMarks([]member.Mark{m}, time.Now())
}

// What a client is told of one state of a pool.
func TestAssignments(t *testing.T) {
	t.Parallel()
	draining := in(member.PhaseDraining)
	for _, c := range []struct {
		name string
		view func(t *testing.T) *view.View
		want string
	}{
		{"hosts of equal weight share a locality, whose weight is theirs together", func(*testing.T) *view.View {
			return pool("web", row("a", "10.0.0.1:80", weight(300)), row("b", "10.0.0.2:80"), row("c", "10.0.0.3:80"),
				row("d", "10.0.0.4:80", zone("b")))
		}, `
			0 10.0.0.1:80 healthy a/weight-300 300
			0 10.0.0.2:80 healthy a/weight-100 200
			0 10.0.0.3:80 healthy a/weight-100 200
			0 10.0.0.4:80 healthy b/weight-100 100`},
		{"suspects and those whose service is down come after all others", func(*testing.T) *view.View {
			v := pool("web", row("a", "10.0.0.1:80"), row("b", "10.0.0.2:80"), row("c", "10.0.0.3:80"))
			v = mark(v, member.Mark{ID: "a", Suspect: true, Seq: 1})
			return mark(v, member.Mark{ID: "b", ServiceDown: true, Seq: 2})
		}, `
			0 10.0.0.3:80 healthy a/weight-100 100
			1 10.0.0.1:80 healthy a/weight-100 100
			2 10.0.0.2:80 healthy a/weight-100 100`},
		{"there is no gap where no server is active", func(*testing.T) *view.View {
			v := pool("web", row("a", "10.0.0.1:80"), row("b", "10.0.0.2:80"))
			v = mark(v, member.Mark{ID: "a", Suspect: true, Seq: 1})
			return mark(v, member.Mark{ID: "b", Suspect: true, Seq: 2})
		}, `
			0 10.0.0.1:80 healthy a/weight-100 200
			0 10.0.0.2:80 healthy a/weight-100 200`},
		{"there is no gap where a preferred server has no address", func(*testing.T) *view.View {
			v := pool("web", row("a", "web-1.example.org:80"), row("b", "10.0.0.2:80"), row("c", "10.0.0.3:80"))
			v = mark(v, member.Mark{ID: "b", Suspect: true, Seq: 1})
			return mark(v, member.Mark{ID: "c", ServiceDown: true, Seq: 2})
		}, `
			0 10.0.0.2:80 healthy a/weight-100 100
			1 10.0.0.3:80 healthy a/weight-100 100`},
		{"held back servers are last", func(t *testing.T) *view.View {
			v := pool("web", row("a", "10.0.0.1:80"), row("b", "10.0.0.2:80"), row("c", "10.0.0.3:80"))
			return after(t, v, nil, crashed("a"), crashed("b"))
		}, `
			0 10.0.0.3:80 healthy a/weight-100 100
			1 10.0.0.1:80 healthy a/weight-100 200
			1 10.0.0.2:80 healthy a/weight-100 200`},
		{"those that drain are named and get nothing", func(*testing.T) *view.View {
			return pool("web", row("a", "10.0.0.1:80", draining), row("b", "10.0.0.2:80"))
		}, `
			0 10.0.0.2:80 healthy a/weight-100 100
			0 10.0.0.1:80 draining a/draining 0`},
		{"those that drain get work where nobody else is left", func(*testing.T) *view.View {
			return pool("web", row("a", "10.0.0.1:80", draining), row("b", "10.0.0.2:80", in(member.PhaseJoining)))
		}, `
			0 10.0.0.1:80 healthy a/weight-100 100`},
		{"an address is there once, at its best", func(*testing.T) *view.View {
			v := pool("web", row("a", "10.0.0.1:80"), row("b", "10.0.0.1:80"), row("c", "10.0.0.1:80", draining))
			return mark(v, member.Mark{ID: "a", Suspect: true, Seq: 1})
		}, `
			0 10.0.0.1:80 healthy a/weight-100 100`},
		{"IPv6, without names and scopes", func(*testing.T) *view.View {
			return pool("web", row("a", "[2001:db8::1]:80"), row("b", "web-2.example.org:80"), row("c", "[fe80::1%eth0]:80"))
		}, `
			0 2001:db8::1:80 healthy a/weight-100 100`},
		{"no weight is no new work", func(*testing.T) *view.View {
			return pool("web", row("a", "10.0.0.1:80", weight(0)), row("b", "10.0.0.2:80"))
		}, `
			0 10.0.0.2:80 healthy a/weight-100 100`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := c.view(t)
			inWorld(t, func(t *testing.T, w *world) {
				w.put(v)
				client := w.client()
				client.ask(eds, "web")
				if diff := cmp.Diff(strings.Fields(c.want), strings.Fields(strings.Join(hosts(t, client.recv())["web"], " "))); diff != "" {
					t.Error(diff)
				}
				client.close()
			})
		})
	}
}

func crashed(id member.ID) member.Removal {
	return member.Removal{ID: id, Incarnation: 1, Cause: member.CauseCrashed}
}

func left(id member.ID) member.Removal {
	return member.Removal{ID: id, Incarnation: 1, Cause: member.CauseShutdown}
}
