package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// FaultKind says what is done.
type FaultKind uint8

// The kinds of fault.
const (
	// Crash switches a host off. With For, it boots again afterwards.
	Crash FaultKind = iota + 1
	// Unplug takes its network away and leaves everything else.
	Unplug
	// Suspend stops a whole virtual machine. Its clocks stand still, or jump, or
	// have gone on, at random.
	Suspend
	// PauseAgent stops the agent's process, as SIGSTOP does; the kernel answers.
	PauseAgent
	// StarveAgent gives it the processor late, by random times.
	StarveAgent
	// RestartAgent ends the agent and starts it after For.
	RestartAgent
	// Deafen loses all replies to the agent's own probes.
	Deafen
	// MakeLiar makes the agent say Lie of everybody.
	MakeLiar
	// LoseIngress and LoseEgress lose Loss of a host's packets on that way.
	LoseIngress
	LoseEgress
	// CutOff cuts the coordinator off from hosts that reach one another.
	CutOff
	// Isolate puts hosts into a network of their own, apart from the others and
	// from the coordinator.
	Isolate
	// FilterICMP drops all ICMP to and from hosts; with everybody chosen, it is a
	// firewall in the middle of the network.
	FilterICMP
	// JumpClock sets the wall clock forward or back by up to Clock, at random.
	JumpClock
	// DriftClock makes clocks fast or slow by up to 200 parts per million.
	DriftClock
	// BreakEdge breaks the network between each two consecutive hosts chosen, as
	// far as they watch one another.
	BreakEdge
	// LengthenBursts begins a burst of loss at hosts, on one way or with Both on both, and
	// makes their bursts Burst long on average, so that what comes of long bursts can be seen. It is for the
	// model HostBursts; Hit.Likelihood weighs what has come of it.
	LengthenBursts
)

// FaultNames are the names of the kinds, in their order.
func FaultNames() []string {
	return []string{
		"", "crash", "unplug", "suspend", "pause-agent", "starve-agent", "restart-agent", "deafen", "make-liar",
		"lose-ingress", "lose-egress", "cut-off", "isolate", "filter-icmp", "jump-clock", "drift-clock", "break-edge",
		"lengthen-bursts",
	}
}

// String returns the name of the kind.
func (k FaultKind) String() string { return FaultNames()[min(int(k), len(FaultNames())-1)] }

// Fault is something that is done to hosts.
type Fault struct {
	Kind FaultKind
	Who  Who
	// At is when it begins, counted from the end of settling; Within spreads the
	// hosts over a time after that. For is how long it lasts, 0 for the rest of the
	// run.
	At, Within, For time.Duration
	// Times repeats it, Every after its last beginning; the hosts are drawn anew
	// unless Same.
	Times int
	Every time.Duration
	Same  bool

	Loss  float64
	Lie   Lie
	Clock time.Duration
	Burst time.Duration
	Both  bool
}

func (f *Fault) check(servers int) error {
	if f.Kind < Crash || f.Kind > LengthenBursts {
		return member.Invalid("fault", "has no kind")
	}
	if f.At < 0 || f.For < 0 || f.Within < 0 || f.Times > 1 && f.Every <= 0 {
		return member.Invalid("fault", "%v needs times that are not negative, and some time between repetitions", f.Kind)
	}
	if !(f.Loss >= 0 && f.Loss <= 1) || !(f.Who.Share >= 0 && f.Who.Share <= 1) || f.Who.Count < 0 || f.Who.Watchers < 0 {
		return member.Invalid("fault", "%v needs shares from 0 to 1 and numbers that are not negative", f.Kind)
	}
	if f.Kind == MakeLiar && f.Lie == Honest {
		return member.Invalid("fault", "%v needs lie=, one of %v", f.Kind, Lies())
	}
	if f.Kind == LengthenBursts && (f.Burst <= 0 || f.For <= 0) {
		return member.Invalid("fault", "%v needs burst=, how long bursts are on average, and for=", f.Kind)
	}
	if most := max(f.Who.Count, f.Who.Watchers); most > servers {
		return member.Invalid("fault", "%v strikes %d, and the pool has %d servers", f.Kind, most, servers)
	}
	for _, n := range f.Who.Servers {
		if n < 1 || n > servers {
			return member.Invalid("fault", "%v: server %d is not from 1 to %d", f.Kind, n, servers)
		}
	}
	return nil
}

