package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/history"
)

// Times are how long something took, each time.
type Times []time.Duration

// Quantile returns the time that a share of them does not exceed; 0 of none.
func (t Times) Quantile(share float64) time.Duration {
	if len(t) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(t))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// MarshalJSON gives the figures in seconds.
func (t Times) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"count": len(t), "p50_s": t.Quantile(.5).Seconds(), "p99_s": t.Quantile(.99).Seconds(), "max_s": t.Quantile(1).Seconds(),
	})
}

// Report is what came of an experiment, or of several.
type Report struct {
	// Seeds are those of the experiments.
	Seeds        []uint64 `json:"seeds"`
	Coordinators int      `json:"coordinators"`
	Servers      int      `json:"servers"`
	// Failover is the time from the kill of the leader to the first session that
	// another one accepts; Handover, from SIGTERM; Stopped, from SIGSTOP; Crashed,
	// from the return of a database that was killed together with the leader; Host,
	// from the kill of the leader and the node of the cluster that it writes to.
	Failover Times `json:"failover"`
	Handover Times `json:"handover"`
	Stopped  Times `json:"stopped"`
	Crashed  Times `json:"crashed"`
	Host     Times `json:"host"`
	// Steered is, while a node of the cluster was harmed, the time from the crash
	// of a server until no router sent anybody there; Resumed, from the harm until
	// a change was acknowledged that was asked for after it.
	Steered Times `json:"steered"`
	Resumed Times `json:"resumed"`
	// SlowDatabase and SlowClients are as Steered, while the leader's link to the
	// database was slow, or those to half of the agents and to routers; SlowChanges
	// are as Resumed.
	SlowDatabase Times `json:"slow_database"`
	SlowClients  Times `json:"slow_clients"`
	SlowChanges  Times `json:"slow_changes"`
	// What was acknowledged, and how much the table has. WaveJoins are those that
	// were acknowledged right before leader and database were killed together.
	Joins int `json:"joins"`
	// Deaths are the crashes of servers, Removed those that were taken out for it.
	Deaths    int    `json:"deaths"`
	Removed   int    `json:"removed"`
	Leaves    int    `json:"leaves"`
	WaveJoins int    `json:"wave_joins"`
	Revisions uint64 `json:"revisions"`
	Epochs    uint64 `json:"epochs"`
	// Orders are the operators' changes that were acknowledged, by kind.
	Orders map[history.Kind]int `json:"orders"`
	// Clocks is how often the wall clock of a program was set, Others how often
	// a standby, a router or an agent was killed or stopped, Nodes how often a
	// node of the cluster was harmed, Slows how often links were slow,
	// Visits who asked a leader of the past, having seen a later one.
	Clocks int    `json:"clocks"`
	Others int    `json:"others"`
	Nodes  int    `json:"nodes"`
	Slows  int    `json:"slows"`
	Visits Visits `json:"visits"`
	// History is what was judged.
	History Judged `json:"history"`
	// What must not be.
	Breaches      []string `json:"breaches"`
	Lost          []string `json:"lost_acknowledged_changes"`
	Half          []string `json:"half_written_changes"`
	StaleWrites   []string `json:"stale_writes"`
	StaleEffects  []string `json:"stale_effects"`
	WrongRemovals []string `json:"wrong_removals"`
	// Superseded are leaders that were well and lost the lead, by an outage of the
	// database or of a node, by a clock that was set, or by what another program did.
	Superseded []string `json:"superseded"`
	// Differences are those between the nodes of a cluster.
	Differences []string `json:"differences"`
}

// Judged counts what a history has: operations, those of them without an answer,
// streams of routers and of their clients, and their messages. Resumed are the
// streams of clients that went on from where one had ended, Compared the messages to
// clients after which it is known who got work by the table.
type Judged struct {
	Operations int `json:"operations"`
	Unknown    int `json:"unknown"`
	Streams    int `json:"streams"`
	Clients    int `json:"client_streams"`
	Resumed    int `json:"client_streams_resumed"`
	Messages   int `json:"messages"`
	Compared   int `json:"client_messages_compared"`
}

func (j *Judged) add(o Judged) {
	j.Operations, j.Unknown, j.Messages, j.Compared = j.Operations+o.Operations, j.Unknown+o.Unknown, j.Messages+o.Messages, j.Compared+o.Compared
	j.Streams, j.Clients, j.Resumed = j.Streams+o.Streams, j.Clients+o.Clients, j.Resumed+o.Resumed
}

func newReport(cfg Config) Report {
	r := Report{Seeds: []uint64{cfg.Seed}, Coordinators: cfg.Coordinators, Servers: cfg.Servers, Orders: map[history.Kind]int{}}
	for _, list := range r.wrongs() {
		*list.what = []string{}
	}
	return r
}

// wrong is a list of what must not be.
type wrong struct {
	name string
	what *[]string
}

func (r *Report) wrongs() []wrong {
	return []wrong{
		{"S3  breaches of linearizability or of a watch guarantee", &r.Breaches},
		{"S1  lost acknowledged changes", &r.Lost},
		{"    half-written changes", &r.Half},
		{"S1  stale writes", &r.StaleWrites},
		{"    stale effects at agents and routers", &r.StaleEffects},
		{"S1  wrong removals", &r.WrongRemovals},
		{"    leaders that were well and lost the lead", &r.Superseded},
		{"    tables that differ between nodes", &r.Differences},
	}
}

