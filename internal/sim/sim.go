package sim

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// Sim is one run. It is not safe for concurrent use; runs are independent of
// each other.
type Sim struct {
	options Options

	now    time.Duration
	queue  queue
	random *rand.Rand
	net    network

	hosts       []*host
	byID        map[member.ID]*host
	coordinator *coordinator
	routers     []*router
	// watched are the servers whose watchers a fault has chosen last.
	watched []*host
	ledger  ledger
	trace   trace
}

// kind says what an event is. The frequent ones are no closures.
type kind uint8

const (
	call kind = iota
	// agentCall is a closure that waits while the agent's process does not run.
	agentCall
	agentTick
	examTick
	probeEnd
)

type event struct {
	kind kind
	// host and run are whose process it is for.
	host *host
	run  int
	do   func()
	// flight is of a probe's end; of the other kinds it holds when they are due by
	// the host's monotonic clock.
	flight flight
}

// Run runs a simulation to its end. The error is one of the options.
func Run(o Options) (*Result, error) { return run(o, nil) }

func run(o Options, log *Log) (*Result, error) {
	// The meter counts the time of this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s, err := newSim(o, log)
	if err != nil {
		return nil, err
	}
	s.until(s.options.Settle)
	s.ledger.begin(s)
	s.arrangeFaults()
	s.until(s.options.Settle + s.options.Duration)
	return s.result(), nil
}

func newSim(o Options, log *Log) (*Sim, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	s := &Sim{
		options: o, net: newNetwork(o.Network, o.Seed), byID: map[member.ID]*host{},
		random: rand.New(rand.NewPCG(o.Seed, 2)), //nolint:gosec // a simulation has no secrets
		trace:  trace{log: log}, ledger: newLedger(),
	}
	for i := range o.Servers {
		h := newHost(i, &o)
		s.hosts = append(s.hosts, h)
		s.byID[h.id] = h
	}
	var err error
	if s.coordinator, err = newCoordinator(s); err != nil {
		return nil, fmt.Errorf("start the coordinator: %w", err)
	}
	for range o.Routers {
		s.routers = append(s.routers, newRouter(s))
	}
	for _, h := range s.hosts {
		s.after(time.Duration(s.random.Float64()*float64(o.Spread)), func() { s.startAgent(h) })
	}
	s.coordinator.start()
	return s, nil
}

// until lets virtual time pass.
func (s *Sim) until(end time.Duration) {
	for {
		at, ok := s.queue.next()
		if !ok || at > end {
			break
		}
		s.now = at
		e := s.queue.pop()
		s.happen(&e)
	}
	s.now = end
}

func (s *Sim) happen(e *event) {
	if e.kind == call {
		e.do()
		return
	}
	h := e.host
	switch {
	case h.run != e.run:
	case h.blocked(s.now):
		if e.kind == probeEnd && e.flight.replied && h.suspended > 0 {
			e.flight.replied = false // the reply came to a host that was not there
		}
		h.agent.backlog = append(h.agent.backlog, *e)
	default:
		s.process(h, e)
	}
}

// process is an event in the agent's process. Timers go by the host's clock,
// which may have stood still.
func (s *Sim) process(h *host, e *event) {
	if e.kind != agentTick && !e.flight.replied {
		if wait := h.clock.until(s.now, e.flight.deadline); wait > 0 {
			s.queue.push(s.now+wait, *e)
			return
		}
	}
	switch e.kind {
	case call:
	case agentCall:
		e.do()
	case agentTick:
		s.ticked(h)
	case examTick:
		s.examined(h, e.flight)
	case probeEnd:
		s.ended(h, e.flight)
	}
}

// resume lets an agent's process do what has waited for it.
func (s *Sim) resume(h *host) {
	if h.blocked(s.now) {
		return
	}
	waiting := h.agent.backlog
	h.agent.backlog = nil
	for i := range waiting {
		if waiting[i].run == h.run {
			s.process(h, &waiting[i])
		}
	}
}

// after calls do when d has passed.
func (s *Sim) after(d time.Duration, do func()) { s.queue.push(s.now+d, event{do: do}) }

// agentAfter calls do in the process of h when d has passed there.
func (s *Sim) agentAfter(h *host, d time.Duration, do func()) {
	due := h.clock.monotonic(s.now) + d
	s.queue.push(s.now+h.clock.virtual(d), event{kind: agentCall, host: h, run: h.run, do: do, flight: flight{deadline: due}})
}

// toAgent calls do in the run of the agent of h as soon as that process runs.
func (s *Sim) toAgent(h *host, run int, do func()) {
	e := event{kind: agentCall, host: h, run: run, do: do}
	s.happen(&e)
}

// hostAt is the host at an address, whose last bytes are its number, or nil if it
// is off.
func (s *Sim) hostAt(a netip.Addr) *host {
	b := a.As4()
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if n < 1 || n > len(s.hosts) || s.hosts[n-1].off > 0 {
		return nil
	}
	return s.hosts[n-1]
}

func parseAddrPort(s string) (netip.AddrPort, error) { return netip.ParseAddrPort(s) }
