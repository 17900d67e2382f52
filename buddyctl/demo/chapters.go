package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// crash is the chapter of the host that dies.
func (s *story) crash(ctx context.Context, host string) error {
	how := "its cable is pulled, then its processes are killed"
	if s.facts.Mode == modeLoopback {
		how = "its agent is frozen, and its port answers nothing"
	}
	s.page.chapter(1, fmt.Sprintf("%s dies: %s", host, how))
	o, err := s.begin(ctx, host, "crash, until clients are steered away")
	if err != nil {
		return err
	}
	if err := s.scene.Crash(host); err != nil {
		return err
	}
	d, err := s.departed(ctx, o, coordinatorv1.Cause_CAUSE_CRASHED)
	if err != nil {
		return err
	}
	s.facts.Crash = d.Departure
	if d.SuspectMS == nil {
		return fmt.Errorf("clients were not steered away from %s before it was removed", host)
	}
	s.marks = append(s.marks,
		mark{"steered away, until removed", o.origin.Add(fromMS(*d.SuspectMS))},
		mark{"after the removal", o.origin.Add(fromMS(d.AckedMS))})
	steered := "the router steers clients away from it"
	if d.LastPickMS != nil {
		steered += fmt.Sprintf(" (last sent there at %+.0f ms)", *d.LastPickMS)
	}
	lines := append([]line{
		{text: host + " is gone"},
		{at: fromMS(*d.SuspectMS), text: steered, ink: output.Bold},
	}, timeline(d.explanation, o.origin)...)
	return s.aftermath(ctx, o, d, append(lines, removedLine(d.Departure), ackedLine(d.Departure)))
}

// shutdown is the chapter of the server that says goodbye.
func (s *story) shutdown(ctx context.Context, host string) error {
	s.page.chapter(2, fmt.Sprintf("%s shuts down normally: SIGTERM to its agent", host))
	o, err := s.begin(ctx, host, "normal shutdown")
	if err != nil {
		return err
	}
	if err := s.scene.Shutdown(ctx, host); err != nil {
		return err
	}
	ended := time.Since(o.origin)
	d, err := s.departed(ctx, o, coordinatorv1.Cause_CAUSE_SHUTDOWN)
	if err != nil {
		return err
	}
	s.facts.Shutdown = d.Departure
	defer s.scene.PowerOff(host)
	drains, err := s.drained(o)
	if err != nil {
		return err
	}
	return s.aftermath(ctx, o, d, []line{
		{text: host + " reports itself"},
		{at: drains, text: "DRAINING: it gets no new work, and leaves when the router and its clients have confirmed that", ink: output.Yellow},
		removedLine(d.Departure),
		ackedLine(d.Departure),
		{at: ended, text: "the agent ends, with exit status 0: it is SAFE to stop the host", ink: output.Green},
	})
}

// drained says when the server got no new work any more, and checks that it left
// only when that was confirmed.
func (s *story) drained(o outset) (time.Duration, error) {
	drains, ok := s.seen.event("draining", o.host, o.from)
	if !ok {
		return 0, fmt.Errorf("%s has left without a drain", o.host)
	}
	if left, _ := s.seen.event("removed", o.host, o.from); strings.Contains(left.GetText(), "not confirmed") {
		return 0, fmt.Errorf("it was not safe: %s", left.GetText())
	}
	return max(0, drains.at.Sub(o.origin)), nil
}

func removedLine(d *Departure) line {
	text := fmt.Sprintf("REMOVED: the rows are changed in one transaction (revision %d)", d.Revision)
	return line{at: fromMS(d.RemovedMS), text: text, ink: output.Red}
}

func ackedLine(d *Departure) line {
	return line{at: fromMS(d.AckedMS), text: "the router has confirmed that it is gone", ink: output.Bold}
}

// maxDrawn is the largest ring that is drawn again after each change.
const maxDrawn = 20

// aftermath tells what happened, what has changed, and what the client met.
func (s *story) aftermath(ctx context.Context, o outset, d departure, lines []line) error {
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	s.page.lines(lines)
	s.page.blank()
	s.page.rows(d.Rows)
	if len(d.after.GetMembers()) <= maxDrawn {
		s.page.blank()
		s.page.ring(d.after)
	}
	if err := s.pause(ctx, calm); err != nil {
		return err
	}
	s.page.blank()
	s.page.text(s.since(o.origin))
	return nil
}

// comeback is the chapter of the return of the host that died.
func (s *story) comeback(ctx context.Context, host string) error {
	s.page.chapter(3, host+" comes back: it boots, and its agent starts")
	o := outset{host: host, from: len(s.seen.events), origin: s.mark("comeback")}
	if err := s.scene.Boot(host); err != nil {
		return err
	}
	var joined heard
	err := s.await(ctx, patience, host+" joins again", func() (ok bool) {
		joined, ok = s.seen.event("joined", host, o.from)
		return ok
	})
	if err != nil {
		return err
	}
	o.who = membership{host, joined.GetIncarnation()}
	row, err := s.admin.GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: pool, ServerId: host})
	if err != nil {
		return fmt.Errorf("look at %s: %w", host, err)
	}
	if row.GetServer().GetPhase() != coordinatorv1.Phase_PHASE_HELD {
		return fmt.Errorf("%s came back as %s, not as held", host, output.Name(row.GetServer().GetPhase()))
	}
	held, until := joined.at.Sub(o.origin), row.GetServer().GetHeldUntil().AsTime().Sub(o.origin)
	s.facts.Comeback = &Comeback{Server: host, Incarnation: o.who.incarnation, HeldMS: ms(held)}
	s.page.lines([]line{
		{at: held, text: fmt.Sprintf("%s is in the ring again, as a new incarnation (%d)", host, o.who.incarnation)},
		{at: held, text: fmt.Sprintf("HELD: it watches and is watched, but no client is sent there before %+d ms; "+
			"every further crash doubles the wait", until.Milliseconds()), ink: output.Yellow},
	})
	return s.release(ctx, o, until)
}