// Wrong counts what must not be.
func (r Report) Wrong() int {
	n := 0
	for _, list := range r.wrongs() {
		n += len(*list.what)
	}
	return n
}

// Add adds what came of another experiment of the same kind.
func (r *Report) Add(o Report) {
	r.Seeds = append(r.Seeds, o.Seeds...)
	r.Failover, r.Handover = append(r.Failover, o.Failover...), append(r.Handover, o.Handover...)
	r.Stopped, r.Crashed = append(r.Stopped, o.Stopped...), append(r.Crashed, o.Crashed...)
	r.Host = append(r.Host, o.Host...)
	r.Joins, r.Leaves, r.WaveJoins = r.Joins+o.Joins, r.Leaves+o.Leaves, r.WaveJoins+o.WaveJoins
	for kind, n := range o.Orders {
		r.Orders[kind] += n
	}
	r.Deaths, r.Removed = r.Deaths+o.Deaths, r.Removed+o.Removed
	r.Steered, r.Resumed = append(r.Steered, o.Steered...), append(r.Resumed, o.Resumed...)
	r.SlowDatabase, r.SlowClients = append(r.SlowDatabase, o.SlowDatabase...), append(r.SlowClients, o.SlowClients...)
	r.SlowChanges = append(r.SlowChanges, o.SlowChanges...)
	r.Revisions, r.Epochs = r.Revisions+o.Revisions, r.Epochs+o.Epochs
	r.Clocks, r.Others, r.Nodes, r.Slows = r.Clocks+o.Clocks, r.Others+o.Others, r.Nodes+o.Nodes, r.Slows+o.Slows
	r.Visits.add(o.Visits)
	r.History.add(o.History)
	mine := r.wrongs()
	for i, list := range o.wrongs() {
		*mine[i].what = append(*mine[i].what, *list.what...)
	}
}

// orders lists the operators' changes.
func (r Report) orders() string {
	var list []string
	for _, kind := range history.OrderKinds() {
		list = append(list, fmt.Sprintf("%d %s", r.Orders[kind], kind))
	}
	return strings.Join(list, ", ")
}

// Write writes the report for people.
func (r Report) Write(w io.Writer) error {
	lines := []string{
		fmt.Sprintf("%d coordinators, %d servers; seed %s", r.Coordinators, r.Servers, strings.Trim(fmt.Sprint(r.Seeds), "[]")),
		fmt.Sprintf("acknowledged: %d joins, %d leaves; %d of %d servers that crashed were taken out before they were back; %d revisions in %d epochs",
			r.Joins, r.Leaves, r.Removed, r.Deaths, r.Revisions, r.Epochs),
		"acknowledged to operators: " + r.orders(),
		fmt.Sprintf("besides: %d times a clock was set, %d times a standby, a router or an agent killed or stopped, %d times a node of Galera harmed, "+
			"%d times links slow; %s", r.Clocks, r.Others, r.Nodes, r.Slows, r.Visits),
		fmt.Sprintf("judged: %d operations, %d of them without an answer; %d messages of %d streams of routers and %d of clients; %d of clients resumed, %d messages to them compared with the table",
			r.History.Operations, r.History.Unknown, r.History.Messages, r.History.Streams, r.History.Clients, r.History.Resumed, r.History.Compared),
		fmt.Sprintf("%-66s %5s %9s %9s %9s", "", "n", "p50", "p99", "max"),
	}
	for _, t := range []struct {
		name  string
		times Times
	}{
		{"S1  SIGKILL of the leader → first session (≤ 6 s)", r.Failover},
		{"S1  SIGTERM → first session (≤ 0.5 s)", r.Handover},
		{"    SIGSTOP → first session", r.Stopped},
		{"    leader and database killed: database back → session", r.Crashed},
		{"    leader and the node in use killed → first session", r.Host},
		{"S2  node harmed: crash of a server → avoided by all routers (≤ 1 s)", r.Steered},
		{"    node harmed → next change acknowledged", r.Resumed},
		{"S2  database slow: crash of a server → avoided by all routers (≤ 1 s)", r.SlowDatabase},
		{"    agents and routers slow: crash → avoided by all routers", r.SlowClients},
		{"    links slow → next change acknowledged", r.SlowChanges},
	} {
		if len(t.times) > 0 {
			lines = append(lines, fmt.Sprintf("%-66s %5d %7.2f s %7.2f s %7.2f s", t.name, len(t.times),
				t.times.Quantile(.5).Seconds(), t.times.Quantile(.99).Seconds(), t.times.Quantile(1).Seconds()))
		}
	}
	lines = append(lines, fmt.Sprintf("%-66s %5d", "    joins acknowledged right before leader and database died", r.WaveJoins), "what must not be:")
	for _, c := range r.wrongs() {
		lines = append(lines, fmt.Sprintf("%-66s %5d", c.name, len(*c.what)))
		for _, text := range (*c.what)[:min(10, len(*c.what))] {
			lines = append(lines, "        "+text)
		}
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}
