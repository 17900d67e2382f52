package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/router/view"
)

// metrics are the router's. Labels are pools, policies and states; servers are
// in none.
type metrics struct {
	picks          *prometheus.CounterVec
	applies        *prometheus.CounterVec
	histories      *prometheus.CounterVec
	fenced         prometheus.Counter
	connected      prometheus.Gauge
	subscriptions  *prometheus.CounterVec
	watchers       prometheus.Gauge
	watchersSlow   prometheus.Counter
	stateWrites    *prometheus.CounterVec
	stateWritten   prometheus.Gauge
	stateWriteTime prometheus.Histogram
}

func newMetrics(reg *prometheus.Registry) *metrics {
	f := promauto.With(reg)
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "buddyring_router_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "buddyring_router_" + name, Help: help})
	}
	return &metrics{
		picks: counters("picks_total",
			"Picks by policy and by the state of the first server chosen; none when there was no server.", "pool", "policy", "state"),
		applies: counters("applied_total",
			"Messages of the coordinator that were applied: snapshot, delta or marks.", "pool", "kind"),
		histories: counters("history_changes_total",
			"Snapshots from another store, or with a revision that went back.", "pool"),
		fenced: f.NewCounter(prometheus.CounterOpts{
			Name: "buddyring_router_fenced_total", Help: "Messages that were ignored because they came from a lower epoch.",
		}),
		connected: gauge("connected", "1 while a subscription to a coordinator is up to date."),
		subscriptions: counters("subscription_ends_total",
			"Subscriptions that ended, by reason: unavailable, not_leader, silent, gap, fenced or error.", "reason"),
		watchers: gauge("watchers", "Clients that watch a pool now."),
		watchersSlow: f.NewCounter(prometheus.CounterOpts{
			Name: "buddyring_router_watchers_dropped_total", Help: "Watchers that were dropped because they did not read.",
		}),
		stateWrites: counters("state_writes_total",
			"Attempts to write the views to disk, by result: ok or error.", "result"),
		stateWritten: gauge("state_written_timestamp_seconds", "When the views were last written to disk."),
		stateWriteTime: f.NewHistogram(prometheus.HistogramOpts{
			Name: "buddyring_router_state_write_seconds", Help: "Time to write the views to disk.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10},
		}),
	}
}

// poolMetrics are the counters of one pool, looked up once.
type poolMetrics struct {
	all  *metrics
	name string
	// picks are by policy and state; the last state is for no server.
	picks [policyCount][stateNone + 1]prometheus.Counter
}

const (
	policyCount = int(view.Maglev) + 1
	stateNone   = int(view.StateHeldBack) + 1
)

func (m *metrics) pool(name member.Pool) *poolMetrics {
	p := &poolMetrics{all: m, name: string(name)}
	for policy := range policyCount {
		name := view.Policy(policy).String()
		for state := range stateNone {
			p.picks[policy][state] = m.picks.WithLabelValues(p.name, name, view.State(state).String())
		}
		p.picks[policy][stateNone] = m.picks.WithLabelValues(p.name, name, "none")
	}
	return p
}

func (m *metrics) forget(name member.Pool) {
	labels := prometheus.Labels{"pool": string(name)}
	m.picks.DeletePartialMatch(labels)
	m.applies.DeletePartialMatch(labels)
	m.histories.DeletePartialMatch(labels)
}

func (p *poolMetrics) applied(kind string) { p.all.applies.WithLabelValues(p.name, kind).Inc() }

func (p *poolMetrics) historyChanged() { p.all.histories.WithLabelValues(p.name).Inc() }

// picked counts a pick by its first choice.
func (p *poolMetrics) picked(policy view.Policy, state view.State) { p.picks[policy][state].Inc() }

func (p *poolMetrics) pickedNone(policy view.Policy) { p.picks[policy][stateNone].Inc() }

// states collects the gauges that follow from the current editions.
type states struct {
	pools *pools

	servers, revision, epoch, age, stale *prometheus.Desc
}

func newStates(p *pools) *states {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("buddyring_router_"+name, help, append([]string{"pool"}, labels...), nil)
	}
	return &states{
		pools:    p,
		servers:  desc("servers", "Servers that may get work, by state.", "state"),
		revision: desc("revision", "Revision of the pool that is served."),
		epoch:    desc("epoch", "Epoch of the leader that the served revision was last confirmed by."),
		age:      desc("view_age_seconds", "Time since the coordinator last confirmed the view."),
		stale:    desc("view_stale", "1 while the coordinator is out of reach and the last good view is served."),
	}
}

// Describe implements prometheus.Collector.
func (s *states) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.servers, s.revision, s.epoch, s.age, s.stale} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *states) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	for _, e := range s.pools.editions() {
		pool, position := string(e.pool), e.view.Position()
		gauge := func(d *prometheus.Desc, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{pool}, labels...)...)
		}
		for state := range stateNone {
			gauge(s.servers, float64(e.table.Count(view.State(state))), view.State(state).String())
		}
		age, stale := e.contact.age(now)
		gauge(s.revision, float64(position.Revision))
		gauge(s.epoch, float64(position.Epoch))
		gauge(s.age, age.Seconds())
		gauge(s.stale, oneIf(stale))
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
