package demo

import (
	"slices"
	"time"
)

// membership is one incarnation of a server.
type membership struct {
	server      string
	incarnation uint64
}

// request is one request of the client: where the router sent it, and what
// became of it.
type request struct {
	// began is when the router was asked, picked when it had answered.
	began, picked time.Time
	to            membership
	// err is nil when the server answered. A router that had no answer leaves
	// to empty.
	err error
}

// removal is the end of a membership and when the router had confirmed it.
type removal struct {
	membership
	acked time.Time
}

// mark begins a phase of the tally.
type mark struct {
	name string
	from time.Time
}

// tally counts requests by the phase in which they began. Phases are in order
// of time; requests before the first are left out, phases without requests
// stay.
func tally(requests []request, marks []mark) []Phase {
	phases := make([]Phase, len(marks))
	for i, m := range marks {
		phases[i].Name = m.name
	}
	for _, r := range requests {
		i := len(marks) - 1
		for i >= 0 && r.began.Before(marks[i].from) {
			i--
		}
		if i < 0 {
			continue
		}
		phases[i].Requests++
		if r.err != nil {
			phases[i].Failed++
		}
	}
	return phases
}

// sentAfter counts requests that began after the router had confirmed the end
// of the membership that it then sent them to.
func sentAfter(requests []request, removals []removal) int {
	n := 0
	for _, r := range requests {
		if slices.ContainsFunc(removals, func(e removal) bool {
			return e.membership == r.to && r.began.After(e.acked)
		}) {
			n++
		}
	}
	return n
}

// lastPick returns when the router last named a membership since then, or the
// zero time.
func lastPick(requests []request, to membership, since time.Time) (last time.Time) {
	for _, r := range requests {
		if r.to == to && r.picked.After(since) && r.picked.After(last) {
			last = r.picked
		}
	}
	return last
}

// served counts the requests begun within a stretch of time that a membership
// answered, and those that it did not.
func served(requests []request, by membership, from, to time.Time) (ok, failed int) {
	for _, r := range requests {
		switch {
		case r.to != by || r.began.Before(from) || r.began.After(to):
		case r.err == nil:
			ok++
		default:
			failed++
		}
	}
	return ok, failed
}
