package sim

import (
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/pool"
)

// stream is a TCP connection between an agent and the coordinator. Each way
// delivers in order; a lost packet is sent again by the kernel after 200 ms,
// then 400 ms and so on, and holds up what came after it. Nobody is told while
// packets do not get through. A process that ends, or closes, says so by a FIN
// behind everything else.
type stream struct {
	id   pool.SessionID
	host *host
	// boot and run are the host's and the agent's when it was opened.
	boot, run int
	up, down  pipe
	// agentOpen and coordinatorOpen say who still has it open.
	agentOpen, coordinatorOpen bool
	// heard is when the coordinator's kernel last had a packet of it.
	heard time.Duration
}

// pipe is one way.
type pipe struct {
	// queue holds what was sent and not delivered, oldest first.
	queue []*segment
}

type segment struct {
	message any
	arrived bool
	tries   int
}

// fin is the message that ends a way.
type fin struct{}

const (
	firstRTO, maxRTO = 200 * time.Millisecond, 120 * time.Second
	// maxResends is when the kernel gives up.
	maxResends = 15
)

// sendUp sends a message to the coordinator, sendDown one to the agent.
func (s *Sim) sendUp(st *stream, message any) {
	if st.agentOpen {
		s.enqueue(st, &st.up, message)
	}
}

func (s *Sim) sendDown(st *stream, message any) {
	if st.coordinatorOpen {
		s.enqueue(st, &st.down, message)
	}
}

func (s *Sim) enqueue(st *stream, p *pipe, message any) {
	seg := &segment{message: message}
	p.queue = append(p.queue, seg)
	s.transmit(st, p, seg)
}

// transmit sends a segment, and arranges to send it again if it is lost.
func (s *Sim) transmit(st *stream, p *pipe, seg *segment) {
	if st.host.off > 0 && p == &st.up || st.host.boot != st.boot && p == &st.up {
		return // whoever sent it is gone
	}
	packet := packet{to: st.host}
	if p == &st.up {
		packet.from, packet.to = st.host, nil
	}
	if s.net.carries(packet, s.now) {
		s.after(s.net.delay(packet.from, packet.to), func() { s.arrive(st, p, seg) })
		return
	}
	if seg.tries++; seg.tries > maxResends {
		return
	}
	rto := min(firstRTO<<(seg.tries-1), maxRTO)
	s.after(rto, func() { s.transmit(st, p, seg) })
}

// arrive takes a segment in the receiver's kernel and delivers what is in order.
func (s *Sim) arrive(st *stream, p *pipe, seg *segment) {
	h := st.host
	switch {
	case p == &st.down && !h.linked():
		s.transmit(st, p, seg) // it has been shut down meanwhile
		return
	case p == &st.down && (h.boot != st.boot || !st.agentOpen):
		s.reset(st)
		return
	}
	seg.arrived = true
	n := 0
	for n < len(p.queue) && p.queue[n].arrived {
		n++
	}
	ready := slices.Clone(p.queue[:n])
	p.queue = slices.Delete(p.queue, 0, n)
	for _, r := range ready {
		if p == &st.up {
			st.heard = s.now
			s.coordinator.hear(st, r.message)
		} else {
			s.toAgent(h, st.run, func() { s.hearCoordinator(st, r.message) })
		}
	}
}

// reset answers a segment for which there is no socket any more.
func (s *Sim) reset(st *stream) {
	packet := packet{from: st.host}
	if s.net.carries(packet, s.now) {
		s.after(s.net.delay(st.host, nil), func() { s.coordinator.ended(st, true) })
	}
}

// closeUp is the agent's process, or its kernel for it, closing the stream.
func (s *Sim) closeUp(st *stream) {
	if st.agentOpen {
		s.sendUp(st, fin{})
		st.agentOpen = false
	}
}

// synTries are when the kernel sends the SYNs of a connect, and connectTime is
// when the agent gives up.
func synTries() []time.Duration { return []time.Duration{0, time.Second, 3 * time.Second} }

const connectTime = 5 * time.Second

// connect opens a connection and calls then with whether it is open.
func (s *Sim) connect(h *host, then func(open bool)) {
	run := h.run
	settled := false
	settle := func(open bool) func() {
		return func() {
			if !settled {
				settled = true
				s.toAgent(h, run, func() { then(open) })
			}
		}
	}
	for _, at := range synTries() {
		s.after(at, func() {
			if settled || h.run != run || !s.net.carries(packet{from: h}, s.now) || !s.net.carries(packet{to: h}, s.now) {
				return
			}
			s.after(s.net.delay(h, nil)+s.net.delay(nil, h), settle(true))
		})
	}
	s.after(connectTime, settle(false))
}
