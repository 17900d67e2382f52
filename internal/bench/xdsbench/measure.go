package xdsbench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/buddyring/buddyring/client"
	pb "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// Options say how much to measure. Zero fields take their defaults.
type Options struct {
	// Dir is where the router keeps its state. It must be given.
	Dir string
	// Servers is the size of the pool, 8; Rounds how often a server is taken out,
	// 100; Drains how often one is drained and stopped, 20; Callers how many call
	// at the same time, 4.
	Servers, Rounds, Drains, Callers int
	// Away is how long there is no router, 60 s.
	Away time.Duration
}

func (o Options) withDefaults() Options {
	for _, f := range []struct {
		field *int
		value int
	}{{&o.Servers, 8}, {&o.Rounds, 100}, {&o.Drains, 20}, {&o.Callers, 4}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if o.Away == 0 {
		o.Away = time.Minute
	}
	return o
}

// Report is target R4 as it was measured.
type Report struct {
	Servers int `json:"servers"`
	// FirstCall is from a new client to the end of its first call.
	FirstCall time.Duration `json:"first_call_ns"`
	// Lags are from the moment that the coordinator publishes a removal to the last
	// call that its server gets, 0 where there is none, sorted.
	Lags []time.Duration `json:"lags_ns"`
	// Acks are from the same moment to the router's acknowledgement, sorted.
	Acks []time.Duration `json:"acks_ns"`
	// Phases are what happened to the load.
	Phases []Phase `json:"phases"`
}

// Phase is a load under one kind of trouble.
type Phase struct {
	Name   string `json:"name"`
	Calls  int64  `json:"calls"`
	Failed int64  `json:"failed"`
	// First is the first failure.
	First string `json:"first_failure,omitempty"`
}

// Measure makes the experiment with grpc-go's own client.
func Measure(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	dial := func(l *Lab) (*grpc.ClientConn, error) { return Dial(l.Bootstrap(), "xds:///"+pool) }
	return measure(ctx, o, dial, func(m *measurement) []step {
		return []step{
			{"removals", m.removals, time.Millisecond},
			{"drains", m.drains, 50 * time.Millisecond},
			{fmt.Sprintf("router away for %v", o.Away), m.away, time.Millisecond},
			{"router restarted", m.restart, time.Millisecond},
		}
	})
}

// Restart drains and replaces all servers, one after the other, while callers use
// the Go library: target R5.
func Restart(ctx context.Context, o Options) (*Report, error) {
	o = o.withDefaults()
	o.Drains = o.Servers
	dial := func(l *Lab) (*grpc.ClientConn, error) {
		conn, err := grpc.NewClient("buddyring:///"+pool, client.DialOption(client.Config{
			Routers: []string{l.RouterAddress}, Credentials: insecure.NewCredentials(),
		}), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, fmt.Errorf("dial pool: %w", err)
		}
		return conn, nil
	}
	return measure(ctx, o, dial, func(m *measurement) []step {
		return []step{{"rolling restart", m.drains, 50 * time.Millisecond}}
	})
}

// step is a kind of trouble, and how long each call takes meanwhile.
type step struct {
	name string
	run  func(context.Context) error
	each time.Duration
}

// measure starts everything and makes one step after the other.
func measure(
	ctx context.Context, o Options, dial func(*Lab) (*grpc.ClientConn, error), steps func(*measurement) []step,
) (_ *Report, err error) {
	l, err := NewLab(ctx, Config{Dir: o.Dir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	m := &measurement{Lab: l, o: o, report: &Report{Servers: o.Servers}}
	if m.servers, err = l.Servers(ctx, o.Servers); err != nil {
		return nil, err
	}
	for _, s := range m.servers {
		l.Put(pool, s.Row())
	}
	if err := l.StartRouter(ctx); err != nil {
		return nil, err
	}
	begun := time.Now()
	if m.conn, err = dial(l); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.conn.Close()) }()
	// The router may not have seen the pool yet.
	if err := Call(ctx, m.conn, 0, grpc.WaitForReady(true)); err != nil {
		return nil, err
	}
	m.report.FirstCall = time.Since(begun)
	for _, s := range steps(m) {
		if err := m.phase(ctx, s); err != nil {
			return nil, fmt.Errorf("measure %s: %w", s.name, err)
		}
	}
	return m.report, nil
}

const pool = "web"

// settle is how long a change is given to show.
const settle = 50 * time.Millisecond

type measurement struct {
	*Lab

	o       Options
	servers []*Server
	conn    *grpc.ClientConn
	report  *Report
}

func (m *measurement) phase(ctx context.Context, s step) error {
	load := StartLoad(ctx, m.conn, m.o.Callers, s.each)
	err := s.run(ctx)
	failed, first := load.Stop()
	p := Phase{Name: s.name, Calls: failed + load.OK.Load(), Failed: failed}
	if first != nil {
		p.First = first.Error()
	}
	m.report.Phases = append(m.report.Phases, p)
	return err
}

// removals takes out one server after the other, and puts it back.
func (m *measurement) removals(ctx context.Context) error {
	for i := range m.o.Rounds {
		s := m.servers[i%len(m.servers)]
		begun := time.Now()
		if err := m.Acked(ctx, pool, m.Remove(pool, pb.Cause_CAUSE_CRASHED, s.ID)); err != nil {
			return err
		}
		m.report.Acks = append(m.report.Acks, time.Since(begun))
		time.Sleep(settle)
		m.report.Lags = append(m.report.Lags, max(0, s.Last().Sub(begun)))
		before := s.Calls.Load()
		m.Put(pool, s.Row())
		for s.Calls.Load() == before && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}
	slices.Sort(m.report.Lags)
	slices.Sort(m.report.Acks)
	return ctx.Err()
}

// drains marks one server after the other, stops it when the router has
// acknowledged that, and has another take its place.
func (m *measurement) drains(ctx context.Context) error {
	for i := range m.o.Drains {
		s := m.servers[i%len(m.servers)]
		row := s.Row()
		row.Phase = pb.Phase_PHASE_DRAINING
		if err := m.Acked(ctx, pool, m.Put(pool, row)); err != nil {
			return err
		}
		s.Stop()
		m.Remove(pool, pb.Cause_CAUSE_SHUTDOWN, s.ID)
		next, err := m.Servers(ctx, 1)
		if err != nil {
			return err
		}
		next[0].ID = fmt.Sprintf("n%d", i+1)
		m.servers[i%len(m.servers)] = next[0]
		m.Put(pool, next[0].Row())
		time.Sleep(settle)
	}
	return nil
}

// away is a time without a router.
func (m *measurement) away(ctx context.Context) error {
	if err := m.StopRouter(); err != nil {
		return err
	}
	select {
	case <-time.After(m.o.Away):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// restart brings the router back, and takes a server out, which the client learns
// when it has found the router again.
func (m *measurement) restart(ctx context.Context) error {
	if err := m.StartRouter(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	for m.Confirmations() == 0 && ctx.Err() == nil {
		time.Sleep(settle)
	}
	if err := m.Acked(ctx, pool, m.Remove(pool, pb.Cause_CAUSE_SHUTDOWN, m.servers[0].ID)); err != nil {
		return err
	}
	time.Sleep(settle)
	return ctx.Err()
}

// String is the report for people.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "xDS, %d servers, grpc-go's client\n", r.Servers)
	fmt.Fprintf(&b, "  first call                 %v\n", r.FirstCall.Round(10*time.Microsecond))
	fmt.Fprintf(&b, "  removal -> last call       %s\n", quantiles(r.Lags))
	fmt.Fprintf(&b, "  removal -> acknowledged    %s\n", quantiles(r.Acks))
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "  %-26s %d calls, %d failed", p.Name, p.Calls, p.Failed)
		if p.First != "" {
			fmt.Fprintf(&b, ", the first with %s", p.First)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// quantiles are p50, p99 and the maximum of sorted values.
func quantiles(sorted []time.Duration) string {
	if len(sorted) == 0 {
		return "none"
	}
	at := func(q float64) time.Duration {
		return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, max %v (%d)", at(0.5), at(0.99), at(1), len(sorted))
}
