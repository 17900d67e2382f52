package server

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
)

// commitMemory is how long a failed commit counts against the database when no
// other is tried.
const commitMemory = 30 * time.Second

// health remembers how the database did. A failing commit is told apart from a
// failing renewal: on a full disk one can go through and the other not. It is
// safe for concurrent use.
type health struct {
	alarms ownAlarms
	up     prometheus.Gauge

	mu sync.Mutex
	// renewErr is that of the last renewal; commitErr that of the last commit,
	// which ended at commitAt.
	renewErr, commitErr error
	commitAt            time.Time
	failing             bool
}

// storeAlarm has neither pool nor subject: the database is one.
func storeAlarm() member.AlarmKey { return member.AlarmKey{Name: alarmStoreFailing} }

// renewed takes the outcome of a renewal.
func (h *health) renewed(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.renewErr = failure(err)
	if h.commitErr != nil && now.Sub(h.commitAt) >= commitMemory {
		h.commitErr = nil
	}
	h.judge(now)
}

// committed takes the outcome of a commit, or of an attempt to take the lead; of
// another coordinator's too where this one only looks on.
func (h *health) committed(err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commitErr, h.commitAt = failure(err), now
	h.judge(now)
}

// failure leaves out refusals, which are answers: a database that gives one works.
func failure(err error) error {
	if errors.Is(err, member.ErrFenced) || errors.Is(err, member.ErrStale) {
		return nil
	}
	return err
}

func (h *health) judge(now time.Time) {
	err := errors.Join(h.renewErr, h.commitErr)
	switch {
	case err != nil:
		h.up.Set(0)
		h.alarms.raise(member.Alarm{
			Name: alarmStoreFailing, Since: now,
			Text: fmt.Sprintf("the database fails: %v; rows are delayed, routing is not", firstOf(h.renewErr, h.commitErr)),
		})
	case h.failing:
		h.alarms.clear(storeAlarm(), now)
		fallthrough
	default:
		h.up.Set(1)
	}
	h.failing = err != nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// error is the last failure of the database, or nil.
func (h *health) error() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return firstOf(h.renewErr, h.commitErr)
}
