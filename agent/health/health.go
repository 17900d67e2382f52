// Package health decides from the results of an agent's checks whether its
// server's service is up.
//
// It runs no check and reads no clock: the shell hands it one result after the
// other. It says nothing about the host, and before the first results nothing at
// all.
package health

import (
	"slices"
	"strings"
)

const (
	// Fall is how many results in a row must be failures until a check is down.
	Fall = 3
	// Rise is how many must be passes until it is up again. At the start one is
	// enough: there is no failure that it could be a mere pause of.
	Rise = 2
)

// State is what the checks come to.
type State uint8

// The states. Unknown is before the first results.
const (
	Unknown State = iota
	Up
	Down
)

// Verdict is what to say of the service.
type Verdict struct {
	State State
	// Text says which checks fail and how; it is empty unless State is Down.
	Text string
}

// check is what is known of one check.
type check struct {
	name  string
	state State
	// run counts the last results that were alike, failure is the newest one's
	// if that was a failure.
	run     int
	failure string
}

// Health is the health of one service. It is not safe for concurrent use. The
// zero Health has no checks, and is up.
type Health struct {
	checks []check
}

// Assign replaces the checks, which have different names. One that stays keeps
// what is known of it.
func (h *Health) Assign(names []string) {
	checks := make([]check, len(names))
	for i, name := range names {
		checks[i] = check{name: name}
		if known := h.find(name); known != nil {
			checks[i] = *known
		}
	}
	h.checks = checks
}

// Result takes how a check went: failure is empty for a pass. Results of unknown
// checks are ignored.
func (h *Health) Result(name, failure string) {
	c := h.find(name)
	if c == nil {
		return
	}
	if (failure == "") != (c.failure == "") {
		c.run = 0
	}
	c.run++
	c.failure = failure
	switch {
	case failure == "" && (c.run >= Rise || c.state == Unknown):
		c.state = Up
	case failure != "" && c.run >= Fall:
		c.state = Down
	}
}

func (h *Health) find(name string) *check {
	if i := slices.IndexFunc(h.checks, func(c check) bool { return c.name == name }); i >= 0 {
		return &h.checks[i]
	}
	return nil
}

// Count returns how many checks are in each state.
func (h *Health) Count() map[State]int {
	count := map[State]int{}
	for _, c := range h.checks {
		count[c.state]++
	}
	return count
}

// Verdict returns what the checks come to: down when one is down, up when all
// are up.
func (h *Health) Verdict() Verdict {
	var failing []string
	count := h.Count()
	for _, c := range h.checks {
		if c.state == Down {
			failing = append(failing, c.name+": "+c.reason())
		}
	}
	switch {
	case count[Down] > 0:
		return Verdict{State: Down, Text: strings.Join(failing, "; ")}
	case count[Unknown] > 0:
		return Verdict{}
	}
	return Verdict{State: Up}
}

// reason is why a check is down. One that has just passed is not up yet.
func (c check) reason() string {
	if c.failure == "" {
		return "it has passed only once"
	}
	return c.failure
}
