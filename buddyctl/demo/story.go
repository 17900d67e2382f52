package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/buddyring/buddyring/buddyctl/output"
	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// How long the story waits for what must happen. All are far above what is
// normal, for machines that are busy.
const (
	joinPatience   = 20 * time.Second
	removePatience = 10 * time.Second
	patience       = 5 * time.Second
	// calm is how long the client runs before something is broken, and after; a
	// service outlives its agent by as much, for clients that were sent there.
	calm = time.Second
	// clockSlack is what may lie between two readings of one clock.
	clockSlack = 10 * time.Millisecond
	// killWatch is how long the pool is watched after an agent was killed:
	// longer than the coordinator's alarm about it takes.
	killWatch = 6 * time.Second
)

// routerID is the demo's one router.
const routerID = "router-1"

// scene is what the story does to the hosts.
type scene interface {
	// Boot starts a host: with a new boot id, its service and its agent.
	Boot(name string) error
	// Crash silences a host at once and ends its processes.
	Crash(name string) error
	// Shutdown sends SIGTERM to the agent and waits until it has ended well.
	Shutdown(ctx context.Context, name string) error
	// PowerOff stops the service of a host that has been shut down.
	PowerOff(name string)
	// KillAgent ends an agent by SIGKILL and nothing else.
	KillAgent(name string) error
	// StartAgent starts an agent again on a host that is up.
	StartAgent(name string) error
}

// story plays the chapters and checks that what it tells is true. All its
// methods are for one goroutine.
type story struct {
	admin  coordinatorv1.AdminServiceClient
	router routerv1.RouterServiceClient
	scene  scene
	client *client
	page   *page
	facts  *Facts
	news   <-chan news
	// hosts are the names of the servers; started is the time zero of the page.
	hosts   []string
	started time.Time

	seen     sight
	removals []removal
	marks    []mark
}

// cast picks who plays what.
func (s *story) cast() (crashes, leaves, loses string) {
	n := len(s.hosts)
	return s.hosts[n/2], s.hosts[1], s.hosts[n-1]
}

// play plays all chapters. An error says what did not come true.
func (s *story) play(ctx context.Context) error {
	crashes, leaves, loses := s.cast()
	if err := s.joins(ctx); err != nil {
		return err
	}
	clientCtx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.client.run(clientCtx)
	}()
	defer func() {
		stop()
		<-done
	}()
	s.mark("all well")
	if err := s.pause(ctx, calm); err != nil {
		return err
	}
	for _, chapter := range []func() error{
		func() error { return s.crash(ctx, crashes) },
		func() error { return s.shutdown(ctx, leaves) },
		func() error { return s.comeback(ctx, crashes) },
		func() error { return s.killAgent(ctx, loses) },
	} {
		if err := chapter(); err != nil {
			return err
		}
		s.facts.Client = s.reckon()
	}
	stop()
	<-done
	return s.settle()
}

// joins starts all hosts and waits until the router sends clients to each.
func (s *story) joins(ctx context.Context) error {
	for _, host := range s.hosts {
		if err := s.scene.Boot(host); err != nil {
			return err
		}
	}
	told := map[string]bool{}
	err := s.await(ctx, joinPatience, "that all servers are routed to", func() bool {
		for _, host := range s.hosts {
			if !told[host] && s.tellJoin(host) {
				told[host] = true
			}
		}
		return len(told) == len(s.hosts)
	})
	if err != nil {
		return s.whyNot(ctx, err)
	}
	ring, err := s.consistent(ctx)
	if err != nil {
		return err
	}
	s.page.blank()
	s.page.text("The ring. Each server pings the two beside it, its buddies, and is pinged by them: two out and two in, " +
		"however large the pool. An arrow leads to a server's first buddy.")
	s.page.blank()
	s.page.ring(ring)
	return nil
}

// tellJoin tells of a server's join once the router sends clients there.
func (s *story) tellJoin(host string) bool {
	joined, ok := s.seen.event("joined", host, 0)
	if !ok {
		return false
	}
	at, ok := s.seen.routing(membership{host, joined.GetIncarnation()})
	if !ok {
		return false
	}
	j := Join{
		Server: host, Incarnation: joined.GetIncarnation(),
		JoinedMS: ms(joined.at.Sub(s.started)), ActiveMS: ms(at.Sub(s.started)),
	}
	s.facts.Joins = append(s.facts.Joins, j)
	s.page.since(at.Sub(s.started), host, fmt.Sprintf("joined, and ACTIVE %.0f ms later", max(0, j.ActiveMS-j.JoinedMS)))
	return true
}

// whyNot adds what the coordinator says about the servers that do not come up.
func (s *story) whyNot(ctx context.Context, err error) error {
	resp, listErr := s.admin.ListServers(ctx, &coordinatorv1.ListServersRequest{Pool: pool})
	if listErr != nil {
		return err
	}
	for _, server := range resp.GetServers() {
		if server.GetWaitingFor() != "" {
			err = fmt.Errorf("%w; %s is %s: %s", err, server.GetServerId(), output.Name(server.GetPhase()), server.GetWaitingFor())
		}
	}
	return err
}

// settle tells the client's tally and judges it.
func (s *story) settle() error {
	c := s.reckon()
	s.facts.Client = c
	s.page.chapter(5, "The client's tally")
	s.page.tally(c)
	if c.SentAfterRemoval > 0 {
		return fmt.Errorf("the client was sent to a removed server %d times", c.SentAfterRemoval)
	}
	if c.Requests == c.Failed {
		return errors.New("no request of the client was answered")
	}
	return nil
}

func (s *story) reckon() ClientFacts {
	requests := s.client.log()
	c := ClientFacts{Phases: tally(requests, s.marks), SentAfterRemoval: sentAfter(requests, s.removals)}
	for _, p := range c.Phases {
		c.Requests += p.Requests
		c.Failed += p.Failed
	}
	return c
}

// since tells what the client has met since a moment.
func (s *story) since(origin time.Time) string {
	requests, failed := 0, 0
	var last time.Time
	for _, r := range s.client.log() {
		if r.began.Before(origin) {
			continue
		}
		requests++
		if r.err != nil {
			failed++
			if r.began.After(last) {
				last = r.began
			}
		}
	}
	if failed == 0 {
		return fmt.Sprintf("The client: %s since, none failed.", count(requests, "request"))
	}
	return fmt.Sprintf("The client: %s since; %d failed, the last of them begun at %+d ms.",
		count(requests, "request"), failed, last.Sub(origin).Milliseconds())
}

// mark begins a phase of the tally now.
func (s *story) mark(name string) time.Time {
	now := time.Now()
	s.marks = append(s.marks, mark{name, now})
	return now
}

func fromMS(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
