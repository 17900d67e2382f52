package pool

import (
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/coordinator/verdict"
	"github.com/buddyring/buddyring/internal/member"
)

const (
	// taleLimit bounds the moments of one incident: the first taleHead and the
	// newest are kept. logLimit the decisions kept
	// per server, logServers the servers for which any are kept, notesLimit the
	// events that wait to be written.
	taleLimit, taleHead, logLimit, logServers, notesLimit = 160, 20, 8, 4096, 256
	// noteEvery is how often at most a decision not to remove one and the same
	// server goes into the history.
	noteEvery = time.Minute
)

// tale is what happened in one incident: from the first doubt until the server
// is removed or nobody doubts it any more.
type tale struct {
	started time.Time
	moments []member.Moment
	// leftOut counts the moments that are not kept; the one after the head says so.
	leftOut int
}

// Decision is a decision about a server and the revision of the change that
// followed, 0 for none.
type Decision struct {
	Explanation member.Explanation
	Revision    member.Revision
}

func (m *Machine) beginIncident(s *server, firstLost time.Time) {
	s.inquiry.tale = &tale{started: m.now}
	s.inquiry.firstLost = firstLost
	s.inquiry.tries = 0
}

func (m *Machine) endIncident(s *server) {
	q := &s.inquiry
	if s.loss.since.IsZero() {
		q.tale = nil
	}
	q.tries, q.next = 0, time.Time{}
	q.lastProof, q.lastDial = verdict.ProofAbsent, verdict.DialNone
	q.overruled, q.saviours, q.recanted, q.reachers, q.asked, q.first = nil, nil, nil, nil, nil, nil
	q.repeated, q.acquitted, q.goesOn, q.credited = false, false, false, false
	m.unfilter(s.row.ID)
	m.clearAlarm(alarmUnreached, s.row.ID)
}

// tell adds a moment to the present incident, if there is one.
func (m *Machine) tell(s *server, moment member.Moment) {
	t := s.inquiry.tale
	if t == nil {
		return
	}
	if len(t.moments) >= taleLimit {
		t.cut()
	}
	moment.At = m.now.Sub(t.started)
	t.moments = append(t.moments, moment)
}

// cut leaves moments out after the head. In their place is one that says how many
// they are by now.
func (t *tale) cut() {
	last := taleLimit/2 - 1
	if t.leftOut > 0 {
		t.leftOut-- // what said so until now is none
	}
	t.leftOut += last + 1 - taleHead
	t.moments[last] = member.Moment{At: t.moments[last].At, Kind: "left_out", Text: fmt.Sprintf("%d moments before this are left out", t.leftOut)}
	t.moments = slices.Delete(t.moments, taleHead, last)
}

func (m *Machine) explanation(s *server, outcome string, ruling verdict.Ruling) member.Explanation {
	e := member.Explanation{
		ID: s.row.ID, Incarnation: s.row.Incarnation, Verdict: outcome, Rule: ruling.Rule, Started: m.now, Decided: m.now,
	}
	e.Before = m.safety()
	if t := s.inquiry.tale; t != nil {
		e.Started, e.Timeline = t.started, slices.Clone(t.moments)
	}
	return e
}

// notRemoved records a decision that leaves everything as it is. The history
// gets it with the next change, at most once a minute per server; that
// brake or floor hold it counts apart.
func (m *Machine) notRemoved(s *server, ruling verdict.Ruling) {
	m.count(CountNotRemoved)
	e := m.explanation(s, "not_removed", ruling)
	e.Text = fmt.Sprintf("%s was not removed: %s", s.row.ID, ruling.Reason)
	m.log(e, 0)
	key := noteKey{s.row.ID, ""}
	if ruling.Rule == m.guard.brake.rule() || ruling.Rule == m.guard.floor.rule() {
		key.stop = ruling.Rule
	}
	if at, ok := m.noted[key]; ok && m.now.Sub(at) < noteEvery {
		return
	}
	m.noted[key] = m.now
	m.note(member.Event{Kind: member.EventNotRemoved, ID: s.row.ID, Incarnation: s.row.Incarnation, Actor: actorSelf, Text: e.Text, Explanation: &e})
}

// noteKey is what a decision not to remove a server is noted by: the server, and the
// rule if brake or floor hold its removal.
type noteKey struct {
	id   member.ID
	stop string
}

// actorSelf is the actor of what the coordinator does by itself.
const actorSelf = "coordinator"

func (m *Machine) log(e member.Explanation, revision member.Revision) {
	if _, known := m.logs[e.ID]; !known {
		m.logOrder = append(m.logOrder, e.ID)
		if len(m.logOrder) > logServers {
			delete(m.logs, m.logOrder[0])
			m.logOrder = m.logOrder[1:]
		}
	}
	log := m.logs[e.ID]
	if len(log) > 0 && revision == 0 && log[0].Revision == 0 && log[0].Explanation.Rule == e.Rule && log[0].Explanation.Started.Equal(e.Started) {
		// The same decision once more in the same incident: the newer one tells all.
		log = log[1:]
	}
	log = append([]Decision{{e, revision}}, log...)
	m.logs[e.ID] = log[:min(len(log), logLimit)]
}

// note keeps an event for the next change, or for one of its own after
// noteDelay.
func (m *Machine) note(e member.Event) {
	if len(m.notes) >= notesLimit {
		return
	}
	e.At, e.Epoch = m.now, m.position.Epoch
	if len(m.notes) == 0 {
		m.notesAt = m.now.Add(noteDelay)
		m.wake(m.notesAt, wakePropose, "", 0)
	}
	m.notes = append(m.notes, e)
}

// The alarms that a machine raises.
const (
	alarmAgentDown           = "AGENT_DOWN"
	alarmLastServerSilent    = "LAST_SERVER_SILENT"
	alarmRemovalContradicted = "REMOVAL_CONTRADICTED"
	alarmUnreached           = "UNREACHED"
	alarmNotJoining          = "NOT_JOINING"
	alarmObserverMuted       = "OBSERVER_MUTED"
	alarmICMPFiltered        = "ICMP_FILTERED"
	alarmAgentStateUnsaved   = "AGENT_STATE_UNSAVED"
	alarmBrake               = "BRAKE"
	alarmFloor               = "FLOOR"
	alarmServiceDown         = "SERVICE_DOWN"
	alarmServicesDown        = "SERVICES_DOWN"
	alarmRingBroken          = "RING_BROKEN"
)

// contradictedFor is how long the alarm about a contradicted removal stays.
const contradictedFor = 10 * time.Minute

func (m *Machine) raise(name string, id member.ID, text string) {
	a := member.Alarm{Name: name, Pool: m.name, Subject: string(id), Since: m.now, Text: text}
	if _, active := m.alarms[a.Key()]; active {
		return
	}
	m.alarms[a.Key()] = a
	m.emit(Raise{a})
	m.note(member.Event{Kind: member.EventAlarmRaised, ID: id, Actor: actorSelf, Text: name + ": " + text})
}

func (m *Machine) clearAlarm(name string, id member.ID) {
	key := member.AlarmKey{Name: name, Pool: m.name, Subject: string(id)}
	if _, active := m.alarms[key]; !active {
		return
	}
	delete(m.alarms, key)
	m.emit(Clear{key})
	m.note(member.Event{Kind: member.EventAlarmCleared, ID: id, Actor: actorSelf, Text: name + " is over"})
}
