package sim

import (
	"time"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// router is a subscriber with the view that clients get.
type router struct {
	view *view.View
	// queue holds what is on its way, in order.
	queue  []*delivery
	broken int
}

type delivery struct {
	apply   func()
	arrived bool
	tries   int
}

func newRouter(s *Sim) *router {
	r := &router{view: view.New(poolName)}
	snapshot := view.Snapshot{StoreID: "simulation", Position: s.coordinator.machine.Position()}
	for _, row := range s.coordinator.machine.Ring() {
		snapshot.Servers = append(snapshot.Servers, toRow(row))
	}
	if next, err := r.view.ApplySnapshot(snapshot); err == nil {
		r.view = next
	}
	return r
}

func toRow(s member.Server) *view.Server {
	return &view.Server{
		ID: s.ID, Incarnation: s.Incarnation, Phase: s.Phase, Endpoints: s.Spec.Endpoints,
		Zone: s.Spec.Zone, Weight: s.Spec.Weight,
	}
}

// publish sends a change on its way.
func (r *router) publish(s *Sim, c member.Change) {
	d := view.Delta{
		From: c.Base.Revision, To: member.Position{Epoch: c.Base.Epoch, Revision: c.Revision()}, Removed: c.Remove,
		MassChangeConfirmed: c.MassChangeConfirmed,
	}
	for _, row := range c.Put {
		d.Put = append(d.Put, toRow(row))
	}
	r.send(s, func() {
		next, err := r.view.ApplyDelta(d)
		if err != nil {
			r.broken++
			return
		}
		r.view = next
		s.ledger.applied(s, r)
	})
}

// mark sends a suspect mark on its way.
func (r *router) mark(s *Sim, m member.Mark) {
	r.send(s, func() {
		r.view = r.view.ApplyMarks([]member.Mark{m}, s.coordinator.clock.read(s.now))
		s.ledger.applied(s, r)
		if m.TTL > 0 {
			s.after(m.TTL, func() {
				r.view = r.view.Expire(s.coordinator.clock.read(s.now))
				s.ledger.applied(s, r)
			})
		}
	})
}

// send delivers as a stream does: in order, and later if a packet is lost.
func (r *router) send(s *Sim, apply func()) {
	d := &delivery{apply: apply}
	r.queue = append(r.queue, d)
	r.transmit(s, d)
}

func (r *router) transmit(s *Sim, d *delivery) {
	if !s.net.carries(packet{}, s.now) {
		rto := min(firstRTO<<d.tries, maxRTO)
		d.tries++
		s.after(rto, func() { r.transmit(s, d) })
		return
	}
	s.after(s.net.delay(nil, nil), func() {
		d.arrived = true
		for len(r.queue) > 0 && r.queue[0].arrived {
			next := r.queue[0]
			r.queue = r.queue[1:]
			next.apply()
		}
	})
}

// gives reports how a router would treat a server: whether it is a member, and
// whether it is given out while others are there.
func (r *router) gives(id member.ID) (isMember, preferred bool) {
	t := r.view.Table()
	if i, ok := t.Find(id); ok {
		e := t.Entries()[i]
		return e.State != view.StateHeldBack, e.State == view.StateActive
	}
	for _, row := range r.view.Rows() {
		if row.ID == id {
			return true, false
		}
	}
	return false, false
}

// latest is the time of the last of several moments, or never if one is missing.
func latest(times []time.Duration) time.Duration {
	last := time.Duration(0)
	for _, t := range times {
		last = max(last, t)
	}
	return last
}