// release waits for the end of a hold-down.
func (s *story) release(ctx context.Context, o outset, until time.Duration) error {
	var at time.Time
	err := s.await(ctx, until+patience, o.host+" is routed to again", func() (ok bool) {
		at, ok = s.seen.routing(o.who)
		return ok
	})
	if err != nil {
		return err
	}
	active := at.Sub(o.origin)
	if early := until - active; early > clockSlack {
		return fmt.Errorf("clients were sent to %s %v before the end of its hold-down", o.host, early.Round(time.Millisecond))
	}
	c := s.facts.Comeback
	c.ActiveMS = ms(active)
	for _, r := range s.client.log() {
		if r.to == o.who && r.picked.Sub(o.origin) < until-clockSlack {
			c.PicksWhileHeld++
		}
	}
	if c.PicksWhileHeld > 0 {
		return fmt.Errorf("the client was sent to %s %d times while it was held", o.host, c.PicksWhileHeld)
	}
	err = s.await(ctx, patience, o.host+" answers the client", func() bool {
		ok, _ := served(s.client.log(), o.who, o.origin, time.Now())
		return ok > 0
	})
	if err != nil {
		return err
	}
	s.page.lines([]line{{at: active, text: "ACTIVE: clients are sent there again, and it answers", ink: output.Green}})
	if _, err := s.consistent(ctx); err != nil {
		return err
	}
	return s.pause(ctx, calm)
}

// killAgent is the chapter of the agent that dies alone.
func (s *story) killAgent(ctx context.Context, host string) error {
	s.page.chapter(4, fmt.Sprintf("Only the agent of %s dies, by SIGKILL; the host and its service are well", host))
	o, err := s.begin(ctx, host, "agent killed")
	if err != nil {
		return err
	}
	if err := s.scene.KillAgent(host); err != nil {
		return err
	}
	if err := s.watchKilled(ctx, host, o.origin); err != nil {
		return err
	}
	after, err := s.ring(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	k := &AgentKill{Server: host, WatchedMS: ms(now.Sub(o.origin)), Removed: s.seen.removed(o.from)}
	var failed int
	k.Served, failed = served(s.client.log(), o.who, o.origin, now)
	s.facts.AgentKill = k
	switch {
	case len(k.Removed) > 0:
		return fmt.Errorf("%s was removed though only the agent of %s had died", list(k.Removed), host)
	case len(diff(o.before, after)) > 0:
		return fmt.Errorf("the ring has changed though only the agent of %s had died", host)
	case k.Served == 0:
		return fmt.Errorf("%s answered no request while its agent was dead", host)
	}
	s.page.lines([]line{
		{at: now.Sub(o.origin), text: "nobody was removed, and the ring is the same", ink: output.Green},
		{at: now.Sub(o.origin), text: fmt.Sprintf("%s has answered %s meanwhile, %d failed", host, count(k.Served, "request"), failed), ink: output.Green},
	})
	return s.resume(ctx, o)
}

// watchKilled watches the pool for a while and tells of the alarm.
func (s *story) watchKilled(ctx context.Context, host string, origin time.Time) error {
	told := false
	for time.Since(origin) < killWatch {
		if err := s.pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		alarms, err := s.admin.ListAlarms(ctx, &coordinatorv1.ListAlarmsRequest{Pool: pool})
		if err != nil {
			return fmt.Errorf("list alarms: %w", err)
		}
		for _, a := range alarms.GetAlarms() {
			if !told && a.GetSubject() == host {
				told = true
				s.page.lines([]line{{at: a.GetSince().AsTime().Sub(origin), text: "ALARM " + a.GetName() + ": " + a.GetText(), ink: output.Yellow}})
			}
		}
	}
	if !told {
		return fmt.Errorf("the coordinator raised no alarm about the dead agent of %s", host)
	}
	return nil
}

// resume starts the killed agent again and waits for its session.
func (s *story) resume(ctx context.Context, o outset) error {
	if err := s.scene.StartAgent(o.host); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the new agent of %s got no session within %v", o.host, patience))
	defer cancel()
	var since time.Time
	err := until(bounded, func(ctx context.Context) error {
		sessions, err := s.admin.ListSessions(ctx, &coordinatorv1.ListSessionsRequest{Pool: pool})
		if err != nil {
			return fmt.Errorf("list sessions: %w", err)
		}
		for _, session := range sessions.GetSessions() {
			if session.GetServerId() == o.host && session.GetSince().AsTime().After(o.origin) {
				since = session.GetSince().AsTime()
				s.facts.AgentKill.Resumed = session.GetIncarnation() == o.who.incarnation
				return nil
			}
		}
		return errors.New("no session")
	})
	if err != nil {
		return err
	}
	if !s.facts.AgentKill.Resumed || len(s.seen.removed(o.from)) > 0 {
		return fmt.Errorf("the new agent of %s was not given its membership back", o.host)
	}
	s.page.lines([]line{{at: since.Sub(o.origin), text: fmt.Sprintf("a new agent takes up the same membership (incarnation %d)", o.who.incarnation)}})
	return s.pause(ctx, calm)
}
