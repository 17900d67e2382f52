package sim

import (
	"fmt"
	"slices"
)

// Who chooses hosts, among those that no other fault has. Exactly one of Count,
// Share, Watchers, Zone and Servers is set.
type Who struct {
	Count int
	// Share is a part of the pool.
	Share float64
	// Adjacent takes Count neighbours on the ring.
	Adjacent bool
	// Watchers takes both watchers of that many servers, or with Either one of them.
	Watchers int
	Either   bool
	// Watched takes a server that those who were chosen last watch.
	Watched bool
	// Zone takes a zone, or with Rack one of its racks.
	Zone, Rack string
	// Servers are numbers from 1.
	Servers []int
}

// choose draws hosts for a fault.
func (s *Sim) choose(w Who) []*host {
	free := func(h *host) bool { return !h.chosen && h.off == 0 }
	var hosts []*host
	switch {
	case len(w.Servers) > 0:
		for _, n := range w.Servers {
			if n >= 1 && n <= len(s.hosts) {
				hosts = append(hosts, s.hosts[n-1])
			}
		}
		return hosts
	case w.Zone != "":
		for _, h := range s.hosts {
			if h.zone == w.Zone && (w.Rack == "" || h.rack == w.Rack) && free(h) {
				hosts = append(hosts, h)
			}
		}
		return hosts
	case w.Watched:
		return s.watched[:min(1, len(s.watched))]
	case w.Watchers > 0:
		s.watched = s.draw(w.Watchers, free)
		for _, h := range s.watched {
			watchers := s.coordinator.watchersOf(h.id)
			if w.Either {
				watchers = watchers[:min(1, len(watchers))]
			}
			for _, o := range watchers {
				if !slices.Contains(hosts, o) {
					hosts = append(hosts, o)
				}
			}
		}
		return hosts
	case w.Adjacent:
		return s.run(w.Count, free)
	}
	n := w.Count
	if w.Share > 0 {
		n = int(w.Share*float64(len(s.hosts)) + 0.5)
	}
	return s.draw(n, free)
}

// draw draws n hosts.
func (s *Sim) draw(n int, free func(*host) bool) []*host {
	var hosts []*host
	for _, i := range s.random.Perm(len(s.hosts)) {
		if len(hosts) == n {
			break
		}
		if h := s.hosts[i]; free(h) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// run takes n neighbours on the ring, from a random one on.
func (s *Sim) run(n int, free func(*host) bool) []*host {
	start := s.draw(1, free)
	if len(start) == 0 {
		return nil
	}
	var hosts []*host
	for h := start[0]; h != nil && len(hosts) < n && !slices.Contains(hosts, h); h = s.byID[s.coordinator.rows[h.id].First] {
		hosts = append(hosts, h)
	}
	return hosts
}

// neighbour is whom the broken edge of a host leads to: the next chosen one, or
// its first buddy.
func (s *Sim) neighbour(hosts []*host, i int) *host {
	if len(hosts) > 1 {
		return hosts[(i+1)%len(hosts)]
	}
	return s.byID[s.coordinator.rows[hosts[i].id].First]
}

// tell says in plain words who it is.
func (w *Who) tell() string {
	switch {
	case len(w.Servers) > 0:
		if len(w.Servers) == 1 {
			return fmt.Sprintf("server %d", w.Servers[0])
		}
		return fmt.Sprintf("servers %v", w.Servers)
	case w.Rack != "":
		return w.Rack + " of " + w.Zone
	case w.Zone != "":
		return w.Zone
	case w.Watched:
		return "whom they watch"
	case w.Either:
		return fmt.Sprintf("a watcher of %s", ofServers(w.Watchers))
	case w.Watchers > 0:
		return fmt.Sprintf("both watchers of %s", ofServers(w.Watchers))
	case w.Adjacent && w.Count > 1:
		return fmt.Sprintf("%d neighbours on the ring", w.Count)
	case w.Share == 1:
		return "all servers"
	case w.Share > 0:
		return share(w.Share) + " of the servers"
	}
	return ofServers(w.Count)
}

func ofServers(n int) string {
	if n == 1 {
		return "1 server"
	}
	return fmt.Sprintf("%d servers", n)
}

// one reports whether tell names a single server, rack or zone.
func (w *Who) one() bool {
	switch {
	case len(w.Servers) > 0:
		return len(w.Servers) == 1
	case w.Zone != "":
		return true
	case w.Watched:
		return false
	case w.Watchers > 0:
		return w.Either && w.Watchers == 1
	}
	return w.Count == 1
}