// arrangeFaults arranges for all faults.
func (s *Sim) arrangeFaults() {
	for i := range s.options.Faults {
		f := &s.options.Faults[i]
		s.after(f.At, func() { s.begin(f, nil, 1) })
	}
}

// begin does a fault for the n-th time.
func (s *Sim) begin(f *Fault, hosts []*host, n int) {
	if hosts == nil || !f.Same {
		hosts = s.choose(f.Who)
	}
	for i, h := range hosts {
		h.chosen = true
		start := time.Duration(0)
		if f.Within > 0 {
			start = time.Duration(s.random.Int64N(int64(f.Within)))
		}
		var other *host
		if f.Kind == BreakEdge {
			other = s.neighbour(hosts, i)
		}
		s.after(start, func() { s.strike(f, h, other) })
	}
	if n < f.Times {
		s.after(f.Every, func() { s.begin(f, hosts, n+1) })
	}
}

// strike does a fault to one host, and arranges for its end.
func (s *Sim) strike(f *Fault, h, other *host) {
	s.trace.fault(s, f, h, "")
	s.ledger.struck(s, f, h)
	end := s.inflict(f, h, other)
	h.note(s.now)
	if f.For == 0 || end == nil {
		return
	}
	s.after(f.For, func() {
		s.trace.fault(s, f, h, "over")
		end()
		h.note(s.now)
		if !f.Same {
			s.after(rest, func() { h.chosen = false })
		}
	})
}

// rest is how long a host is left in peace after a fault.
const rest = 10 * time.Second

// inflict does a fault and returns what ends it.
func (s *Sim) inflict(f *Fault, h, other *host) (end func()) {
	count := func(n *int) func() {
		*n++
		return func() { *n-- }
	}
	switch f.Kind {
	case Crash:
		h.off++
		s.stopAgent(h)
		return func() {
			h.off--
			h.boot++
			s.startAgent(h)
		}
	case Unplug:
		return count(&h.unplugged)
	case Suspend:
		return s.suspend(h)
	case PauseAgent:
		h.agent.paused++
		return func() {
			h.agent.paused--
			s.resume(h)
		}
	case StarveAgent:
		until := s.now + f.For
		if f.For == 0 {
			until = never
		}
		s.starve(h, until)
	case RestartAgent:
		s.stopAgent(h)
		return func() { s.startAgent(h) }
	case Deafen:
		return count(&h.agent.deaf)
	case MakeLiar:
		h.agent.lie = f.Lie
		if l := &h.agent.link; l.welcomed {
			s.keepLying(h, l.stream)
		}
		return func() { h.agent.lie = Honest }
	case LoseIngress, LoseEgress:
		return s.loseAt(f, h)
	case LengthenBursts:
		return s.lengthenBursts(f, h)
	case CutOff:
		return count(&h.cut)
	case Isolate:
		h.condemned++
		h.apart++
		return func() { h.condemned--; h.apart-- }
	case FilterICMP:
		h.noICMP = true
		return func() { h.noICMP = false }
	case JumpClock:
		h.clock.jump(time.Duration((2*s.random.Float64() - 1) * float64(f.Clock)))
	case DriftClock:
		h.clock.setDrift(s.now, s.random.Int64N(2*driftMost+1)-driftMost)
	case BreakEdge:
		if other != nil {
			a, b := wayOf(h, other), wayOf(other, h)
			s.net.badEdges[a], s.net.badEdges[b] = true, true
			return func() {
				delete(s.net.badEdges, a)
				delete(s.net.badEdges, b)
			}
		}
	}
	return nil
}

const driftMost = 200

