package server

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/buddyring/buddyring/internal/member"
)

// The alarms of the coordinator itself. Those of a pool come from its machine.
const (
	alarmStoreFailing = "STORE_FAILING"
	alarmDiskLow      = "DISK_LOW"
	alarmRouterSilent = "ROUTER_SILENT"
	alarmRouterTwice  = "ROUTER_TWICE"
	alarmWentBack     = "HISTORY_WENT_BACK"
	alarmStoreChanged = "STORE_CHANGED"
	alarmUnreadable   = "POOL_UNREADABLE"
)

// AlarmNames lists all alarms of the coordinator and its pools. Each has an
// entry in the runbook under its name.
func AlarmNames() []string {
	return []string{
		"AGENT_DOWN", "AGENT_STATE_UNSAVED", "BRAKE", alarmDiskLow, "FLOOR", alarmWentBack, "ICMP_FILTERED",
		"LAST_SERVER_SILENT", "NOT_JOINING", "OBSERVER_MUTED", alarmUnreadable, "REMOVAL_CONTRADICTED", "RING_BROKEN", alarmRouterSilent,
		alarmRouterTwice, "SERVICES_DOWN",
		"SERVICE_DOWN", alarmStoreChanged, alarmStoreFailing, "UNREACHED",
	}
}

// ofCoordinator reports whether an alarm outlives the term in which it was
// raised.
func ofCoordinator(name string) bool { return name == alarmStoreFailing || name == alarmDiskLow }

// runbook is where the runbook says what to do about an alarm.
func runbook(name string) string { return "docs/runbook.md#" + strings.ToLower(name) }

// alarms holds the active alarms. Each edge is logged once; that it comes into
// the history is up to the machine of its pool, and to ownAlarms. It is safe for
// concurrent use.
type alarms struct {
	log    *slog.Logger
	active *prometheus.GaugeVec

	mu   sync.Mutex
	held map[member.AlarmKey]member.Alarm
}

func newAlarms(log *slog.Logger, active *prometheus.GaugeVec) *alarms {
	return &alarms{log: log, active: active, held: map[member.AlarmKey]member.Alarm{}}
}

// raise makes an alarm active and reports whether it was not. Raising an active
// one again only renews its text.
func (a *alarms) raise(alarm member.Alarm) bool {
	a.mu.Lock()
	old, active := a.held[alarm.Key()]
	if active {
		alarm.Since = old.Since
	}
	a.held[alarm.Key()] = alarm
	a.mu.Unlock()
	if active {
		return false
	}
	a.active.WithLabelValues(alarm.Name, string(alarm.Pool)).Inc()
	a.log.Warn("alarm raised", "alarm", alarm.Name, "pool", alarm.Pool, "subject", alarm.Subject,
		"text", alarm.Text, "runbook", runbook(alarm.Name))
	return true
}

// clear ends an alarm and reports whether it was active; ending an inactive one
// does nothing.
func (a *alarms) clear(key member.AlarmKey, now time.Time) bool {
	a.mu.Lock()
	alarm, active := a.held[key]
	delete(a.held, key)
	a.mu.Unlock()
	if !active {
		return false
	}
	a.active.WithLabelValues(key.Name, string(key.Pool)).Dec()
	a.log.Warn("alarm cleared", "alarm", key.Name, "pool", key.Pool, "subject", key.Subject,
		"active_for", now.Sub(alarm.Since).Round(time.Millisecond))
	return true
}

// list returns the active alarms, newest first.
func (a *alarms) list() []member.Alarm {
	a.mu.Lock()
	all := make([]member.Alarm, 0, len(a.held))
	for _, alarm := range a.held {
		all = append(all, alarm)
	}
	a.mu.Unlock()
	slices.SortFunc(all, func(x, y member.Alarm) int {
		return cmp.Or(y.Since.Compare(x.Since), strings.Compare(x.Name, y.Name),
			strings.Compare(string(x.Pool), string(y.Pool)), strings.Compare(x.Subject, y.Subject))
	})
	return all
}

// forget drops the active alarms of some names, of which nobody knows any more
// whether they hold.
func (a *alarms) forget(some func(name string) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key := range a.held {
		if some(key.Name) {
			delete(a.held, key)
			a.active.WithLabelValues(key.Name, string(key.Pool)).Dec()
		}
	}
}

func (a *alarms) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.held)
}
