package sim

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/buddyring/buddyring/agent/detector"
	"github.com/buddyring/buddyring/internal/member"
)

// host is a machine with a kernel, a network and an agent.
type host struct {
	// index counts from 1.
	index      int32
	id         member.ID
	addr       netip.Addr
	zone, rack string
	clock      clock

	// What is wrong with it. The counters are of faults that overlap.
	off, suspended, unplugged, cut, apart int
	noICMP                                bool
	ingress, egress                       float64
	in, out                               chain
	// downSince is since when it is off the network, or never; outage, how long it
	// was so last, until upSince.
	downSince, upSince, outage time.Duration
	// chosen says that a fault has it.
	chosen bool
	// condemned says that it is right to remove it: its network is broken.
	condemned int

	// boot counts its boots, run the runs of its agent, which are the generations
	// that events belong to.
	boot, run int
	agent     agent
}

// never is later than everything.
const never = time.Duration(1<<63 - 1)

// agent is the agent's process on a host.
type agent struct {
	running bool
	// paused counts what has stopped the process; until busy it does not get the
	// processor. backlog is what waits for it meanwhile.
	paused  int
	busy    time.Duration
	backlog []event
	// deaf says that no reply reaches its prober, lie what it says of others.
	deaf int
	lie  Lie

	detector *detector.Detector
	// wake is when the detector wants to be called, tick when it is going to be.
	wake  time.Time
	tick  time.Duration
	exams []*exam

	// What is in its state directory.
	incarnation member.Incarnation
	saved       assignment

	link link
}

func newHost(i int, o *Options) *host {
	h := &host{
		index: int32(i + 1), id: member.ID("web-" + strconv.Itoa(i+1)), clock: newClock(), downSince: never, boot: 1,
		// See hostAt.
		addr: netip.AddrFrom4([4]byte{10, byte((i + 1) >> 16), byte((i + 1) >> 8), byte(i + 1)}),
	}
	if o.Zones > 0 {
		h.zone = "zone-" + strconv.Itoa(i%o.Zones+1)
	}
	if o.Racks > 0 {
		h.rack = "rack-" + strconv.Itoa(i/max(1, o.Zones)%o.Racks+1)
	}
	return h
}

// linked reports whether packets leave and reach its kernel.
func (h *host) linked() bool { return h.off == 0 && h.suspended == 0 && h.unplugged == 0 }

// blocked reports whether its agent's process does not run now.
func (h *host) blocked(now time.Duration) bool {
	return h.suspended > 0 || h.agent.paused > 0 || now < h.agent.busy
}

// note follows whether it is on the network.
func (h *host) note(now time.Duration) {
	switch {
	case !h.linked() && h.downSince == never:
		h.downSince = now
	case h.linked() && h.downSince != never:
		h.outage, h.upSince, h.downSince = now-h.downSince, now, never
	}
}

// hindsight is how long after an outage a decision about it may come through.
const hindsight = 500 * time.Millisecond

// mayGo reports whether it is right to remove it now, when outages shorter than
// tolerance are to be sat out.
func (h *host) mayGo(now, tolerance time.Duration) bool {
	return h.off > 0 || h.condemned > 0 || h.downSince != never && now-h.downSince >= tolerance ||
		h.outage >= tolerance && h.upSince > 0 && now-h.upSince <= hindsight
}

// mayBeSuspect reports whether it is right to avoid it now.
func (h *host) mayBeSuspect(now time.Duration) bool {
	return !h.linked() || h.condemned > 0 || h.upSince > 0 && now-h.upSince <= hindsight
}

func (h *host) spec() member.Spec {
	return member.Spec{
		ProbeAddresses: []netip.Addr{h.addr}, Zone: h.zone, Rack: h.rack, Weight: 100,
		Endpoints: []member.Endpoint{{Address: h.addr.String() + ":80"}},
	}
}

func (h *host) bootID() string { return fmt.Sprintf("%s-boot-%d", h.id, h.boot) }

func (h *host) instanceID(run int) string { return fmt.Sprintf("%s-run-%d-%d", h.id, h.boot, run) }
