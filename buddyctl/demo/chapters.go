package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// crash is the chapter of the host that dies.
func (s *story) crash(ctx context.Context, host string) error {
	s.page.chapter(1, fmt.Sprintf("%s dies: its cable is pulled, then its processes are killed", host))
	before, who, err := s.look(ctx, host)
	if err != nil {
		return err
	}
	from := len(s.seen.events)
	origin := s.begin("crash, until clients are steered away")
	if err := s.scene.Crash(host); err != nil {
		return err
	}
	event, gone, err := s.departure(ctx, who, from)
	if err != nil {
		return err
	}
	d, after, err := s.closed(ctx, before, event, gone, origin)
	if err != nil {
		return err
	}
	s.facts.Crash = d
	if event.GetCause() != coordinatorv1.Cause_CAUSE_CRASHED {
		return fmt.Errorf("%s was removed as %s, not as crashed", host, output.Name(event.GetCause()))
	}
	if d.SuspectMS == nil {
		return fmt.Errorf("clients were not steered away from %s before it was removed", host)
	}
	if others := s.seen.removed(from); len(others) != 1 {
		return fmt.Errorf("%s were removed; only %s had crashed", list(others), host)
	}
	s.marks = append(s.marks,
		mark{"steered away, until removed", origin.Add(fromMS(*d.SuspectMS))},
		mark{"after the removal", gone.acked})
	s.page.lines(s.crashLines(gone.explanation, d, origin))
	s.page.blank()
	s.page.rows(d.Rows)
	s.page.blank()
	s.page.ring(after)
	if err := s.pause(ctx, calm); err != nil {
		return err
	}
	s.page.blank()
	s.page.text(s.since(origin))
	return nil
}

// crashLines are the explanation's timeline and what the router did.
func (s *story) crashLines(e *coordinatorv1.Explanation, d *Departure, origin time.Time) []line {
	lines := append([]line{{text: d.Server + " is gone"}}, timeline(e, origin)...)
	if d.SuspectMS != nil {
		text := "the router steers clients away from it"
		if d.LastPickMS != nil {
			text += fmt.Sprintf(" (last sent there at %+.0f ms)", *d.LastPickMS)
		}
		lines = append(lines, line{at: fromMS(*d.SuspectMS), text: text, ink: output.Bold})
	}
	if _, told := firstOf(e, "committed", origin); !told {
		lines = append(lines, line{at: fromMS(d.RemovedMS), text: removedText(d.Revision), ink: output.Red})
	}
	lines = append(lines, line{at: fromMS(d.AckedMS), text: "the router has confirmed that it is gone", ink: output.Bold})
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	return lines
}

// shutdown is the chapter of the server that says goodbye.
func (s *story) shutdown(ctx context.Context, host string) error {
	s.page.chapter(2, fmt.Sprintf("%s shuts down normally: SIGTERM to its agent", host))
	before, who, err := s.look(ctx, host)
	if err != nil {
		return err
	}
	from := len(s.seen.events)
	origin := s.begin("normal shutdown")
	var ended time.Time
	if err := s.scene.Shutdown(ctx, host, func() { ended = time.Now() }); err != nil {
		return err
	}
	event, gone, err := s.departure(ctx, who, from)
	if err != nil {
		return err
	}
	d, after, err := s.closed(ctx, before, event, gone, origin)
	if err != nil {
		return err
	}
	s.facts.Shutdown = d
	if event.GetCause() != coordinatorv1.Cause_CAUSE_SHUTDOWN {
		return fmt.Errorf("%s was removed as %s, not as a shutdown", host, output.Name(event.GetCause()))
	}
	lines := []line{
		{text: host + " reports itself"},
		{at: fromMS(d.RemovedMS), text: removedText(d.Revision), ink: output.Red},
		{at: fromMS(d.AckedMS), text: "the router has confirmed that it is gone", ink: output.Bold},
		{at: ended.Sub(origin), text: "the agent ends, with exit status 0"},
	}
	slices.SortStableFunc(lines, func(a, b line) int { return int(a.at - b.at) })
	s.page.lines(lines)
	s.page.blank()
	s.page.rows(d.Rows)
	s.page.blank()
	s.page.ring(after)
	if err := s.pause(ctx, calm); err != nil {
		return err
	}
	s.page.blank()
	s.page.text(s.since(origin))
	return nil
}

