package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/buddyring/buddyring/coordinator/pool"
	"github.com/buddyring/buddyring/internal/member"
	"github.com/buddyring/buddyring/internal/observe"
)

// metrics are the coordinator's own. No label holds a server's id.
type metrics struct {
	detection     *prometheus.HistogramVec
	removals      *prometheus.CounterVec
	contradicted  prometheus.Counter
	rounds        prometheus.Counter
	notRemoved    prometheus.Counter
	dropped       prometheus.Counter
	commits       *prometheus.CounterVec
	commitSeconds prometheus.Histogram
	ended         *prometheus.CounterVec
	compactions   prometheus.Counter
	snapshots     prometheus.Counter
	members       *prometheus.GaugeVec
	suspects      *prometheus.GaugeVec
	servicesDown  *prometheus.GaugeVec
	brakeEngaged  *prometheus.GaugeVec
	brakeSuspects *prometheus.GaugeVec
	brakeLimit    *prometheus.GaugeVec
	floorLost     *prometheus.GaugeVec
	floorLimit    *prometheus.GaugeVec
	braked        prometheus.Counter
	revision      *prometheus.GaugeVec
	epoch         prometheus.Gauge
	leader        prometheus.Gauge
	terms         prometheus.Counter
	storeUp       prometheus.Gauge
	alarmActive   *prometheus.GaugeVec
	drains        *prometheus.CounterVec
}

func newMetrics(reg *prometheus.Registry) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	return &metrics{
		detection: f.NewHistogramVec(observe.Seconds("buddyring_detection_seconds",
			"Time from a server's first lost probe to its durable removal by verdict.",
			.25, .5, .6, .7, .8, .9, 1, 1.5, 2, 5), []string{"cause"}),
		removals: counters("buddyring_removals_total", "Servers that left the table.", "pool", "cause"),
		contradicted: counter("buddyring_removals_contradicted_total",
			"Removed servers that proved alive with the same boot id: wrong removals."),
		rounds:     counter("buddyring_rounds_total", "Verification rounds that were opened."),
		notRemoved: counter("buddyring_rounds_not_removed_total", "Verification rounds that ended without a removal."),
		dropped: counter("buddyring_agent_messages_dropped_total",
			"Agents' reports, answers and echoes that were not asked for, late or of an old incarnation."),
		commits: counters("buddyring_commits_total",
			"Changes handed to the store by outcome: committed, rejected, fenced or unknown.", "outcome"),
		commitSeconds: f.NewHistogram(observe.Seconds("buddyring_commit_seconds",
			"Time to commit one change, retries included.", .001, .005, .01, .05, .1, .5, 1, 5, 10)),
		ended: counters("buddyring_streams_dropped_total",
			"Streams that the coordinator ended because the peer did not keep up or sent too much.", "service", "reason"),
		compactions: counter("buddyring_subscribers_compacted_total",
			"Resume points that the history did not reach, answered by a snapshot."),
		snapshots: counter("buddyring_snapshots_encoded_total",
			"Snapshots that were encoded: one for all subscribers that need it at a revision."),
		members:      gauges("buddyring_members", "Members by durable phase.", "pool", "phase"),
		suspects:     gauges("buddyring_suspects", "Members that routers are told to prefer others to.", "pool"),
		servicesDown: gauges("buddyring_services_down", "Members whose service is down though their host is not.", "pool"),
		brakeEngaged: gauges("buddyring_brake_engaged", "1 while brake or floor hold removals by verdict.", "pool"),
		brakeSuspects: gauges("buddyring_brake_suspects",
			"Servers that count for the brake: suspect, or removed by verdict within its window.", "pool"),
		brakeLimit:  gauges("buddyring_brake_limit", "How many such servers the brake lets pass.", "pool"),
		floorLost:   gauges("buddyring_floor_lost", "Members lost by verdict and not back.", "pool"),
		floorLimit:  gauges("buddyring_floor_limit", "How many of them the floor allows.", "pool"),
		braked:      counter("buddyring_verdicts_braked_total", "Verdicts that supported a removal and were held by brake or floor."),
		revision:    gauges("buddyring_revision", "Revision of the newest durable change.", "pool"),
		epoch:       gauge("buddyring_epoch", "Epoch of the leader, as far as this coordinator has seen."),
		leader:      gauge("buddyring_leader", "1 while this coordinator leads."),
		terms:       counter("buddyring_terms_total", "How often this coordinator has taken the lead."),
		storeUp:     gauge("buddyring_store_up", "1 while the last check of the database and the last commit went through."),
		alarmActive: gauges("buddyring_alarm_active", "Active alarms.", "name", "pool"),
		drains: counters("buddyring_drains_total",
			"Drains by who asked, operator or leave, and by whether the routers confirmed in time: safe or partial.", "by", "outcome"),
	}
}

