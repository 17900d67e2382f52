package server

import (
	"cmp"
	"context"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// edgesWaiting bounds the edges that wait for a pool's machine.
const edgesWaiting = 256

// ownAlarms are the alarms of the coordinator itself. Their edges are events of
// the pool that they are about; those of no pool are in the history of the
// default pool. They never wait for the database: where it is what fails, the
// pool's machine keeps them until it is back. It is safe for concurrent use.
type ownAlarms struct {
	*alarms
	// edges are those on their way to a machine. What has no room is in the log
	// only.
	edges chan edge
}

// edge is the beginning or the end of an alarm.
type edge struct {
	pool  member.Pool
	event member.Event
}

func newOwnAlarms(a *alarms) ownAlarms {
	return ownAlarms{alarms: a, edges: make(chan edge, edgesWaiting)}
}

func (o ownAlarms) raise(alarm member.Alarm) {
	if o.alarms.raise(alarm) {
		o.note(alarm.Pool, member.Event{Kind: member.EventAlarmRaised, Text: alarm.Name + ": " + alarm.Text})
	}
}

func (o ownAlarms) clear(key member.AlarmKey, now time.Time) {
	if o.alarms.clear(key, now) {
		text := key.Name + " is over"
		if key.Subject != "" {
			text = key.Name + " of " + key.Subject + " is over"
		}
		o.note(key.Pool, member.Event{Kind: member.EventAlarmCleared, Text: text})
	}
}

// expire ends the alarms of a name that began before a time: those of things
// that happen rather than last.
func (o ownAlarms) expire(name string, before, now time.Time) {
	for _, alarm := range o.list() {
		if alarm.Name == name && alarm.Since.Before(before) {
			o.clear(alarm.Key(), now)
		}
	}
}

func (o ownAlarms) note(pool member.Pool, e member.Event) {
	e.Actor = cmp.Or(e.Actor, actorSelf)
	select {
	case o.edges <- edge{cmp.Or(pool, member.DefaultPool), e}:
	default:
	}
}

// forgetEdges drops the edges that nobody has taken: a standby has no history.
func (o ownAlarms) forgetEdges() {
	for {
		select {
		case <-o.edges:
		default:
			return
		}
	}
}

// deliver hands the edges to the machines of their pools until ctx ends.
func (o ownAlarms) deliver(ctx context.Context, pools *pools) {
	for {
		select {
		case e := <-o.edges:
			if h := pools.find(e.pool); h != nil {
				h.note(e.event)
			}
		case <-ctx.Done():
			return
		}
	}
}