// suspend stops a virtual machine.
func (s *Sim) suspend(h *host) (end func()) {
	h.suspended++
	began, how := s.now, s.random.IntN(3)
	return func() {
		h.suspended--
		if how > 0 {
			h.clock.stop(s.now-began, how == 2)
		}
		s.resume(h)
	}
}

// loseAt loses packets at a host. A loss that clients notice condemns it.
func (s *Sim) loseAt(f *Fault, h *host) (end func()) {
	side := &h.ingress
	if f.Kind == LoseEgress {
		side = &h.egress
	}
	before := *side
	*side = f.Loss
	if f.Loss < condemning {
		return func() { *side = before }
	}
	h.condemned++
	return func() { *side = before; h.condemned-- }
}

// condemning is the loss from which on it is right to remove a host.
const condemning = 0.3

// A starved process is kept waiting for starveTime and then runs for
// starveTime, each on average.
const starveTime = 300 * time.Millisecond

func (s *Sim) starve(h *host, until time.Duration) {
	if s.now >= until {
		return
	}
	wait := time.Duration(s.random.ExpFloat64() * float64(starveTime))
	h.agent.busy = s.now + wait
	s.after(wait, func() {
		s.resume(h)
		s.after(time.Duration(s.random.ExpFloat64()*float64(starveTime)), func() { s.starve(h, until) })
	})
}

// String names the fault for the trace.
func (f *Fault) String() string {
	switch f.Kind {
	case LoseIngress, LoseEgress:
		return f.Kind.String() + " " + share(f.Loss)
	case MakeLiar:
		return f.Kind.String() + " saying " + Lies()[f.Lie-1]
	case Crash, Unplug, Suspend, PauseAgent, StarveAgent, RestartAgent, Deafen, CutOff, Isolate, FilterICMP, JumpClock, DriftClock, BreakEdge,
		LengthenBursts:
	}
	return f.Kind.String()
}

// Tell says in plain words what the fault is.
func (f *Fault) Tell() string {
	var b strings.Builder
	what := f.does()
	if f.Who.one() {
		what = ofOne(what)
	}
	b.WriteString(f.Who.tell() + " " + what)
	fmt.Fprintf(&b, ", after %v", f.At)
	if f.Within > 0 {
		fmt.Fprintf(&b, " to %v", f.At+f.Within)
	}
	if f.For > 0 {
		fmt.Fprintf(&b, ", for %v", f.For)
	}
	if f.Times > 1 {
		who := "others"
		if f.Same {
			who = "the same"
		}
		fmt.Fprintf(&b, ", %d times, every %v %s", f.Times, f.Every, who)
	}
	return b.String()
}

// ofOne turns what several do into what one does.
func ofOne(s string) string {
	return strings.NewReplacer("crash", "crashes", "lose ", "loses ", "have ", "has ", "are ", "is ", "do not", "does not",
		"their", "its", "they", "it", "receive", "receives", "send", "sends", "clocks that run", "a clock that runs").Replace(s)
}

func (f *Fault) does() string {
	switch f.Kind {
	case Crash:
		return "crash"
	case Unplug:
		return "lose their network"
	case Suspend:
		return "are suspended"
	case PauseAgent:
		return "have their agent stopped"
	case StarveAgent:
		return "have an agent that gets the processor late"
	case RestartAgent:
		return "have their agent restarted"
	case Deafen:
		return "have an agent whose own probes all fail"
	case MakeLiar:
		return "have an agent that lies about everybody: " + Lies()[f.Lie-1]
	case LoseIngress:
		return "lose " + share(f.Loss) + " of what they receive"
	case LoseEgress:
		return "lose " + share(f.Loss) + " of what they send"
	case CutOff:
		return "are cut off from the coordinator"
	case Isolate:
		return "are cut off from everybody else"
	case FilterICMP:
		return "have their ICMP dropped by a firewall"
	case JumpClock:
		return "have their wall clock set forward or back"
	case DriftClock:
		return "have clocks that run fast or slow"
	case BreakEdge:
		return "do not reach their neighbour"
	case LengthenBursts:
		return "have bursts of loss of " + f.Burst.String() + " on average"
	}
	return ""
}