// comeback is the chapter of the return of the host that died.
func (s *story) comeback(ctx context.Context, host string) error {
	s.page.chapter(3, host+" comes back: it boots, and its agent starts")
	from := len(s.seen.events)
	origin := s.begin("comeback")
	if err := s.scene.Boot(host); err != nil {
		return err
	}
	var joined *coordinatorv1.Event
	err := s.await(ctx, patience, host+" joins again", func() bool {
		if joined = s.seen.event("joined", host, from); joined == nil {
			joined = s.seen.event("held", host, from)
		}
		return joined != nil
	})
	if err != nil {
		return err
	}
	who := membership{host, joined.GetIncarnation()}
	row, err := s.admin.GetServer(ctx, &coordinatorv1.GetServerRequest{Pool: pool, ServerId: host})
	if err != nil {
		return fmt.Errorf("look at %s: %w", host, err)
	}
	held, until := joined.GetAt().AsTime().Sub(origin), row.GetServer().GetHeldUntil().AsTime().Sub(origin)
	if row.GetServer().GetPhase() != coordinatorv1.Phase_PHASE_HELD {
		return fmt.Errorf("%s came back as %s, not as held", host, output.Name(row.GetServer().GetPhase()))
	}
	s.page.lines([]line{
		{at: held, text: fmt.Sprintf("%s is in the ring again, as a new incarnation (%d)", host, who.incarnation)},
		{at: held, text: fmt.Sprintf("HELD: it watches and is watched, but no client is sent there before %+d ms; "+
			"every further crash doubles the wait", until.Milliseconds()), ink: output.Yellow},
	})
	return s.release(ctx, who, origin, held, until)
}

// release waits for the end of a hold-down.
func (s *story) release(ctx context.Context, who membership, origin time.Time, held, until time.Duration) error {
	var active time.Time
	err := s.await(ctx, until-held+patience, who.server+" is routed to again", func() (ok bool) {
		active, ok = s.seen.routing(who)
		return ok
	})
	if err != nil {
		return err
	}
	if early := until - active.Sub(origin); early > clockSlack {
		return fmt.Errorf("clients were sent to %s %v before the end of its hold-down", who.server, early.Round(time.Millisecond))
	}
	c := &Comeback{Server: who.server, Incarnation: who.incarnation, HeldMS: ms(held), ActiveMS: ms(active.Sub(origin))}
	s.facts.Comeback = c
	for _, r := range s.client.log() {
		if r.to == who && r.picked.Sub(origin) < until {
			c.PicksWhileHeld++
		}
	}
	if c.PicksWhileHeld > 0 {
		return fmt.Errorf("the client was sent to %s %d times while it was held", who.server, c.PicksWhileHeld)
	}
	err = s.await(ctx, patience, who.server+" answers the client", func() bool {
		ok, _ := served(s.client.log(), who, origin, time.Now())
		return ok > 0
	})
	if err != nil {
		return err
	}
	s.page.lines([]line{{at: active.Sub(origin), text: "ACTIVE: clients are sent there again, and it answers", ink: output.Green}})
	if _, err := s.consistent(ctx); err != nil {
		return err
	}
	return s.pause(ctx, calm)
}

// killAgent is the chapter of the agent that dies alone.
func (s *story) killAgent(ctx context.Context, host string) error {
	s.page.chapter(4, fmt.Sprintf("Only the agent of %s dies, by SIGKILL; the host and its service are well", host))
	before, who, err := s.look(ctx, host)
	if err != nil {
		return err
	}
	from := len(s.seen.events)
	origin := s.begin("agent killed")
	if err := s.scene.KillAgent(host); err != nil {
		return err
	}
	if err := s.watchKilled(ctx, host, origin); err != nil {
		return err
	}
	k := &AgentKill{Server: host, WatchedMS: ms(time.Since(origin)), Removed: s.seen.removed(from)}
	var failed int
	k.Served, failed = served(s.client.log(), who, origin, time.Now())
	s.facts.AgentKill = k
	after, err := s.ring(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(k.Removed) > 0:
		return fmt.Errorf("%s was removed though only the agent of %s had died", list(k.Removed), host)
	case len(diff(before, after)) > 0:
		return fmt.Errorf("the ring has changed though only the agent of %s had died", host)
	case k.Served == 0:
		return fmt.Errorf("%s answered no request while its agent was dead", host)
	}
	now := time.Since(origin)
	s.page.lines([]line{
		{at: now, text: "nobody was removed, and the ring is the same", ink: output.Green},
		{at: now, text: fmt.Sprintf("%s has answered %s meanwhile, %d failed", host, count(k.Served, "request"), failed), ink: output.Green},
	})
	return s.resume(ctx, who, origin, from)
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
func (s *story) resume(ctx context.Context, who membership, origin time.Time, from int) error {
	if err := s.scene.StartAgent(who.server); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the new agent of %s got no session within %v", who.server, patience))
	defer cancel()
	var since time.Time
	err := until(bounded, func(ctx context.Context) error {
		sessions, err := s.admin.ListSessions(ctx, &coordinatorv1.ListSessionsRequest{Pool: pool})
		if err != nil {
			return fmt.Errorf("list sessions: %w", err)
		}
		for _, session := range sessions.GetSessions() {
			if session.GetServerId() == who.server && session.GetSince().AsTime().After(origin) {
				since = session.GetSince().AsTime()
				s.facts.AgentKill.Resumed = session.GetIncarnation() == who.incarnation
				return nil
			}
		}
		return errors.New("no session")
	})
	if err != nil {
		return err
	}
	if !s.facts.AgentKill.Resumed || len(s.seen.removed(from)) > 0 {
		return fmt.Errorf("the new agent of %s was not given its membership back", who.server)
	}
	s.page.lines([]line{{at: since.Sub(origin), text: fmt.Sprintf("a new agent takes up the same membership (incarnation %d)", who.incarnation)}})
	return s.pause(ctx, calm)
}