func (m *metrics) count(what pool.Counter) {
	switch what {
	case pool.CountContradicted:
		m.contradicted.Inc()
	case pool.CountRound:
		m.rounds.Inc()
	case pool.CountNotRemoved:
		m.notRemoved.Inc()
	case pool.CountDropped:
		m.dropped.Inc()
	case pool.CountBraked:
		m.braked.Inc()
	}
}

// brake shows where a pool stands between its brake and its floor.
func (m *metrics) brake(name member.Pool, s member.Safety, servicesDown int) {
	engaged := 0
	if s.Engaged {
		engaged = 1
	}
	for gauge, n := range map[*prometheus.GaugeVec]int{
		m.servicesDown: servicesDown, m.brakeEngaged: engaged, m.brakeSuspects: s.Suspects, m.brakeLimit: s.BrakeLimit,
		m.floorLost: s.Lost, m.floorLimit: s.FloorLimit,
	} {
		gauge.WithLabelValues(string(name)).Set(float64(n))
	}
}

// gauges shows what is looked up when it is asked for.
func (s *Server) gauges(reg *prometheus.Registry) {
	ofTerm := func(read func(*term) int64) func() float64 {
		return func() float64 {
			if t := s.term.Load(); t != nil {
				return float64(read(t))
			}
			return 0
		}
	}
	for _, g := range []struct {
		name, help string
		read       func() float64
	}{
		{"buddyring_sessions", "Live sessions of agents.", ofTerm(func(t *term) int64 { return t.agents.live.Load() })},
		{"buddyring_subscribers", "Live subscriptions of routers.", ofTerm(func(t *term) int64 { return t.members.live.Load() })},
		{
			"buddyring_lease_age_seconds", "Time since the lease was renewed last, as far as this coordinator has seen.",
			func() float64 { return s.standing(time.Now()).leaseAge.Seconds() },
		},
	} {
		promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.read)
	}
}

// ofPools are the gauges of what only a leader knows of its pools.
func (m *metrics) ofPools() []*prometheus.GaugeVec {
	return []*prometheus.GaugeVec{
		m.members, m.suspects, m.servicesDown, m.brakeEngaged, m.brakeSuspects, m.brakeLimit, m.floorLost, m.floorLimit, m.revision,
	}
}

// forgetPools takes that away.
func (m *metrics) forgetPools() {
	for _, g := range m.ofPools() {
		g.Reset()
	}
}

// forgetPool takes it away for one pool.
func (m *metrics) forgetPool(name member.Pool) {
	for _, g := range m.ofPools() {
		g.DeletePartialMatch(prometheus.Labels{"pool": string(name)})
	}
}

// pool shows where a pool stands.
func (m *metrics) pool(h *history) {
	name := string(h.name)
	m.revision.WithLabelValues(name).Set(float64(h.head().Revision))
	for phase, n := range h.sizes() {
		m.members.WithLabelValues(name, phase.String()).Set(float64(n))
	}
}

// drained counts a drain of which some routers may not have confirmed.
func (m *metrics) drained(by string, lags []pool.Lag) {
	outcome := "safe"
	if len(lags) > 0 {
		outcome = "partial"
	}
	m.drains.WithLabelValues(by, outcome).Inc()
}

func (m *metrics) published(c member.Change) {
	for _, r := range c.Remove {
		m.removals.WithLabelValues(string(c.Pool), r.Cause.String()).Inc()
	}
}
